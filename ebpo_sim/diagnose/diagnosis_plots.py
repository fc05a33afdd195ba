"""The figures: pass rates with the estimated prior, error ratio against G, and how both move over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ebpo_sim import labels
from ebpo_sim.diagnose.diagnosis import Diagnosis
from ebpo_sim.diagnose.intervals import Estimate
from ebpo_sim.numbers.formulas import critical_icc
from ebpo_sim.plots import Axes, Figure, panels

SHOWN = ("ebpo", "ebpo_debiased", "ebpo_nonparametric", "james_stein")  # where they are studied


def figures(d: Diagnosis) -> dict[str, Figure]:
    """By file name."""
    made = {"pass_rates.png": pass_rates(d)}
    if d.table.rows:
        made["ratio_vs_group_size.png"] = ratio_vs_group_size(d)
    if d.steps:
        made["steps.png"] = steps(d)
    return made


def pass_rates(d: Diagnosis) -> Figure:
    """Histogram of observed rates; over it the mass that the prior puts into each bin, over bootstrap fits."""
    figure, (axis,) = panels(7.0, 4.2)
    rate, weight = d.rates
    low, high = (0.0, 1.0) if d.binary else (float(rate.min()), float(rate.max()))
    edges = _edges(d, low, high)
    share, _ = np.histogram(rate, edges, weights=weight)
    axis.stairs(
        share / weight.sum(), edges, fill=True, color="tab:gray", alpha=0.5, label="observed rates, with sampling noise"
    )
    if d.shape is not None:
        drawn = np.stack([np.histogram(d.shape.nodes, edges, weights=w)[0] for w in d.shape.weights])
        middle = (edges[:-1] + edges[1:]) / 2
        bottom, mass, top = np.quantile(drawn, [0.025, 0.5, 0.975], axis=0)
        axis.vlines(middle, bottom, top, color="tab:blue", lw=1.5, alpha=0.8)
        axis.plot(middle, mass, "o", color="tab:blue", ms=5, label="estimated prior (lines: 95 % over prompts)")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("pass rate" if d.binary else "mean reward of a prompt")
    axis.set_ylabel("share of prompts")
    axis.legend(frameon=False)
    axis.set_title(f"{d.name + ': ' if d.name else ''}{d.prompts} prompts", fontsize=11, parse_math=False)
    return figure


def _edges(d: Diagnosis, low: float, high: float) -> np.ndarray:
    """A bin for each possible rate of few rollouts, so that none falls on an edge; otherwise twelve."""
    least, most, _ = d.sizes
    if d.binary and least == most <= 24:
        return np.clip((np.arange(most + 2) - 0.5) / most, 0, 1)
    return np.linspace(low, high if high > low else low + 1, 13)


def ratio_vs_group_size(d: Diagnosis) -> Figure:
    """Long-run ratios as lines with bands, model-free ones as points with bars."""
    figure, (axis,) = panels(7.4, 4.6)
    names = [n for n in SHOWN if any(r.estimator == n for r in d.table.rows)]
    names = names or [n for n in dict.fromkeys(r.same_as for r in d.table.rows) if n != labels.REFERENCE][:4]
    top, colour_of = 1.3, labels.colours(names)
    for i, name in enumerate(names):
        colour = colour_of[name]
        rows = sorted((r for r in d.table.rows if r.estimator == name), key=lambda r: r.group_size)
        known = [(r.group_size, r.long_run) for r in rows if r.long_run is not None]
        if known:
            size = np.array([g for g, _ in known], dtype=float)
            axis.plot(size, [e.value for _, e in known], "o-", color=colour, ms=3, lw=1.6, label=name)
            low, high = zip(*(_ends(e) for _, e in known), strict=True)
            axis.fill_between(size, low, high, color=colour, alpha=0.18, lw=0)
            top = max(top, max(e.value for _, e in known))
        parted = [(r.group_size, r.split) for r in rows if r.split is not None]
        if parted:
            size = np.array([g for g, _ in parted]) * 1.03 ** (i - len(names) / 2)
            value = np.array([e.value for _, e in parted])
            ends = np.array([_ends(e) for _, e in parted]).T
            bars = np.abs(ends - value)
            axis.errorbar(size, value, bars, fmt="o", color=colour, ms=4, lw=1, label=None if known else name)
    axis.axhline(1, color="black", lw=0.8)
    axis.annotate("group mean", (1.01, 1), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axis.axvline(d.current, color="black", ls=":", lw=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xticks(d.group_sizes, labels=[str(g) for g in d.group_sizes])
    axis.minorticks_off()
    axis.set_ylim(0, min(top * 1.15, 4))
    axis.set_xlabel("rollouts a group, G (dotted: the recommendation's)")
    axis.set_ylabel("error / error of the group mean")
    axis.legend(frameon=False, fontsize=9, title="line, band: long run; point, bar: model-free", title_fontsize=8)
    axis.set_title(f"{d.name or 'Baselines'}: error relative to the group mean (95 %)", fontsize=11, parse_math=False)
    return figure


def steps(d: Diagnosis) -> Figure:
    """Mean reward, intra-class correlation and zero-signal groups above; error ratios below."""
    figure, (above, below) = panels(9.6, 6.0, rows=2, sharex=True)
    x = np.array([p.start for p in d.steps])
    _track(above, x, [p.found.mean for p in d.steps], "tab:gray", "mean reward")
    _track(above, x, [p.found.icc for p in d.steps], "tab:blue", "intra-class correlation")
    _track(above, x, [p.zero_signal for p in d.steps], "tab:orange", f"groups of {d.current} with equal rewards")
    if d.current > 1:
        limit = critical_icc(d.current)
        above.axhline(limit, color="tab:blue", ls="--", lw=1, label=f"critical ICC at G = {d.current}: {limit:.3f}")
    for name in d.steps[0].ratio:
        _track(below, x, [p.ratio[name] for p in d.steps], labels.label(name).colour, name)
    below.axhline(1, color="black", lw=0.8)
    below.set_xlabel("training step (middle of a window)")
    below.set_ylabel(f"error / group mean's, G = {d.current}")
    for axis in (above, below):
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    above.set_title(
        f"{d.name or 'All prompts'}, during training (bars: 95 % over prompts)", fontsize=11, parse_math=False
    )
    return figure


def _track(axis: Axes, x: np.ndarray, found: Sequence[Estimate | None], colour: str, label: str) -> None:
    known = [(at, e) for at, e in zip(x, found, strict=True) if e is not None and np.isfinite(e.value)]
    if known:
        value = np.array([e.value for _, e in known])
        bars = np.abs(np.array([_ends(e) for _, e in known]).T - value)
        axis.errorbar([at for at, _ in known], value, bars, fmt="o-", color=colour, ms=3.5, lw=1.2, label=label)


def _ends(e: Estimate) -> tuple[float, float]:
    return (e.value if e.low is None else e.low), (e.value if e.high is None else e.high)
