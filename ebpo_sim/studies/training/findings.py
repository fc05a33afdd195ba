"""Do the paper's empirical findings appear in training here? Each is one paired contrast with its interval.

A contrast is a number per seed, so its mean has an honest standard error: methods share prompts, stream and random
numbers by seed. Intervals are 95 %, Student's t, one at a time. "appears": the interval lies on the paper's side;
"the opposite": on the other; "does not appear": it holds 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.training.cells import Cell, Found, Settings

Array = NDArray[np.float64]
SUBJECTS = ("ebpo", "ebpo_debiased")
LEVEL = 0.9
SMALL = 8  # the paper: gains are largest at G = 8 or less


def contrasts(settings: Settings, found: Found) -> Iterator[tuple[dict[str, Any], Array]]:
    """Every finding with its contrast per seed, positive where it agrees with the paper."""
    for world in settings.worlds:
        for optimiser in settings.optimisers:
            for subject in SUBJECTS:
                if subject not in (*settings.estimators, *settings.swept):
                    continue
                for tuning in ("own", "shared"):
                    base = {"world": world, "optimiser": optimiser, "estimator": subject, "tuning": tuning}
                    yield from _against_grpo(base, Cell(world, subject, settings.middle, optimiser, "shuffled"), found)
                    yield from _group_sizes(base, settings, found)
                    if tuning == "own":
                        yield from _orders(base, settings, found)


def _values(found: Found, cell: Cell, tuning: str, metric: str) -> tuple[Array, Array]:
    """(subject, GRPO), each (seeds, T)."""
    reference = cell._replace(estimator=REFERENCE)
    return found[cell, tuning].values[metric], found[reference, tuning].values[metric]


def _against_grpo(base: dict[str, Any], cell: Cell, found: Found) -> Iterator[tuple[dict[str, Any], Array]]:
    g = f"G = {cell.group_size}"
    mine, grpo = _values(found, cell, base["tuning"], "pass1")
    yield {**base, "finding": "higher pass@1 at the end", "measure": f"difference to grpo, {g}"}, (mine - grpo)[:, -1]
    mine, grpo = _values(found, cell, base["tuning"], "entropy")
    yield (
        {**base, "finding": "higher entropy", "measure": f"mean over the run, difference to grpo, {g}"},
        (np.mean(mine - grpo, axis=1)),
    )
    p_mine, p_grpo = _values(found, cell, base["tuning"], "pass1")
    at_equal = np.array([_entropy_gap(*run) for run in zip(p_mine, mine, p_grpo, grpo, strict=True)])
    measure = f"when both have gained {LEVEL:g} of what the lesser gains, difference to grpo, {g}"
    yield {**base, "finding": "higher entropy at equal pass@1", "measure": measure}, at_equal
    mine, grpo = _values(found, cell, base["tuning"], "grad_norm")
    kept = np.log(_late(mine) / _early(mine)) - np.log(_late(grpo) / _early(grpo))
    measure = f"log of last over first quarter's norm, difference to grpo, {g}"
    yield {**base, "finding": "non-vanishing gradient norm", "measure": measure}, kept
    mine, grpo = _values(found, cell, base["tuning"], "kl")
    measure = f"log of the largest recorded per-step KL, grpo's less its own, {g}"
    yield {**base, "finding": "bounded KL", "measure": measure}, np.log(_peak(grpo)) - np.log(_peak(mine))


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


def _group_sizes(base: dict[str, Any], settings: Settings, found: Found) -> Iterator[tuple[dict[str, Any], Array]]:
    small: list[Array] = []
    large: list[Array] = []
    for size in settings.group_sizes:
        cell = Cell(base["world"], base["estimator"], size, base["optimiser"], "shuffled")
        if (cell, base["tuning"]) in found:
            mine, grpo = _values(found, cell, base["tuning"], "pass1")
            (small if size <= SMALL else large).append((mine - grpo)[:, -1])
    if small and large:
        measure = f"mean pass@1 gain over grpo, G <= {SMALL} less G > {SMALL}"
        yield (
            {**base, "finding": "gains largest at small G", "measure": measure},
            (np.mean(small, axis=0) - np.mean(large, axis=0)),
        )


def _orders(base: dict[str, Any], settings: Settings, found: Found) -> Iterator[tuple[dict[str, Any], Array]]:
    plain = Cell(base["world"], base["estimator"], settings.middle, base["optimiser"], "shuffled")
    shuffled, _ = _values(found, plain, "own", "pass1")
    for order in settings.orders[1:]:
        mine, grpo = _values(found, plain._replace(order=order), "own", "pass1")
        gain = (mine - shuffled)[:, -1]
        yield {**base, "finding": f"{order} order helps", "measure": "pass@1 less that of shuffled"}, gain
        measure = "pass@1 less grpo's in the same order"
        yield {**base, "finding": f"ahead of grpo in {order} order", "measure": measure}, (mine - grpo)[:, -1]


def findings(settings: Settings, found: Found) -> list[dict[str, Any]]:
    """One row a finding: value, se, the interval's ends low and high, seeds, verdict."""
    rows = []
    for row, contrast in contrasts(settings, found):
        seeds = len(contrast)
        value, se = float(np.mean(contrast)), float(np.std(contrast, ddof=1) / np.sqrt(seeds))
        half = float(student.ppf(0.975, seeds - 1)) * se
        low, high = value - half, value + half
        verdict = "appears" if low > 0 else "the opposite" if high < 0 else "does not appear"
        rows.append({**row, "value": value, "se": se, "low": low, "high": high, "seeds": seeds, "verdict": verdict})
    return rows
