"""The claims of published advantage rules; `advantage_rules` decides them."""

from __future__ import annotations

from functools import partial

from ebpo_sim.claims import advantage_rules as rules
from ebpo_sim.claims.base import Claim, enter, presumed
from ebpo_sim.claims.noise_rules import each

BINARY = "binary rewards, rollouts of a prompt independent"
ALONE = f"{BINARY}; batches large, where the rule divides by one: of pass rates uniform in [0, 1]"
SHARED_NOTHING = f"{BINARY}, prompts that share nothing, in a large batch of the world"


enter(
    Claim(
        "A1", "MaxRL (arXiv 2602.02710)", "Its expected gradient is the log-likelihood's cut after term G", BINARY,
        "It is cut after term G - 1; -1 in all-fail groups as well makes it G, at the price of a signal there.",
        rules.likelihood_order, presumed("as shipped = fails; -1 in all-fail groups = holds"),
    ),
    Claim(
        "A2", "MaxRL (arXiv 2602.02710)", "Its update is closer to the log-likelihood's than its rivals' are",
        f"{BINARY}; one logit a prompt", "True as soon as G ≥ 3 and prompts differ; at G = 2 it is RLOO.",
        rules.likelihood_direction, presumed("against GRPO = holds_if; against RLOO = holds_if"),
    ),
    Claim(
        "A3", "PKPO (arXiv 2505.15201); arXiv 2503.19595", "Pass@k advantages follow the gradient of pass@k",
        f"{BINARY}; the best margin up to a factor", "All do; with the others' pass@k as baseline G must exceed k.",
        rules.sets_of_k,
        presumed("others, k = 2 = holds_if; fewer, k = 2 = holds; best margin, k = G = holds; "
                 "over the spread, k = G = holds"),
    ),
    Claim(
        "A4", "PKPO (arXiv 2505.15201)", "The set without the rollout is a better baseline than the others' pass@k",
        f"{SHARED_NOTHING}; k = 2, G of 3 to 8",
        "It leaves wrong answers out: better where they carry the larger scores.",
        partial(rules.compared, "A4", "passk:baseline=fewer", "passk", sizes=(3, 4, 8), scale=False),
        each("fails fails holds"),
    ),
    Claim(
        "A5", "a leave-one-out spread, as in NeMo-RL", "A spread without the scored rollout only rescales the gradient",
        BINARY, "It weighs prompts by pass rate as the group's spread does, the other way for small G.",
        rules.spread_of_others, presumed("NeMo-RL = holds_if; GRPO = holds_if"),
    ),
    Claim(
        "A6", "GRPO and rules after it", "A prompt at p = 0.1 counts for more than one at p = 0.5", ALONE,
        "GRPO, BNPO from G = 4, MaxRL and HA-DW from 3; NeMo-RL's default only from G = 16; centring alone never.",
        rules.hard_prompts,
        presumed("GRPO = holds_if; NeMo-RL = holds_if; centred = fails; MaxRL = holds_if; BNPO = holds_if; "
                 "HA-DW = holds_if"),
    ),
    Claim(
        "A7", "BNPO (arXiv 2506.02864)", "BNPO has less gradient noise than GRPO", SHARED_NOTHING,
        "It depends on the world: measure yours.", partial(rules.compared, "A7", "bnpo", "grpo"),
        each("fails fails fails"),
    ),
    Claim(
        "A8", "BNPO (arXiv 2506.02864)", "BNPO has less gradient noise than REINFORCE with a group mean",
        SHARED_NOTHING, "Nor always against the plain group mean.",
        partial(rules.compared, "A8", "bnpo", "dr_grpo"), each("fails fails fails"),
    ),
    Claim(
        "A9", "HA-DW (arXiv 2601.08521)", "Groups that are not constant make hard prompts' advantages too small",
        BINARY, "The estimate is biased given a live group; the expected gradient is not.",
        rules.biased_estimates, presumed("live groups = holds; gradient = fails"),
    ),
    Claim(
        "A10", "HA-DW (arXiv 2601.08521)", "Its weights bring the update closer to the gradient of the mean reward",
        f"{SHARED_NOTHING}; the belief is the world's mean", "Mostly it takes GRPO's update further away.",
        partial(rules.turned, "A10", "HA-DW", "ha_dw", "grpo"), presumed("HA-DW = fails"),
    ),
    Claim(
        "A11", "KRPO (arXiv 2505.07527)", "The filtered mean estimates a prompt's pass rate better than the group mean",
        f"{BINARY}; the released code's variances",
        "The last rollout's does by its pull to 0, the others' know fewer rewards and are worse on average.",
        rules.filtered_means, presumed("every rollout = fails; the last rollout = holds"),
    ),
    Claim(
        "A12", "KRPO (arXiv 2505.07527)", "Its normaliser adapts to how uncertain a prompt's rewards are",
        "the filter as released", "The filter's variance depends on a rollout's place alone, on no reward.",
        rules.adaptive_spread, presumed("divisor = fails"),
    ),
    Claim(
        "A13", "REINFORCE++ (arXiv 2501.03262)", "Whitening over the batch only rescales the expected gradient",
        SHARED_NOTHING, "True of large batches: one mean and one spread for all prompts.", rules.global_whitening,
        presumed("large batch = holds"),
    ),
    Claim(
        "A14", "REINFORCE++ (arXiv 2501.03262)", "The batch's mean as baseline has less noise than the group's",
        SHARED_NOTHING, "It depends on the world: with equal norms not where pass rates differ much.",
        partial(rules.compared, "A14", "reinforce_pp", "dr_grpo"), each("fails fails fails"),
    ),
    Claim(
        "A15", "RiskPO (arXiv 2510.00911)", "Of the prompts of a bundle the harder one gets the larger weight",
        f"{BINARY}; bundles of two prompts, G of 2 and 3, quantiles of the bundles themselves",
        "A bundle's advantage is one for all its prompts; the harder one mostly gets less.", rules.bundled_risk,
        presumed("paper = fails; code = fails"),
    ),
    Claim(
        "A16", "GPG (arXiv 2504.02546)", "Making up for constant groups corrects a bias of the gradient",
        SHARED_NOTHING, "One factor for all prompts: a step size that grows as groups fall silent.",
        partial(rules.turned, "A16", "GPG", "gpg", "dr_grpo"), presumed("GPG = fails"),
    ),
    Claim(
        "A17", "ReMax (arXiv 2310.10505)", "The greedy answer's reward as baseline has less noise than none",
        f"{BINARY}; greedy decoding takes the likeliest answer, wrong ones equally likely",
        "With equal norms it helps where some p is above 1/2; with one right answer it adds noise.",
        rules.greedy_noise, each("holds_if fails fails"),
    ),
)  # fmt: skip
