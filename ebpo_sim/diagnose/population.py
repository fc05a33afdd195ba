"""One model's prompts as the diagnosis sees them: rates, unbiased within variances, binary counts where they exist."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import report
from ebpo_sim.diagnose.gathering import Log
from ebpo_sim.diagnose.values import LARGEST
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.worlds import Counts

Ints = NDArray[np.int64]


class Features(NamedTuple):
    """What variance components are made of, a row a prompt: how many visits, and their sums of x - origin,
    (x - origin)^2, w and w/n. Rows that are equal stand once, with their multiplicity. tolerance: variances below it
    are rounding."""

    sums: Array  # (U, 5)
    multiplicity: Array  # (U,)
    origin: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class Population:
    """Groups of at least two rollouts of one model. Arrays have one entry a group (or cell of a histogram).

    n: rollouts. rate: mean reward. within: its unbiased variance m2/(n-1). weight: prompts that a cell stands for.
    flat: all rewards equal. successes: of n, or None where rewards take more than two values; two values other than
    0 and 1 are mapped to them, which leaves every ratio as it is. unit: rewards lie in [0, 1]. prompt: ids, equal for
    visits of one prompt. length: mean length of the rollouts. norms_P2: squared score norms summed over its wrong and
    its right rollouts, of `norms_of` (a column's role). length, norms_P2, step, cluster: None where the log has none.
    flat_R: each reward column's values all equal, for several columns, `rewards`.
    notes: restrictions.
    """

    name: str
    n: Array
    rate: Array
    within: Array
    weight: Array
    flat: NDArray[np.bool_]
    successes: Array | None
    unit: bool
    prompt: Ints
    length: Array | None
    step: Array | None
    cluster: Ints | None
    cluster_names: tuple[str, ...]
    notes: tuple[str, ...]
    flat_R: NDArray[np.bool_]
    rewards: tuple[str, ...]
    norms_P2: Array | None = None
    norms_of: str = ""

    @property
    def groups(self) -> int:
        """Groups: prompts, or visits of prompts where steps repeat them."""
        return int(self.weight.sum())

    @cached_property
    def prompts(self) -> int:
        """Distinct prompts."""
        return self.groups if np.any(self.weight > 1) else len(np.unique(self.prompt))

    @property
    def independent(self) -> float:
        """Prompts per group: below 1 where prompts recur. Intervals that cannot keep visits together count each prompt
        once, which is wide enough for any correlation between its visits."""
        return self.prompts / self.groups

    def select(self, keep: NDArray[np.bool_]) -> Population:
        """The groups where `keep` is True."""
        parts = {f: getattr(self, f)[keep] for f in ("n", "rate", "within", "weight", "flat", "prompt", "flat_R")}
        for name in ("successes", "length", "step", "cluster", "norms_P2"):
            array = getattr(self, name)
            parts[name] = None if array is None else array[keep]
        return replace(self, **parts)

    @cached_property
    def counts(self) -> Counts | None:
        """(rollouts, successes) cells of binary rewards; None for other rewards or fewer than two groups."""
        if self.successes is None or self.groups < 2:
            return None
        width = int(self.n.max()) + 1
        cells, inverse = np.unique((self.n * width + self.successes).astype(np.int64), return_inverse=True)
        prompts = np.bincount(inverse, self.weight).astype(np.int64)
        n, s = np.divmod(cells, width)
        return Counts(tuple(n.tolist()), tuple(s.tolist()), tuple(prompts.tolist()))

    @cached_property
    def features(self) -> Features:
        """Per-prompt sums for the bootstrap; visits of one prompt stay together, because they are not independent."""
        origin = float(np.dot(self.weight, self.rate) / self.weight.sum())
        scale = 1.0 if self.successes is not None else float(np.ptp(self.rate)) ** 2 + float(self.within.max())
        tolerance = 1e-15 * (scale + 1e-15 * origin**2)
        recur = self.prompts < self.groups
        if self.counts is not None and not recur:  # few cells stand for many prompts
            n, k, multiplicity = self.counts.arrays
            return Features(_terms(n, k / n, k * (n - k) / n / (n - 1), origin), multiplicity, origin, tolerance)
        each = _terms(self.n, self.rate, self.within, origin)
        if not recur:
            return Features(each, self.weight, origin, tolerance)
        _, inverse = np.unique(self.prompt, return_inverse=True)
        summed = np.stack([np.bincount(inverse, column) for column in each.T], axis=1)
        return Features(summed.astype(np.float64), np.ones(len(summed)), origin, tolerance)


def _terms(n: Array, rate: Array, within: Array, origin: float) -> Array:
    x = rate - origin
    return np.stack([np.ones_like(x), x, x * x, within, within / n], axis=1)


def populations(log: Log) -> list[Population]:
    """The log's models in order of appearance. Raises InputError where none can be diagnosed."""
    model_of = np.array([list(dict.fromkeys(s.model for s in log.strata)).index(s.model) for s in log.strata])
    names = list(dict.fromkeys(s.model for s in log.strata))
    found = [_population(log, name, model_of[log.stratum] == i) for i, name in enumerate(names)]
    usable = [p for p in found if p.groups >= 2 and p.prompts >= 2]
    if usable:
        return usable
    groups = log.groups
    if np.all(groups.n < 2):
        raise InputError(
            "every prompt has one rollout: noise cannot be told from difficulty, log at least 2 rollouts a prompt"
            + (" (or merge the steps: --columns step=)" if "step" in log.columns.role else "")
        )
    raise InputError("fewer than 2 prompts have 2 rollouts or more: log several prompts to see how they differ")


def _population(log: Log, name: str, mine: NDArray[np.bool_]) -> Population:
    g, strata, notes = log.groups, log.strata, []
    several = mine & (g.n >= 2)
    single = float(g.weight[mine & (g.n < 2)].sum())
    if single:
        notes.append(f"{single:.0f} of {g.weight[mine].sum():.0f} groups have one rollout and are left out")
    if log.left_out:
        notes.append(f"{log.left_out} of {log.rows} rows have no reward and are left out")
    if len(log.columns.rewards) > 1:
        notes.append(f"the reward is the plain sum of {', '.join(log.columns.rewards)}")
    n, mean, m2, low, high, weight = (x[several] for x in (g.n, g.mean, g.m2, g.low, g.high, g.weight))
    successes = None
    least, most = float(low.min(initial=np.inf)), float(high.max(initial=-np.inf))
    if 0 < most - least < 1 / LARGEST:
        raise InputError(
            f"rewards differ by {most - least:g} at most, whose square is lost: multiply them by a constant"
        )
    unit = bool(least >= 0 and most <= 1)
    # n values in {a, b} with mean m have m2 = n (m-a)(b-m); any value in between has less.
    ends = np.all((low == least) | (low == most)) and np.all((high == least) | (high == most))
    gap = n * (mean - least) * (most - mean) - m2
    if len(n) and ends and np.all(gap <= 1e-9 * n * (most - least) ** 2):
        if {least, most} - {0.0, 1.0} and most > least:
            notes.append(f"rewards are {least:g} or {most:g}: treated as 0 and 1, which changes no ratio")
            mean, m2, unit = (mean - least) / (most - least), m2 / (most - least) ** 2, True
        if {least, most} <= {0.0, 1.0} or most > least:
            successes = np.rint(n * mean)
            mean, m2 = successes / n, successes * (n - successes) / n  # exact, whatever the order of the sums
    elif len(n):
        notes.append(
            "rewards take more than two values: rules that count successes and the model-free split do not apply"
        )
    clusters = list(dict.fromkeys(s.cluster for s in strata))
    place = np.array([clusters.index(s.cluster) for s in strata])
    stratum = log.stratum[several]
    weighs = next((role for role in ("score_norm", "log_prob") if role in log.columns.role), "")
    norms_P2 = None
    if weighs and successes is not None and most > least:
        right = (g.norm_reward[several] - least * g.norm[several]) / (most - least)
        norms_P2 = np.stack([g.norm[several] - right, right], axis=1)
    has_step, has_cluster = "step" in log.columns.role, "cluster" in log.columns.role
    return Population(
        _shown(name), n, mean, m2 / np.maximum(n - 1, 1), weight, low == high, successes, unit, log.prompt[several],
        g.length[several] / n if "length" in log.columns.role else None,
        np.array([np.nan if s.step is None else s.step for s in strata])[stratum] if has_step else None,
        place[stratum] if has_cluster else None,
        tuple(map(_shown, clusters)), tuple(notes), (g.least_R == g.most_R)[several], log.columns.rewards,
        norms_P2, weighs,
    )  # fmt: skip


def _shown(name: str) -> str:
    """A name as it is printed: whatever the log says, it stays on its line and within 80 characters."""
    return report.printable(name if len(name) <= 80 else name[:77] + "...")
