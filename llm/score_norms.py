"""Score norms of right and wrong answers by pass rate: which baseline has the least gradient noise.

W = |d log pi / d logits|^2 of an answer. With a = E[W | right] and c = E[W | wrong] of a prompt of pass rate p, the
best baseline is p a / (p a + (1 - p) c): p where a = c, far below p where wrong answers have the larger norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGES = (0.2, 0.4, 0.6, 0.8)  # between the bins of prompts that are neither always right nor never
BEST = ("best_baseline", "best_baseline se")
Prompts = Sequence[tuple[Sequence[float], Sequence[float]]]  # rewards and norms of each prompt's answers
BINS = ("0", "0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1", "1")


def bin_of(share: float) -> str:
    """The bin of a prompt by its share of right answers; a share on an edge belongs to the lower bin."""
    if share in (0.0, 1.0):
        return BINS[0] if share == 0.0 else BINS[-1]
    return BINS[1 + sum(share > edge for edge in EDGES)]


def table(prompts: Prompts) -> list[dict[str, Any]]:
    """One row a bin that has prompts, from the rewards (0 or 1) and the norms of their answers.

    right, wrong: means over the prompts of their own mean W; best_baseline: sum of W r / sum of W, in the bins between
    0 and 1. Each with its standard error over prompts, None where fewer than two have such answers. The share that
    decides the bin is of the same answers, so that few answers a prompt blur the bins.
    """
    rows = []
    for name in BINS:
        members = [(r, w) for r, w in prompts if bin_of(sum(r) / len(r)) == name]
        if not members:
            continue
        row: dict[str, Any] = {"pass_rate": name, "prompts": len(members)}
        row["mean_pass_rate"] = sum(sum(r) / len(r) for r, _ in members) / len(members)
        for verdict, kind in ((1.0, "right"), (0.0, "wrong")):
            own = [[x for x, y in zip(w, r, strict=True) if y == verdict] for r, w in members]
            row |= _pair(kind, [sum(norms) / len(norms) for norms in own if norms])
        rows.append(row | (_best(members) if name in BINS[1:-1] else dict.fromkeys(BEST)))
    return rows


def _best(members: Prompts) -> dict[str, float | None]:
    of_right, of_all = (np.array([np.dot(w, f(r)) for r, w in members]) for f in (np.array, np.ones_like))
    best, n = of_right.sum() / of_all.sum(), len(members)
    squares = ((of_right - best * of_all) ** 2).sum()
    error = float(np.sqrt(squares * n / (n - 1)) / of_all.sum()) if n > 1 else None
    return dict(zip(BEST, (float(best), error), strict=True))


def _pair(name: str, values: Sequence[float]) -> dict[str, float | None]:
    n = len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return {name: float(np.mean(values)) if n else None, f"{name} se": error}


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Norms of right and wrong answers, and the best baseline, by pass rate, with one standard error."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(9, 3.6), layout="constrained")
    norms, baseline = made.subplots(1, 2)
    for axis, name, colour in (
        (norms, "right", "#54a24b"), (norms, "wrong", "#e45756"), (baseline, "best_baseline", "#4c78a8"),
    ):  # fmt: skip
        here = [row for row in rows if row[name] is not None]
        x = [row["mean_pass_rate"] for row in here]
        axis.errorbar(
            x, [row[name] for row in here], [row[f"{name} se"] or 0.0 for row in here], fmt="o-", capsize=2,
            color=colour, label=name.replace("_", " "),
        )  # fmt: skip
    grid = [i / 100 for i in range(101)]
    baseline.plot(grid, grid, ":", color="0.5", label="p: equal norms")
    baseline.plot(grid, [p * (1 - p) / (1 + p) for p in grid], "--", color="0.5", label="p(1 - p)/(1 + p): one answer")
    norms.set(xlabel="pass rate", ylabel="mean score norm W", yscale="log")
    baseline.set(xlabel="pass rate", ylabel="least-noise baseline")
    for axis in (norms, baseline):
        axis.legend(frameon=False, fontsize=8)
    return made
