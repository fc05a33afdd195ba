"""Figures of the training study: learning curves with bands of two standard errors, and gains against group size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = list[dict[str, Any]]
CURVES = (
    ("pass1", "held-out pass@1"),
    ("maj16", "held-out maj@16"),
    ("pass16", "held-out pass@16"),
    ("entropy", "entropy, nats a token"),
    ("grad_norm", "gradient norm"),
    ("kl", "KL of a step, nats a token"),
    ("zero_signal", "groups without a signal"),
    ("gradient_cosine", "cosine of E g and exact gradient"),
)
LOGARITHMIC = ("grad_norm", "kl")


def _mine(rows: Rows, **wanted: Any) -> Rows:
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def curves(rows: Rows, world: str, optimiser: str, tuning: str) -> Figure:
    """Every metric against steps, a line per estimator, at the group size nearest to 4, shuffled."""
    from matplotlib.figure import Figure

    size = min({r["group_size"] for r in rows}, key=lambda g: (abs(g - 4), g))
    here = _mine(rows, world=world, optimiser=optimiser, tuning=tuning, order="shuffled", group_size=size)
    figure = Figure(figsize=(16, 7), layout="constrained")
    for panel, (metric, title) in zip(figure.subplots(2, 4).flat, CURVES, strict=True):
        for estimator in dict.fromkeys(r["estimator"] for r in here):
            line = _mine(here, metric=metric, estimator=estimator)
            step, value, se = (np.array([r[k] for r in line]) for k in ("step", "value", "se"))
            (drawn,) = panel.plot(step, value, label=estimator, lw=1.4)
            panel.fill_between(step, value - 2 * se, value + 2 * se, color=drawn.get_color(), alpha=0.2, lw=0)
        panel.set(title=title, xlabel="step", yscale="log" if metric in LOGARITHMIC else "linear")
    figure.axes[0].legend(fontsize=8, frameon=False)
    rate = "each at its own best learning rate" if tuning == "own" else "all at the best learning rate of grpo"
    figure.suptitle(f"{world}, {optimiser}, G = {size}, {rate}; bands: 2 se")
    return figure


def gains(rows: Rows) -> Figure:
    """Final pass@1 less GRPO's against G, own rates filled, shared rate hollow; a panel per world and optimiser."""
    from matplotlib.figure import Figure

    last = max(r["step"] for r in rows)
    here = [r for r in _mine(rows, metric="pass1", step=last, order="shuffled") if r["difference"] is not None]
    panels = list(dict.fromkeys((r["world"], r["optimiser"]) for r in here))
    figure = Figure(figsize=(6 * max(1, len(panels)), 4.4), layout="constrained")
    drawn = figure.subplots(1, max(1, len(panels)), squeeze=False).flat
    for panel, (world, optimiser) in zip(drawn, panels, strict=False):
        for i, estimator in enumerate(dict.fromkeys(r["estimator"] for r in here)):
            for tuning, fill in (("own", "full"), ("shared", "none")):
                line = _mine(here, world=world, optimiser=optimiser, estimator=estimator, tuning=tuning)
                panel.errorbar(
                    [r["group_size"] for r in line], [r["difference"] for r in line],
                    [2 * r["difference_se"] for r in line], marker="o", fillstyle=fill, color=f"C{i}", capsize=2,
                    ls="-" if tuning == "own" else ":", label=estimator if tuning == "own" else None,
                )  # fmt: skip
        sizes = sorted({r["group_size"] for r in here})
        panel.axhline(0, color="black", lw=0.8)
        panel.set(xscale="log", xlabel="group size G", title=f"{world}, {optimiser}", ylabel="pass@1 less grpo's; 2 se")
        panel.set_xticks(sizes, labels=[str(g) for g in sizes])
        panel.minorticks_off()
    if panels:
        figure.axes[0].legend(fontsize=8, frameon=False, title="filled: own rates; hollow: one shared rate")
    return figure


def plot(rows: Rows) -> dict[str, Figure]:
    """Figures by file name."""
    found = {"gains.png": gains(rows)}
    for i, world in enumerate(dict.fromkeys(r["world"] for r in rows)):
        for optimiser in dict.fromkeys(r["optimiser"] for r in rows):
            for tuning in ("own", "shared"):
                prefix = "curves" if i == 0 else f"curves_{i + 1}"
                found[f"{prefix}_{optimiser}_{tuning}.png"] = curves(rows, world, optimiser, tuning)
    return found
