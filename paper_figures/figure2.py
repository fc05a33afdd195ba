"""The paper's figure 2: what a group gets that fails entirely, against mu_glob; and two tests of it."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, Rows, exact
from ebpo_sim.plots import Axes, Figure
from paper_figures import reported, style
from paper_figures.data import FAILURE, Data
from paper_figures.page import Page

TITLE = "Figure 2. Advantage of a group that fails entirely"
CAPTION = (
    "Rung 0: exact sums, no sampling error. Left, as in the paper: the raw advantage before normalisation. Middle: the "
    "advantage that reaches the policy, when only the history differs and the batch is the same (half of the groups "
    "failed, half mixed). Right: the same in a batch without one success. Theory: centring over the batch cancels "
    "mu_glob, and leaves nothing where no rollout succeeds; the verdicts are computed from the sums."
)
SHOWN = ("grpo", "ebpo_released", "ebpo", "ebpo_debiased")
VIEWS = (
    ("raw_exact", "raw (the paper's figure)", "figure2_raw"),
    ("reference_batch", "reaching the policy, same batch", "figure2_history"),
    ("no_success_batch", "batch without a success", "figure2_silent"),
)


def group_size(data: Data) -> int:
    """The studied group size nearest to the paper's 4."""
    return int(min({r["group_size"] for r in data.failure}, key=lambda g: (abs(g - 4), g)))


def _rows(data: Data, name: str) -> Rows:
    found = [
        r
        for r in data.failure
        if r["part"] == "signal" and r["estimator"] == name and r["group_size"] == group_size(data)
    ]
    return sorted(found, key=lambda r: r["mu_glob"])


def verdicts(data: Data) -> list[Contrast]:
    """The raw penalty, its growth with the history after centring, and the signal without any success."""
    mine = _rows(data, "ebpo")
    raw = max((r["raw_exact"] for r in mine), default=None)  # the weakest of the penalties
    grows = mine[-1]["reference_batch"] - mine[0]["reference_batch"] if mine else None
    silent = max((r["no_success_batch"] for r in mine), default=None)
    return [
        exact(raw, reported.CLAIMS["figure2_raw"].sign, "Left: raw penalty, the weakest"),
        exact(grows, reported.CLAIMS["figure2_history"].sign, "Middle: effect of the history"),
        exact(silent, reported.CLAIMS["figure2_silent"].sign, "Right: signal without a success"),
    ]


def draw(data: Data) -> Figure:
    """Three views of the same penalty."""
    figure = style.figure()
    style.title(figure, TITLE)
    axes = style.panels(figure, 1, 3)[0]
    found = verdicts(data)
    for axis, (column, name, _), verdict in zip(axes, VIEWS, found, strict=True):
        _view(axis, data, column)
        style.panel_title(axis, name, verdict, below=True)
    axes[0].set_ylabel(f"advantage, G = {group_size(data)}", fontsize=8.5)
    axes[0].legend(fontsize=7.5, frameon=False, loc="lower left")
    text = " ".join(reported.CLAIMS[name].text for _, _, name in VIEWS[:2])
    style.beside(figure, text, found)
    style.caption(figure, CAPTION)
    return figure


def _view(axis: Axes, data: Data, column: str) -> None:
    for i, name in enumerate(SHOWN):
        rows, look = _rows(data, name), labels.label(name)
        if rows:
            # Coinciding lines stay visible: the earlier the wider.
            axis.plot([r["mu_glob"] for r in rows], [r[column] for r in rows], lw=6 - 1.4 * i, alpha=0.85,
                      color=look.colour, label=look.name, solid_capstyle="round")  # fmt: skip
    axis.set_xlabel("mu_glob of the history", fontsize=8.5)


PAGE = Page("figure2", TITLE, CAPTION, (FAILURE,), draw, verdicts)
