"""Published methods as texts of this project: a name, the paper, and what it is made of.

A recipe's name stands for its text wherever a method is named, at its beginning: `dapo`, `dapo + kl:coef=0.001`. Where
a name is an estimator's already, the recipe is called after the paper. What a recipe leaves out of its paper is in
`remark`; optimisers, data and lengths are the host's.
"""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """text: estimator + allocation, selection, objectives, aggregation. source: the arXiv number, "" where none."""

    text: str
    source: str
    remark: str = ""


RECIPES: dict[str, Recipe] = {
    "grpo_paper": Recipe("grpo:ddof=0 + clip + kl:coef=0.04 + sequence_mean", "2402.03300"),
    "dr_grpo_paper": Recipe("dr_grpo + clip + sequence_sum", "2503.20783", "its constant divisor is a step size"),
    "dapo": Recipe("grpo + overlong + dynamic + clip:high=0.28 + token_mean", "2503.14476"),
    "lite_ppo_paper": Recipe("grpo_batch_norm + clip + token_mean", "2508.08221"),
    "raft_pp": Recipe("raft + clip + token_mean", "2504.11343"),
    "gspo": Recipe("grpo + gspo + sequence_mean", "2507.18071"),
    "luspo": Recipe("grpo + gspo + sequence_sum", "2602.05261", "as TRL has it"),
    "gmpo": Recipe("grpo + gmpo + sequence_mean", "2507.20673"),
    "cispo": Recipe("grpo + dynamic + cispo + token_mean", "2506.13585", "the cap is verl's 0.2"),
    "minpro": Recipe("grpo + minpro + token_mean", "2601.22718", "the bounds are CISPO's"),
    "sapo": Recipe("grpo + sapo + sequence_mean", "2511.20347"),
    "mhpo": Recipe("grpo + mhpo + sequence_mean", "2603.16929"),
    "vespo": Recipe("grpo + vespo + token_mean", "2602.10693", "as TRL has it"),
    "topr": Recipe("dr_grpo + topr + sequence_sum", "2503.14286", "the paper's baseline is a constant"),
    "bapo": Recipe("grpo + bapo + token_mean", "2510.18927"),
    "gbpo": Recipe("grpo + gbpo + token_mean", "2604.18578"),
    "dppo": Recipe("dr_grpo + dppo + sequence_sum", "2602.04879", "total variation"),
    "dppo_kl": Recipe("dr_grpo + dppo_kl + sequence_sum", "2602.04879", "binary KL"),
    "ipo": Recipe("dr_grpo + ipo:cap=1000000 + token_mean", "", "prime-rl's loss, without its penalty"),
    "real": Recipe("dr_grpo + real + sequence_mean", "2602.05630", "tau is ours"),
    "disco": Recipe("dr_grpo + disco + sequence_mean", "2505.12366"),
    "mdpo": Recipe("dr_grpo + clip:low=none,high=none + kl_old + token_mean", "2005.09814", "a fixed step, 1"),
    "clip_cov": Recipe("grpo + dynamic:batches=1 + clip_cov + token_mean", "2505.22617"),
    "kl_cov": Recipe("grpo + dynamic:batches=1 + kl_cov + token_mean", "2505.22617"),
    "entropy_control": Recipe("grpo + dynamic + clip + entropy_target + token_mean", "2505.22312", "of Skywork-OR1"),
    "epo_released": Recipe("grpo + clip:dual=3 + entropy:coef=0.001 + token_mean", "2509.22576",
                           "its corridor of entropies has no gradient in the released code"),
    "delta_l": Recipe("grpo + clip + delta_l", "2509.07558"),
    "pods": Recipe("grpo + pods + clip + kl:coef=0.04 + sequence_mean", "2504.13818"),
    "cppo": Recipe("grpo + cppo + clip + kl:coef=0.04 + sequence_mean", "2503.22342"),
    "d3s_rollouts": Recipe("grpo + max_variance + clip + token_mean", "2509.22115", "without its tokens and schedule"),
    "mmr1_vas": Recipe("grpo + variance_aware + clip + kl:coef=0.01 + sequence_mean", "2509.21268",
                       "pass rates are measured once, no diversity"),
    "tis": Recipe("grpo + clip + tis + token_mean", "", "truncated ratios of trainer and sampler"),
    "icepop": Recipe("grpo + clip + icepop + token_mean", "2510.18855", "ratios of trainer and sampler within a band"),
}  # fmt: skip
