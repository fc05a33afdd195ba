"""Figures of the training study: learning curves with bands of two standard errors, and effects with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ebpo_sim.labels import REFERENCE, colours, label
from ebpo_sim.studies.training.outcomes import ASYMPTOTE, END, MIDPOINT

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


def curves(rows: Rows, regime: str, optimiser: str) -> Figure:
    """Every metric against steps, a line per estimator, in the first world at the group size nearest to 4, shuffled."""
    from matplotlib.figure import Figure

    world, size = rows[0]["world"], min({r["group_size"] for r in rows}, key=lambda g: (abs(g - 4), g))
    here = _mine(rows, world=world, regime=regime, optimiser=optimiser, tuning="own", order="shuffled", group_size=size)
    colour = colours(dict.fromkeys(r["estimator"] for r in here))
    figure = Figure(figsize=(16, 7), layout="constrained")
    for panel, (metric, title) in zip(figure.subplots(2, 4).flat, CURVES, strict=True):
        for estimator in colour:
            line = _mine(here, metric=metric, estimator=estimator)
            step, value, se = (np.array([r[k] for r in line]) for k in ("step", "value", "se"))
            panel.plot(step, value, label=label(estimator).name, lw=1.4, color=colour[estimator])
            panel.fill_between(step, value - 2 * se, value + 2 * se, color=colour[estimator], alpha=0.2, lw=0)
        panel.set(title=title, xlabel="step", yscale="log" if metric in LOGARITHMIC else "linear")
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(
        f"{world}, {regime} (nu/N = {here[0]['noise_ratio']:.2g}), {optimiser}, G = {size}, each at its own best "
        "learning rate; bands: 2 se"
    )
    return figure


PANELS = ((END, ""), ("rollouts", "far"), ("rows", "far"), (ASYMPTOTE, ""), (MIDPOINT, ""))


def effects(priced: Rows, optimiser: str) -> Figure:
    """Differences and ratios to GRPO with their intervals: a row a regime and arm of the first world, filled where a
    direction is left after correction."""
    from matplotlib.figure import Figure

    here = [r for r in _mine(priced, world=priced[0]["world"], optimiser=optimiser) if r["estimator"] != REFERENCE]
    names = list(dict.fromkeys((r["regime"], r["noise_ratio"], r["estimator"], r["group_size"]) for r in here))
    colour = colours(dict.fromkeys(r["estimator"] for r in here))
    figure = Figure(figsize=(16, 1.6 + 0.2 * len(names)), layout="constrained")
    for panel, (quantity, target) in zip(np.ravel(figure.subplots(1, len(PANELS), sharey=True)), PANELS, strict=True):
        ratio = quantity not in (END, ASYMPTOTE)
        for r in _mine(here, quantity=quantity, target=target):
            if r["value"] is not None:
                at, low, high = (math.exp(r[k]) if ratio else r[k] for k in ("value", "low", "high"))
                y = names.index((r["regime"], r["noise_ratio"], r["estimator"], r["group_size"]))
                sure = r["verdict"] in ("appears", "the opposite")
                panel.errorbar(
                    [at], [y], xerr=[[at - low], [high - at]], marker="o", ms=4, elinewidth=1, ls="",
                    color=colour[r["estimator"]], fillstyle="full" if sure else "none",
                )  # fmt: skip
        panel.axvline(1 if ratio else 0, color="black", lw=0.8)
        for i in range(1, len(names)):
            if names[i][0] != names[i - 1][0]:
                panel.axhline(i - 0.5, color="0.6", lw=0.6)
        panel.set_title(f"{quantity} {f'to the {target} target' if target else ''}".strip(), fontsize=9)
        panel.set_xlabel("ratio to GRPO's" if ratio else "less GRPO's", fontsize=8)
        panel.tick_params(labelsize=7, which="both")
    figure.axes[0].set_yticks(
        range(len(names)), labels=[f"{r} ({x:.2g}), {label(e).name}, G = {g}" for r, x, e, g in names], fontsize=7
    )
    figure.axes[0].invert_yaxis()
    figure.suptitle(f"{priced[0]['world']}, {optimiser}: regime (nu/N), method; 95 % intervals; filled: after Holm")
    return figure


def plot(rows: Rows, priced: Rows) -> dict[str, Figure]:
    """Figures by file name."""
    found = {}
    for optimiser in dict.fromkeys(r["optimiser"] for r in rows):
        found[f"effects_{optimiser}.png"] = effects(priced, optimiser)
        for regime in dict.fromkeys(r["regime"] for r in rows):
            found[f"curves_{regime}_{optimiser}.png"] = curves(rows, regime, optimiser)
    return found
