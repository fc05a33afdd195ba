"""Finding (ii): what Adam(W) does to the scale of rewards, on a softmax bandit.

Gradients are of the objective J, which is climbed.
Source: arXiv 2601.05002, Propositions 2, 5 and 6, with standard Adam (Appendices C and D).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.bias.prefix import advantages
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array, adam, formulas
from ebpo_sim.numbers.adam import Adam, State
from ebpo_sim.numbers.softmax import softmax


class Sgd(NamedTuple):
    """Settings of gradient ascent: theta <- theta + lr g."""

    lr: float = 0.05


Optimiser = Adam | Sgd


def update(optimiser: Optimiser, state: State, gradient: ArrayLike, lr_factor: float = 1.0) -> State:
    """One step with the gradient of J; `lr_factor` multiplies the learning rate (a schedule). The moments of an
    Adam state pass through SGD unchanged. Raises InputError for a gradient of another shape and unless lr > 0 and, for
    Adam, betas in [0, 1), eps >= 0, weight_decay >= 0."""
    if isinstance(optimiser, Adam):
        adam.check(optimiser)
    elif not optimiser.lr > 0:
        raise InputError(f"lr must be positive, got {optimiser.lr}")
    g = np.array(gradient, dtype=np.float64, ndmin=1)
    if g.shape != state.theta.shape:
        raise InputError(f"gradient must have the parameters' shape {state.theta.shape}, got {g.shape}")
    if isinstance(optimiser, Adam):
        return adam.update(optimiser, state, g, lr_factor)
    return state._replace(theta=state.theta + optimiser.lr * lr_factor * g, step=state.step + 1)


def clip_by_norm(gradient_K: ArrayLike, limit: float) -> Array:
    """g min(1, limit/|g|), the global-norm clip."""
    g = np.asarray(gradient_K, dtype=np.float64)
    norm = float(np.linalg.norm(g))
    return g * (limit / norm) if norm > limit else g


def update_ratio(scale: ArrayLike, root_v: ArrayLike, eps: float) -> Array:
    """Delta(phi)/Delta(1) = (sqrt(v) + eps)/(sqrt(v) + eps/phi), for one gradient history and phi > 0.

    Near 1 as long as phi >> eps/sqrt(v); phi sqrt(v)/eps below that.
    """
    phi, v = np.asarray(scale, dtype=np.float64), np.asarray(root_v, dtype=np.float64)
    if not np.all(phi > 0):
        raise InputError(f"scale must be positive, got {phi.min()}: a negative scale turns the objective round")
    return np.asarray((v + eps) / (v + eps / phi))


def kl_threshold(reward_gradient: float, kl_gradient: float, kl: float) -> float:
    """phi* = beta g_R/g_A, where the first Adam step, lr sign(phi g_A - beta g_R) for eps -> 0, turns round."""
    return kl * kl_gradient / reward_gradient


class GlobalPrior(NamedTuple):
    """Statistics of rewards over many groups: their mean, their variance, the variance of group means."""

    mean: float
    noise: float
    between: float


def rescaled(prior: GlobalPrior, scale: float, shift: float = 0.0) -> GlobalPrior:
    """The prior of phi r + c: (phi mu + c, phi^2 sigma2, phi^2 tau2)."""
    return GlobalPrior(scale * prior.mean + shift, scale**2 * prior.noise, scale**2 * prior.between)


def estimate_prior(rewards_PG: ArrayLike, initial: GlobalPrior | None = None, weight: float = 0.0) -> GlobalPrior:
    """EBPO's Algorithm 1 on one batch, mixed with `weight` batches' worth of an initial prior.

    Equivariant, estimate(phi r + c) = rescaled(estimate(r)), iff weight = 0 or `initial` is rescaled as well.
    """
    r = np.asarray(rewards_PG, dtype=np.float64)
    found = GlobalPrior(float(r.mean()), float(r.var()), float(r.mean(axis=-1).var()))
    if initial is None:
        return found
    return GlobalPrior(*((x + weight * x0) / (1 + weight) for x, x0 in zip(found, initial, strict=True)))


def prior_shrinkage(prior: GlobalPrior, group_size: int) -> float:
    """S = (sigma2/G)/(sigma2/G + tau2) (EBPO, Algorithm 1)."""
    if prior.noise < 0 or prior.between < 0 or prior.noise + prior.between == 0:
        raise InputError(f"prior variances must be >= 0 and not both 0, got {prior.noise} and {prior.between}")
    return float(formulas.oracle_shrinkage(prior.noise, prior.between, group_size))


def shrinkage_advantages(rewards_G: ArrayLike, prior: GlobalPrior) -> Array:
    """A_i = r_i - (1-S) mean(r) - S mu: EBPO's raw advantages of one group."""
    r = np.asarray(rewards_G, dtype=np.float64)
    S = prior_shrinkage(prior, r.shape[-1])
    return np.asarray(r - (1 - S) * r.mean(axis=-1, keepdims=True) - S * prior.mean)


# The softmax bandit, started at zero logits.
REWARDS_K = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
REFERENCE_K = softmax((1.0, 0.0, 0.0, 0.0, 0.0, -1.0))  # of the KL term
GROUP_SIZE = 8


class BanditRun(NamedTuple):
    """Logits before the first and after every step, and sqrt(v-hat) after every step (zeros for SGD)."""

    theta_TK: Array
    root_v_TK: Array


def run_bandit(
    optimiser: Optimiser,
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    kl: float = 0.0,
    normalise: bool = False,
    prior: GlobalPrior | None = None,
    warmup: int = 0,
    steps: int = 200,
    seed: int = 3,
) -> BanditRun:
    """`steps` updates with g = (1/G) sum_i A_i (e_{a_i} - pi) - kl grad KL(pi || reference), rewards phi r + c.

    A is centred on the group mean, or on EBPO's baseline with a fixed `prior`; `normalise` divides it by the group's
    standard deviation (eps 0). `warmup` steps raise the learning rate linearly. Arms come
    from NumPy's default generator: same seed, same arms as long as the logits agree.
    """
    if steps < 1:
        raise InputError(f"steps must be >= 1, got {steps}")
    if not scale > 0:
        raise InputError(f"scale must be positive, got {scale}: a negative scale turns the objective round")
    rng, arms = np.random.default_rng(seed), len(REWARDS_K)
    state = adam.init(np.zeros(arms))
    theta_TK, root_v_TK = np.zeros((steps + 1, arms)), np.zeros((steps, arms))
    for t in range(steps):
        pi = softmax(state.theta)
        arm_G = rng.choice(arms, size=GROUP_SIZE, p=pi)
        r = scale * REWARDS_K[arm_G] + shift
        A = advantages(r) if prior is None else shrinkage_advantages(r, prior)
        if normalise:
            sigma = r.std()
            A = A / sigma if sigma > 0 else np.zeros_like(A)
        gradient = (A[:, None] * (np.eye(arms)[arm_G] - pi)).mean(axis=0)
        if kl:
            log_ratio = np.log(pi / REFERENCE_K)
            gradient = gradient - kl * (pi * (log_ratio - pi @ log_ratio))
        state = update(optimiser, state, gradient, min(1.0, (t + 1) / max(1, warmup)))
        theta_TK[t + 1] = state.theta
        if isinstance(optimiser, Adam):
            root_v_TK[t] = np.sqrt(state.second / (1 - optimiser.beta2**state.step))
    return BanditRun(theta_TK, root_v_TK)
