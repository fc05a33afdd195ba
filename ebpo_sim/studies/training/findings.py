"""Do the paper's empirical findings appear in training here? Each is one paired contrast with its interval, by regime.

A contrast is a number per seed, so its mean has an honest standard error: methods share prompts, stream and random
numbers by seed. Intervals are 95 %, Student's t, one at a time; the words are `compare.verdicts`', no margin stated.
The findings of a world and regime about one estimator at one tuning are a family, corrected (Holm).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ebpo_sim.compare.differences import Difference, mean_of
from ebpo_sim.compare.plan import Series, Tuning, middle
from ebpo_sim.compare.tables import judge_family
from ebpo_sim.compare.verdicts import Verdict, in_regime, judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.studies.training.cells import Cell, Settings

Found = dict[tuple[str, Any, Tuning], Series]
Contrasts = Iterator[tuple[str, str, Array]]  # finding, measure, a number a seed that is positive as in the paper
SUBJECTS = ("ebpo", "ebpo_debiased")
LEVEL = 0.9
SMALL = 8  # the paper: gains are largest at G = 8 or less


def findings(settings: Settings, found: Found) -> list[dict[str, Any]]:
    """One row a finding: value, se, the interval's ends low and high, p, seeds, Holm's p, comparisons, verdict."""
    rows, families = list[dict[str, Any]](), dict[tuple[str, ...], list[dict[str, Any]]]()
    central = middle(settings.group_sizes)
    for cell in dict.fromkeys(cell for _, cell, _ in found):
        for subject in SUBJECTS if (cell.group_size, cell.order) == (central, settings.orders[0]) else ():
            for tuning in ("own", "shared") if (subject, cell, "own") in found else ():
                for finding, measure, contrast_R in contrasts(settings, found, subject, cell, tuning):
                    row = {
                        "world": cell.world, "regime": cell.regime, "noise_ratio": cell.noise_ratio,
                        "optimiser": cell.optimiser, "estimator": subject, "tuning": tuning, "finding": finding,
                        "measure": measure, **mean_of(contrast_R)._asdict(),
                    }  # fmt: skip
                    rows.append(row)
                    families.setdefault((cell.world, cell.regime, subject, tuning), []).append(row)
    for family in families.values():
        ratio = family[0]["noise_ratio"]
        judge_family(family, len(family), partial(_word, ratio))
    return rows


def _word(ratio: float, mean: Difference, p_holm: float | None) -> Verdict:
    return in_regime(judge(mean, p_holm=p_holm), ratio)


def contrasts(settings: Settings, found: Found, subject: str, cell: Cell, tuning: Tuning) -> Contrasts:
    """Every finding about a subject in a cell of the middle group size."""
    yield from _against_grpo(found, subject, cell, tuning)
    gains: dict[bool, list[Array]] = {True: [], False: []}
    for size in settings.group_sizes:
        if (subject, cell._replace(group_size=size), tuning) in found:
            mine, grpo = _values(found, subject, cell._replace(group_size=size), tuning, "pass1")
            gains[size <= SMALL].append((mine - grpo)[:, -1])
    if gains[True] and gains[False]:
        measure = f"mean pass@1 gain over grpo, G <= {SMALL} less G > {SMALL}"
        yield "gains largest at small G", measure, np.mean(gains[True], axis=0) - np.mean(gains[False], axis=0)
    shuffled, _ = _values(found, subject, cell, tuning, "pass1")
    for order in settings.orders[1:]:
        if (subject, cell._replace(order=order), tuning) not in found:
            continue
        mine, grpo = _values(found, subject, cell._replace(order=order), tuning, "pass1")
        yield f"{order} order helps", "pass@1 less that of shuffled", (mine - shuffled)[:, -1]
        yield f"ahead of grpo in {order} order", "pass@1 less grpo's in the same order", (mine - grpo)[:, -1]


def _values(found: Found, arm: str, cell: Cell, tuning: Tuning, metric: str) -> tuple[Array, Array]:
    """(subject, GRPO), each (seeds, T), NaN where a quantity does not exist."""
    curves = [found[name, cell, tuning].curves for name in (arm, REFERENCE)]
    mine, grpo = (np.array([[r[metric] for r in c[s]] for s in sorted(c)], dtype=np.float64) for c in curves)
    return mine, grpo


def _against_grpo(found: Found, subject: str, cell: Cell, tuning: Tuning) -> Contrasts:
    g = f"G = {cell.group_size}"
    p_mine, p_grpo = _values(found, subject, cell, tuning, "pass1")
    yield "higher pass@1 at the end", f"difference to grpo, {g}", (p_mine - p_grpo)[:, -1]
    mine, grpo = _values(found, subject, cell, tuning, "entropy")
    yield "higher entropy", f"mean over the run, difference to grpo, {g}", np.mean(mine - grpo, axis=1)
    at_equal = np.array([_entropy_gap(*run) for run in zip(p_mine, mine, p_grpo, grpo, strict=True)])
    measure = f"when both have gained {LEVEL:g} of what the lesser gains, difference to grpo, {g}"
    yield "higher entropy at equal pass@1", measure, at_equal
    mine, grpo = _values(found, subject, cell, tuning, "grad_norm")
    kept = np.log(_late(mine) / _early(mine)) - np.log(_late(grpo) / _early(grpo))
    yield "non-vanishing gradient norm", f"log of last over first quarter's norm, difference to grpo, {g}", kept
    mine, grpo = _values(found, subject, cell, tuning, "kl")
    measure = f"log of the largest recorded per-step KL, grpo's less its own, {g}"
    yield "bounded KL", measure, np.log(_peak(grpo)) - np.log(_peak(mine))


def _entropy_gap(p_mine: Array, h_mine: Array, p_grpo: Array, h_grpo: Array) -> float:
    """Entropy of one run less the other's where each first reaches a pass@1 that both do; both begin alike."""
    level = p_mine[0] + LEVEL * (min(p_mine.max(), p_grpo.max()) - p_mine[0])
    return _entropy_at(level, p_mine, h_mine) - _entropy_at(level, p_grpo, h_grpo)


def _entropy_at(level: float, p_T: Array, h_T: Array) -> float:
    """Linear between records."""
    after = int(np.argmax(p_T >= level))
    if after == 0:
        return float(h_T[0])
    share = (level - p_T[after - 1]) / (p_T[after] - p_T[after - 1])
    return float(h_T[after - 1] + share * (h_T[after] - h_T[after - 1]))


def _early(values: Array) -> Array:
    return np.asarray(np.maximum(values[:, 1 : 2 + values.shape[1] // 4].mean(axis=1), 1e-300))


def _late(values: Array) -> Array:
    return np.asarray(np.maximum(values[:, -max(1, values.shape[1] // 4) :].mean(axis=1), 1e-300))


def _peak(values: Array) -> Array:
    return np.asarray(np.maximum(np.max(values[:, 1:], axis=1), 1e-300))
