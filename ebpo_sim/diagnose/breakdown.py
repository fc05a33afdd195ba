"""The same numbers by cluster and by training step, and what a prior for each cluster would gain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ebpo_sim.diagnose.intervals import Components, Estimate, around, components
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.ratios import ratios
from ebpo_sim.diagnose.shape import zero_signal
from ebpo_sim.numbers import formulas

WINDOWS = 12  # at most so many windows of consecutive steps
SHOWN = ("ebpo", "ebpo_debiased")


class Part(NamedTuple):
    """A cluster or a window of steps. ratio: of `SHOWN`, at the current G."""

    name: str
    start: float
    groups: int
    found: Components
    zero_signal: Estimate | None
    ratio: dict[str, Estimate | None]


def part(population: Population, name: str, start: float, group_size: int, draws: int, seed: int) -> Part:
    """Components, zero-signal groups and error ratios of a part of at least two prompts."""
    found = components(population, draws, seed)
    table = ratios(population, found, None, [group_size], SHOWN, draws, seed, parts=False)
    known = zero_signal(population.counts, None, group_size, population.independent)
    by_name = {row.estimator: row.long_run for row in table.rows}
    return Part(
        name, start, population.groups, found, None if known is None else known[0], {n: by_name.get(n) for n in SHOWN}
    )


def by_cluster(population: Population, group_size: int, draws: int, seed: int) -> list[Part]:
    """Each cluster with at least two prompts, in order of appearance."""
    if population.cluster is None:
        return []
    found = []
    for code, name in enumerate(population.cluster_names):
        inside = population.select(population.cluster == code)
        if inside.groups >= 2 and inside.prompts >= 2:
            found.append(part(inside, name, float("nan"), group_size, draws, seed))
    return found if len(found) > 1 else []


def by_step(population: Population, group_size: int, draws: int, seed: int) -> list[Part]:
    """Windows of consecutive steps, at most `WINDOWS`, each with at least two prompts."""
    if population.step is None:
        return []
    steps = np.unique(population.step)
    if len(steps) < 2:
        return []
    found = []
    for window in np.array_split(steps, min(WINDOWS, len(steps))):
        inside = population.select((population.step >= window[0]) & (population.step <= window[-1]))
        if inside.groups >= 2 and inside.prompts >= 2:
            name = f"{window[0]:g}" if len(window) == 1 else f"{window[0]:g} to {window[-1]:g}"
            found.append(part(inside, name, float(window.mean()), group_size, draws, seed))
    return found


def cluster_gain(whole: Components, parts: list[Part], group_size: int) -> Estimate | None:
    """Error with a prior for each cluster relative to one prior for all, both linear with the best weight:

        sum_k pi_k (1 - S_k) w_k / ((1 - S) w),   S = w / (w + G T2).

    The bootstrap is stratified by cluster. What learning K priors costs is not in it: at most of order K/prompts.
    """
    if not parts:
        return None
    share = np.array([p.groups for p in parts], dtype=np.float64)
    share /= share.sum()
    replicates = np.stack([p.found.replicates for p in parts])  # (K, B, 4)
    points = np.array([[p.found.mean.value, p.found.within.value, p.found.between.value] for p in parts])
    value = _relative(share, points[:, None, :3], whole.between.value, group_size)
    drawn = _relative(share, replicates[..., :3], None, group_size)
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value[0]) or len(drawn) < 20:
        return None
    return around(float(value[0]), drawn)


def _relative(share: np.ndarray, moments: np.ndarray, between: float | None, group_size: int) -> np.ndarray:
    """The ratio for moments (K, B, [mean, within, between]); `between` of the whole, if it is known better."""
    mean, within, inside = moments[..., 0], moments[..., 1], np.maximum(moments[..., 2], 0.0)
    w = share @ within
    spread = share @ inside + share @ (mean - share @ mean) ** 2 if between is None else np.full_like(w, between)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(within > 0, formulas.oracle_shrinkage(within, inside, group_size), 0.0)
        pooled = formulas.oracle_shrinkage(w, np.maximum(spread, 0.0), group_size)
        return np.asarray(share @ ((1 - own) * within) / ((1 - pooled) * w))
