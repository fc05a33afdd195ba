"""Which parts of a method matter: analysis of variance of log(rollouts to the far target) over its five parts.

    share of part j = mean over orders of the parts of e(parts before j, and j) - e(parts before j)
    e(S) = (SS_S - df_S MSE) / SS

SS: spread of the arms' means; SS_S: what the levels of the parts S explain, with df_S degrees of freedom; MSE: of all
parts together. Averaging over orders (LMG, Shapley) leaves no choice where parts are confounded; in a balanced design
every order gives the same, Fisher's analysis. Taking df_S MSE off makes a part that does nothing have a mean share of
0, however many levels it has. What the shares leave are interactions and noise of the seeds.
An arm that misses the target in a run counts there with all rollouts of the run, which is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim.compare.differences import mean_of
from ebpo_sim.compare.tables import judge_family
from ebpo_sim.compare.verdicts import in_regime, judge
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.studies.methods.arms import LEVELS, PARTS, design, parts
from ebpo_sim.studies.methods.cells import PLACEBO, Cell
from ebpo_sim.studies.methods.outcomes import Known, Runs

Rows = list[dict[str, Any]]
REDRAWS = 1000  # of the bootstrap
OBJECTIVE = "objective"
REST = "interactions and seeds"


def shares(y_BN: Array, levels: Mapping[str, Sequence[str]]) -> Array:
    """A share a part and one for the rest, (B, parts + 1), of every line of y; levels: a part's level of each arm.

    Raises InputError where the parts leave no degree of freedom, or y does not vary.
    """
    names, (count, arms) = list(levels), y_BN.shape
    centred_BN = y_BN - y_BN.mean(axis=1, keepdims=True)
    total_B = np.sum(centred_BN**2, axis=1)
    subsets = [s for size in range(len(names) + 1) for s in combinations(range(len(names)), size)]
    spread, freedom = dict[tuple[int, ...], Array](), dict[tuple[int, ...], int]()
    for subset in subsets:
        basis = _basis([levels[names[i]] for i in subset], arms)
        spread[subset], freedom[subset] = np.sum((centred_BN @ basis) ** 2, axis=1), basis.shape[1] - 1
    left = arms - 1 - freedom[subsets[-1]]
    if left < 1 or not np.all(total_B > 0):
        raise InputError(f"shares need arms that differ and more of them than levels, got {arms} with {left} to spare")
    error_B = (total_B - spread[subsets[-1]]) / left
    explained = {s: (spread[s] - freedom[s] * error_B) / total_B for s in subsets}
    found = np.zeros((count, len(names) + 1))
    for i in range(len(names)):
        for subset in subsets:
            if i not in subset:
                weight = math.factorial(len(subset)) * math.factorial(len(names) - len(subset) - 1)
                gain = explained[tuple(sorted((*subset, i)))] - explained[subset]
                found[:, i] += weight / math.factorial(len(names)) * gain
    found[:, -1] = 1 - found[:, :-1].sum(axis=1)
    return found


def _basis(chosen: Sequence[Sequence[str]], arms: int) -> Array:
    """Orthonormal columns that span a constant and the indicators of all levels."""
    columns = [np.ones(arms)]
    for level in chosen:
        columns += [np.array([x == one for x in level], dtype=np.float64) for one in dict.fromkeys(level)]
    left, size, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return np.asarray(left[:, size > 1e-9 * size[0]])


class Costs(NamedTuple):
    """Log rollouts to the far target, (arms, worlds, seeds), and how many of them are runs that missed it."""

    y_NWR: Array
    missed: int


def costs_of(runs: Runs, known: Known, arms: Sequence[str], cells: Sequence[Cell]) -> Costs:
    """Of the cells' evaluation runs."""
    missed, lines = 0, []
    for arm in arms:
        worlds = []
        for cell in cells:
            curves = [c for _, c in sorted(runs.found[arm, cell, "own"].curves.items())]
            met = [number["rollouts", "far"] for number in known[arm, cell, "own"]]
            missed += sum(x is None for x in met)
            worlds.append([math.log(x or c[-1]["rollouts"]) for x, c in zip(met, curves, strict=True)])
        lines.append(worlds)
    return Costs(np.array(lines), missed)


def part_rows(runs: Runs, known: Known, cells: Sequence[Cell], seed: int) -> tuple[Rows, Rows]:
    """(shares, effects of levels) by regime: of the design, and shares of the design with all recipes and methods; the
    intervals are over seeds, drawn anew for every world, with the arms as they are."""
    found: tuple[Rows, Rows] = ([], [])
    for regime in dict.fromkeys(cell.regime for cell in cells):
        mine = [cell for cell in cells if cell.regime == regime]
        everything = [a for a, c, _ in known if c == mine[0] and a != PLACEBO]
        crossed = [a for a in everything if a in design()]
        ratio = float(np.mean([cell.noise_ratio for cell in mine]))
        for name, arms in (("design", crossed), ("design and recipes", everything)):
            if len(crossed) < len(design()):
                continue
            costs = costs_of(runs, known, arms, mine)
            levels = {part: [parts(arm)[part] for arm in arms] for part in PARTS}
            place = {"regime": regime, "noise_ratio": ratio, "arms": name, "count": len(arms), "missed": costs.missed,
                     "seeds": costs.y_NWR.shape[-1]}  # fmt: skip
            found[0].extend(place | row for row in share_rows(costs.y_NWR, levels, np.random.default_rng([seed, 31])))
            if name == "design":
                found[1].extend(place | row for row in effect_rows(costs.y_NWR, levels, ratio))
    return found


def share_rows(y_NWR: Array, levels: Mapping[str, Sequence[str]], rng: np.random.Generator) -> Rows:
    """A row a part: its share with a 95 % bootstrap interval, the levels it has, and the objective's share less its own
    with the redraws' standard deviation. Redrawn seeds carry their noise twice, so the redraws' mean is put where the
    share is."""
    worlds, seeds = y_NWR.shape[1:]
    drawn = rng.integers(seeds, size=(REDRAWS, worlds, seeds))
    means_BN = np.stack([y_NWR[:, w][:, drawn[:, w]].mean(axis=-1) for w in range(worlds)]).mean(axis=0).T
    whole = shares(y_NWR.mean(axis=(1, 2))[None], levels)[0]
    redrawn = shares(means_BN, levels)
    low, high = whole - redrawn.mean(axis=0) + np.quantile(redrawn, [0.025, 0.975], axis=0)
    rows, first = [], list(levels).index(OBJECTIVE)
    for i, part in enumerate([*levels, REST]):
        less = {"objective_less": float(whole[first] - whole[i]),
                "objective_less_se": float(np.std(redrawn[:, first] - redrawn[:, i], ddof=1))}  # fmt: skip
        count = len(dict.fromkeys(levels[part])) if part in levels else None
        rows.append({"part": part, "levels": count, "share": float(whole[i]), "low": float(low[i]),
                     "high": float(high[i]), **less})  # fmt: skip
    return rows


def effect_rows(y_NWR: Array, levels: Mapping[str, Sequence[str]], noise_ratio: float) -> Rows:
    """A row a level but GRPO's: the log ratio of its arms' geometric mean to that of GRPO's level, over seeds; the
    levels of a regime are a family (Holm)."""
    y_NR, rows = y_NWR.mean(axis=1), []
    for part, level in levels.items():
        first = LEVELS[part][0]
        for other in [x for x in dict.fromkeys(LEVELS[part]) if x != first]:
            mine, base = (y_NR[[x == name for x in level]].mean(axis=0) for name in (other, first))
            rows.append({"part": part, "level": other, "against": first, **mean_of(mine - base)._asdict()})
    judge_family(rows, len(rows), partial(_word, noise_ratio))
    return rows


def _word(ratio: float, found: Any, p_holm: float | None) -> Any:
    return in_regime(judge(found, -1, p_holm=p_holm), ratio)
