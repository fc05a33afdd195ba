"""Presets of published advantage rules beside those of `registry`: every one a chain, its conventions spelled out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal

from ebpo_sim.estimators.adora import LengthGate
from ebpo_sim.estimators.base import Estimator
from ebpo_sim.estimators.bnpo import BetaDensity
from ebpo_sim.estimators.copo import ConsistencyMix
from ebpo_sim.estimators.gdpo import Decoupled
from ebpo_sim.estimators.gpg import LiveShare
from ebpo_sim.estimators.group_mean import GroupMean, Singleton
from ebpo_sim.estimators.ha_dw import DifficultyWeight
from ebpo_sim.estimators.krpo import Filter, FilteredMean, FilteredSpread
from ebpo_sim.estimators.maxrl import OverMean
from ebpo_sim.estimators.others_spread import OthersSpread
from ebpo_sim.estimators.passk import BestMargin, PassAtK
from ebpo_sim.estimators.positive import Constant
from ebpo_sim.estimators.remax import Greedy
from ebpo_sim.estimators.riskpo import Bundles
from ebpo_sim.estimators.transforms import Centre, Scale, Subtract, Transform, Whiten
from ebpo_sim.estimators.transforms.spread import Ddof


def _grpo(eps: float, singleton: Singleton) -> tuple[Transform, ...]:
    scale = Scale("group", 1, eps, singleton_std=1.0 if singleton == "raw" else None)
    return (Subtract(GroupMean(singleton=singleton)), scale)


def grpo_leave_one_out(*, eps: float = 1e-6) -> Estimator:
    """(r - mean of the others)/(std of the others + eps), undivided where they are equal: NeMo-RL's GRPO by default.

    G = 2 is RLOO. Source: NVIDIA-NeMo/RL, nemo_rl/algorithms/utils.py, which takes the variance as a difference of
    means of squares, so that rounding can pass for a spread (its issue 1518); here equality is decided by comparison.
    """
    return Estimator("grpo_leave_one_out", (Subtract(GroupMean(leave_one_out=True)), OthersSpread(eps)))


def lite_ppo(*, ddof: Ddof = 1, eps: float = 1e-6, singleton: Singleton = "zero") -> Estimator:
    """(r - group mean)/(std of the batch's rewards + eps): `grpo_batch_norm:scale=batch_rewards` (arXiv 2508.08221).

    Its other half is a token mean over the batch.
    """
    chain = (Subtract(GroupMean(singleton=singleton)), Centre(), Scale("batch_rewards", ddof, eps))
    return Estimator("lite_ppo", chain)


def grpo_whitened(*, eps: float = 1e-5, batch_eps: float = 1e-5, leave_one_out: bool = False) -> Estimator:
    """GRPO's advantages whitened once more over the batch's tokens: both norms of AReaL's shipped configurations.

    leave_one_out: the mean of the others, undivided, in the first norm (its rloo).
    """
    first = (Subtract(GroupMean(leave_one_out=True)),) if leave_one_out else _grpo(eps, "zero")
    return Estimator("grpo_whitened", (*first, Whiten(1, batch_eps, weights="tokens")))


def reinforce_pp(*, eps: float = 1e-8, ddof: Ddof = 1, baseline: Literal["none", "group"] = "none") -> Estimator:
    """r whitened over the batch's tokens, no group: plain REINFORCE++ (arXiv 2501.03262), as in verl at gamma = 1.

    OpenRLHF and NeMo-RL: ddof 0; with baseline="group" their REINFORCE++-baseline.
    """
    first = Constant() if baseline == "none" else GroupMean()
    return Estimator("reinforce_pp", (Subtract(first), Whiten(ddof, eps, "inside", weights="tokens")))


def gpg(*, counted: Literal["live", "nonzero"] = "live", singleton: Singleton = "zero") -> Estimator:
    """(r - group mean) N/n, n of the batch's N rollouts in groups whose rewards differ (arXiv 2504.02546).

    verl counts rewards other than 0 in place of these: counted="nonzero", singleton="raw".
    """
    return Estimator("gpg", (Subtract(GroupMean(singleton=singleton)), LiveShare(counted)))


def maxrl(*, eps: float = 1e-6, all_fail: float = 0.0, singleton: Singleton = "zero") -> Estimator:
    """(r - group mean)/(group mean + eps), 0 in all-fail groups: as shipped (arXiv 2602.02710).

    Its expected gradient is that of log p cut after term G - 1; all_fail=-1 makes that G. See `maxrl.OverMean`.
    """
    return Estimator("maxrl", (Subtract(GroupMean(singleton=singleton)), OverMean(eps, all_fail)))


def passk(*, k: int = 2, baseline: Literal["others", "fewer"] = "others") -> Estimator:
    """The unbiased gradient of pass@k with a leave-one-out baseline (arXiv 2505.15201, binary rewards).

    Times n: the paper's weights are for sums over a group, these for means. See `passk.PassAtK`.
    """
    return Estimator("passk", (Subtract(Constant()), PassAtK(k, baseline)))


def grpo_passk(*, scale: Literal["group", "none"] = "group", eps: float = 1e-6) -> Estimator:
    """Best reward less the second, for the best alone, / (group std + eps): verl's grpo_passk (arXiv 2503.19595)."""
    scaled = (Scale("group", 1, eps),) if scale == "group" else ()
    return Estimator("grpo_passk", (Subtract(Constant()), BestMargin(), *scaled))


def bnpo(*, most: float = 1e6, singleton: Singleton = "zero") -> Estimator:
    """(r - group mean)/Beta density of the group mean, fitted to the batch (arXiv 2506.02864, eq. of section 3).

    Code: changyi7231/BNPO, whose groups of one have mean 0 (singleton="raw"); `bnpo.BetaDensity` names the rest.
    """
    return Estimator("bnpo", (Subtract(GroupMean(singleton=singleton)), BetaDensity(most)))


def ha_dw(
    *, scale: float = 1.3, eta: float = 1.0, window: int = 10, start: float = 0.5, eps: float = 1e-6
) -> Estimator:
    """GRPO's advantages times scale exp(-sgn(A) d), d = group mean - running belief (arXiv 2601.08521, section 3).

    eta, window, start: this project's, the published ones were not to be had; see `ha_dw.DifficultyWeight`.
    """
    return Estimator("ha_dw", (*_grpo(eps, "zero"), DifficultyWeight(scale, eta, window, start)))


def remax() -> Estimator:
    """r - reward of the prompt's greedy answer (arXiv 2310.10505)."""
    return Estimator("remax", (Subtract(Greedy()),))


def adora(*, weight: float = 0.1, limit: int | None = None, eps: float = 1e-6) -> Estimator:
    """GRPO, times `weight` in groups whose longest right answer is no longer than the wrong ones on average.

    Code: ShadeCloak/ADORA (its scripts: limit 4054 tokens), which also lengthens or shortens right answers' rewards in
    a later version, left out here. There is no paper.
    """
    return Estimator("adora", (*_grpo(eps, "zero"), LengthGate(weight, limit=limit)))


def copo(*, slope: float = 1.0, centre: float = 0.5, eps: float = 1e-6) -> Estimator:
    """GRPO mixed with the prompt's own place among prompts, by the entropy of its answers (arXiv 2508.04138).

    Code: hijih/copo-code, whose global rewards of a lone prompt are NaN and 0 here; see `copo.ConsistencyMix`.
    """
    return Estimator("copo", (*_grpo(eps, "zero"), ConsistencyMix(slope, centre, eps)))


def gdpo(
    *, weights: str = "", eps: float = 1e-6, over: Literal["tokens", "rollouts"] = "tokens", batch_eps: float = 1e-8
) -> Estimator:
    """Reward functions standardised by group, added, whitened over the batch (arXiv 2601.05242).

    verl: over tokens, batch_eps inside the root. TRL (normalize_then_sum): over="rollouts", both eps 1e-4, outside.
    """
    whiten = Whiten(1, batch_eps, "inside" if over == "tokens" else "outside", weights=over)
    return Estimator("gdpo", (Subtract(Constant()), Decoupled(weights, eps), whiten))


def riskpo(
    *, prompts: int = 5, low: float = 0.2, high: float = 0.8, omega: float = 0.5,
    form: Literal["paper", "code"] = "paper", constant: bool = True, eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """Mixed value-at-risk of bundles of prompts (arXiv 2510.00911); quantiles of the batch, not followed over steps."""
    return Estimator("riskpo", (Subtract(Constant()), Bundles(prompts, low, high, omega, form, constant, eps)))


def krpo(*, drift: float = 1e-5, noise: float = 1e-2, eps: float = 1e-8) -> Estimator:
    """(r - filtered mean)/(filtered std + eps) along the group, in order (arXiv 2505.07527).

    Code: billhhh/KRPO_LLMs_RL, whose defaults these are. The order of a group's rollouts carries no information, so a
    rule that minds it is another on every permutation.
    """
    tracked = Filter(drift, noise)
    return Estimator("krpo", (Subtract(FilteredMean(tracked)), FilteredSpread(tracked, eps)))


PRESETS: tuple[Callable[..., Estimator], ...] = tuple(  # every public function above, in the order in which it is shown
    f for name, f in vars().copy().items() if inspect.isfunction(f) and f.__module__ == __name__ and name[0] != "_"
)
