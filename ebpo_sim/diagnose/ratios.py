"""Error of every baseline relative to the group mean at every G: one long table, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ebpo_sim.diagnose.intervals import Components, Estimate
from ebpo_sim.diagnose.linear import linear_ratio, long_run_line
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.shape import Shape, curved_ratio
from ebpo_sim.diagnose.splits import Splits, split
from ebpo_sim.estimators import Baseline, Estimator, make, names, needs_prior

ENOUGH = 0.5  # share of the prompts from which on the model-free ratio is preferred
ACROSS = 9  # points of the ICC's interval at which a ratio is evaluated: its extremes are the ratio's interval


class Ratio(NamedTuple):
    """One cell. long_run: from the variance components (lines) or the deconvolved prior (curves). split: model-free.

    same_as: the first estimator in the table with the same baseline. why: what is missing, and the reason. held:
    prompts that the split rests on; share: of all prompts.
    """

    group_size: int
    estimator: str
    same_as: str
    shrinkage: float | None
    long_run: Estimate | None
    split: Estimate | None
    basis: str
    why: str
    held: int = 0
    share: float = 0.0

    @property
    def model_free(self) -> bool:
        """Whether at least half of the prompts have rollouts to spare: a few do not speak for the others."""
        return self.split is not None and (self.share >= ENOUGH or self.long_run is None)

    @property
    def best(self) -> Estimate | None:
        """Model-free where that can speak for all prompts, else the long run."""
        return self.split if self.model_free else self.long_run


@dataclass(frozen=True)
class Table:
    """All cells, and for each G the splits they came from, by name of the baseline's first estimator."""

    rows: tuple[Ratio, ...]
    splits: dict[int, tuple[Splits, tuple[str, ...]]]

    def at(self, group_size: int) -> list[Ratio]:
        """One row for each different baseline at this G."""
        return [r for r in self.rows if r.group_size == group_size and r.same_as == r.estimator]

    def gain(self, group_size: int, name: str, other: str) -> Estimate | None:
        """Ratio of `other` minus ratio of `name`, paired by prompt; None without splits at this G."""
        if group_size not in self.splits:
            return None
        found, order = self.splits[group_size]
        if name not in order or other not in order:
            return None
        return found.gain(order.index(name), order.index(other))


def selection(given: Sequence[str]) -> tuple[str, ...]:
    """The estimators asked for; by default all that rewards alone suffice for. Raises InputError for wrong names."""
    known = (name for name in names() if not needs_prior(name) and make(name).exchangeable)
    chosen = tuple(dict.fromkeys(given)) or tuple(known)
    for name in chosen:
        needs_prior(name)
    return chosen


def ratios(
    population: Population, found: Components, shape: Shape | None, group_sizes: Sequence[int], chosen: Sequence[str],
    draws: int, seed: int, parts: bool = True,
) -> Table:  # fmt: skip
    """The table for one population. Without any within-prompt variance there is nothing to divide by: no rows.
    parts: whether to split as well."""
    if not found.within.value > 0:
        return Table((), {})
    prior = None if shape is None else shape.prior
    made = [make(n, prior=prior) if needs_prior(n) else make(n) for n in chosen if prior or not needs_prior(n)]
    first: dict[Baseline | None, Estimator] = {}
    for estimator in made:
        first.setdefault(estimator.baseline, estimator)
    different = list(first.values())
    counts = population.counts
    rows, splits = [], {}
    for group_size in group_sizes:
        parted = (
            None
            if counts is None or not parts
            else split(different, counts, group_size, draws, seed, population.independent)
        )
        if parted is not None:
            splits[group_size] = (parted, tuple(e.name for e in different))
        cells = {
            e.name: _cell(population, found, shape, group_size, e, None if parted is None else parted.ratio(i))
            for i, e in enumerate(different)
        }
        for estimator in made:
            same = first[estimator.baseline].name
            held = 0.0 if parted is None else float(parted.held.sum())
            rows.append(
                cells[same]._replace(
                    estimator=estimator.name, same_as=same, held=round(held), share=held / population.prompts
                )
            )
    return Table(tuple(rows), splits)


def _cell(
    population: Population, found: Components, shape: Shape | None, group_size: int, estimator: Estimator,
    parted: Estimate | None,
) -> Ratio:  # fmt: skip
    name = estimator.name
    long_run, basis, why, shrinkage = None, "", "", None
    domain = estimator.domain
    if domain == "unit" and not population.unit:
        why = "needs rewards in [0, 1]"
    elif domain == "binary" and population.successes is None:
        why = "needs rewards in {0, 1}"
    else:
        mean, whole = found.mean.value, found.within.value + max(found.between.value, 0.0)
        icc = max(found.between.value, 0.0) / whole
        line = long_run_line(estimator, mean, (1 - icc) * whole, icc * whole, group_size)
        if line is not None:
            long_run, basis = _from_line(estimator, found, mean, whole, icc, group_size), "variance components"
            shrinkage = 1 - line.group - line.own
        elif shape is not None and population.counts is not None:
            long_run, basis = curved_ratio(estimator, population.counts, shape, group_size), "deconvolved prior"
            if long_run is None:
                why = "prompts have too few rollouts to determine a curve at this G"
        else:
            why = "not a line: needs binary rewards"
    return Ratio(group_size, name, name, shrinkage, long_run, parted, basis, why)


def _from_line(
    estimator: Estimator, found: Components, mean: float, whole: float, icc: float, group_size: int
) -> Estimate:
    def ratio(rho: float) -> float:
        rho = min(max(rho, 0.0), 1 - 1e-9)
        line = long_run_line(estimator, mean, (1 - rho) * whole, rho * whole, group_size)
        assert line is not None
        found = linear_ratio(line, mean, (1 - rho) * whole, rho * whole, group_size)
        return found if found > 1e-12 else 0.0  # below is rounding

    value, low, high = ratio(icc), found.icc.low, found.icc.high
    if abs(value - 1) < 1e-9:  # the group mean itself
        return Estimate(1.0, 1.0, 1.0)
    if low is None or high is None:
        return Estimate(value, None, None)
    ends = [ratio(rho) for rho in np.linspace(low, high, ACROSS)]
    return Estimate(value, min(ends), max(ends))
