"""Closed forms and exact sums that only tests need: what the package's results are held against.

Notation as in `ebpo_sim.numbers.formulas`, arrays as in `ebpo_sim.chains.policy`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from ebpo_sim.bias.prefix import advantages, aggregate_weight, token_weights
from ebpo_sim.chains.policy import step_distributions, step_log_probabilities
from ebpo_sim.estimators.components import retention
from ebpo_sim.numbers.formulas import degenerate_probability


def algorithm1_shrinkage(icc, group_size):
    """S -> 1 / (2 + (G-1) rho), the long-run limit of EBPO's Algorithm 1; always in [1/(G+1), 1/2].

    Algorithm 1 takes sigma2 = w + T2 (the variance of all rewards) and tau2 = T2 + w/G (the raw variance of
    group means), so S = (sigma2/G) / (sigma2/G + tau2) (EBPO, Algorithm 1, lines 3 and 4).
    """
    return 1 / (2 + (group_size - 1) * icc)


def beta_binomial_shrinkage(icc, group_size):
    """S -> nu/(nu + G), nu = (G-1) S*: the limit of EBPO-BB, whose moment fit takes the raw variance of means.

    nu = mu(1-mu)/v - 1 with v = T2 + w/G. Slightly below `within_shrinkage`. Needs G >= 2: at G = 1 the moments
    are inadmissible and the estimator falls back on nu = 2.
    """
    nu = (group_size - 1) * oracle_shrinkage_icc(icc, group_size)
    return nu / (nu + group_size)


def oracle_shrinkage_icc(icc, group_size):
    """S* = (1 - rho) / (1 + (G-1) rho): `oracle_shrinkage` as a function of the intra-class correlation."""
    return (1 - icc) / (1 + (group_size - 1) * icc)


def linear_risk(shrinkage, within, between, group_size):
    """R(S) = (1-S)^2 w/G + S^2 T2 = E (baseline - p)^2 of (1-S) group mean + S mu, for any prior of p."""
    return (1 - shrinkage) ** 2 * within / group_size + shrinkage**2 * between


def drift_lag(per_step, memory, batches, update):
    """E mu_glob - mean of the batch being scored, when the mean moves by c a batch and the memory holds n batches.

    -c times the average age of the memory: cumulative (n-1)/2; retention l: l/(1-l) - n l^n/(1-l^n), which stays below
    l/(1-l); batch 0; one more of each with "score_then_update". n >= 1.
    """
    n, keep = np.asarray(batches, dtype=np.float64), retention(memory)
    age = (n - 1) / 2 if keep == 1 else keep / (1 - keep) - n * keep**n / (1 - keep**n)
    return -per_step * (age + (update == "score_then_update"))


def leave_one_out_risk(shrinkage, within, between, group_size):
    """(1-S)^2 w/(G-1) + S^2 T2: as `linear_risk` with the mean of the other G-1 rollouts. Needs G >= 2."""
    return (1 - shrinkage) ** 2 * within / (group_size - 1) + shrinkage**2 * between


def mixed_group_mean(p, group_size):
    """E[group mean | not all equal] = (p - p^G) / (1 - p^G - (1-p)^G), for 0 < p < 1 and G >= 2 (arXiv 2601.08521)."""
    return (p - p**group_size) / (1 - degenerate_probability(p, group_size))


def own_sample_factor(shrinkage, group_size):
    """E[gradient] / grad J = 1 - (1-S)/G: what a baseline that contains the scored reward does, S and mu external."""
    return 1 - (1 - shrinkage) / group_size


def log_probabilities(theta_SK, prompts, actions_PGL):
    """log pi of every sampled token, shape (P, G, L); 0 on padding, whose action must be 0."""
    log_PLK = step_log_probabilities(theta_SK, prompts)
    return np.asarray(np.take_along_axis(log_PLK[:, None], actions_PGL[..., None], axis=-1)[..., 0])


def token_kl(theta_SK, other_SK, prompts):
    """KL(pi_theta || pi_other) of every step in nats, shape (P, L), 0 on padding; additive along the chain."""
    pi, other = step_distributions(theta_SK, prompts), step_distributions(other_SK, prompts)
    return np.asarray(np.sum(rel_entr(pi, other), axis=-1))


def within_shrinkage(icc, group_size):
    """S -> S*/(1 + S*) when sigma2 is the within-group variance and tau2 the raw variance of means (EBPO-G)."""
    oracle = oracle_shrinkage_icc(icc, group_size)
    return oracle / (1 + oracle)


def first_step_loss(method, lengths_G, rewards_G):
    """J at s = 1 without its regulariser: sum_i alpha_i |o_i| A_i (Proposition 4): 0 when alpha is C/|o_i|."""
    L = np.asarray(lengths_G, dtype=np.float64)
    return aggregate_weight(token_weights(method, L, rewards_G) * L, advantages(rewards_G))
