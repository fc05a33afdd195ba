"""The paper's figure 1: an overview of the algorithm, with what centring cancels."""

from __future__ import annotations

from ebpo_sim import labels
from ebpo_sim.plots import Axes, Figure
from paper_figures import style
from paper_figures.data import Data
from paper_figures.page import Page

TITLE = "Figure 1. Overview: how a reward becomes an advantage in EBPO (Algorithm 1)"
CAPTION = (
    "A diagram, no data. Red: EBPO's own parts. Dashed grey: the path of mu_glob, which centring ends: with one S and "
    "equal groups raw − mean(raw) = r − (1−S)·mu_m − S·mean over the batch, exactly: the history acts "
    "through S alone."
)
EBPO = labels.label("ebpo").colour


def draw(data: Data) -> Figure:
    """Boxes and arrows."""
    figure = style.figure(height=4.9)
    style.title(figure, TITLE)
    axis = figure.add_axes((0.01, 0.1, 0.98, 0.8))
    axis.set(xlim=(0, 100), ylim=(0, 40))
    axis.axis("off")
    _box(axis, 1, 22, 14, 10, "World", "prompts q with\nsuccess rate p_q", "#e8eef5")
    _box(axis, 20, 22, 14, 10, "Groups", "G rollouts each,\nr in {0, 1}; mean mu_m", "#e8eef5")
    _box(axis, 39, 22, 18, 10, "Estimator(state)", "V = (1−S)·mu_m + S·mu_glob\nraw = r − V", "#fdeaea", EBPO)
    _box(axis, 62, 22, 17, 10, "Centre and scale", "A = (raw − batch mean)\n/ (batch std + eps)", "#e8eef5")
    _box(axis, 84, 22, 15, 10, "Policy", "advantages move it;\nnext step", "#e8eef5")
    for x0, x1 in ((15, 20), (34, 39), (57, 62), (79, 84)):
        _arrow(axis, (x0, 27), (x1, 27))
    _box(axis, 21, 4, 17, 9, "Tracker of all rewards", "mu_glob, sigma2", "#fdeaea", EBPO)
    _box(axis, 42, 4, 17, 9, "Tracker of group means", "tau2", "#fdeaea", EBPO)
    _box(axis, 64, 4, 24, 9, "Shrinkage", "S = (sigma2/G) / (sigma2/G + tau2)", "#fdeaea", EBPO)
    _arrow(axis, (27, 22), (27, 13), EBPO)
    _arrow(axis, (32, 22), (47, 13), EBPO)
    _arrow(axis, (59, 8.5), (64, 8.5), EBPO)
    _arrow(axis, (36, 4), (66, 4), EBPO, bend=0.16)
    axis.text(51, 0.2, "sigma2", fontsize=8, color=EBPO, ha="center")
    _arrow(axis, (70, 13), (54, 22), EBPO)
    axis.text(65.3, 17.6, "S reaches the policy", fontsize=8, color=EBPO)
    _arrow(axis, (36, 13), (43, 22), style.SOFT, "--")
    axis.text(37.4, 15.9, "mu_glob", fontsize=8, color=style.SOFT, ha="right")
    _loop(axis)
    axis.annotate(
        "cancelled here:\nno effect on any advantage", (70.5, 32.1), (70.5, 37.2), fontsize=8.5, ha="center",
        va="center", color=style.SOFT, weight="bold",
        arrowprops={"arrowstyle": "->", "color": style.SOFT, "ls": "--"},
    )  # fmt: skip
    axis.text(
        1, 8.5, "1. update both trackers\n    with the batch,\n2. then use them", fontsize=8.5, va="center", color=EBPO
    )
    style.caption(figure, CAPTION)
    return figure


def _box(
    axis: Axes, x: float, y: float, w: float, h: float, name: str, text: str, fill: str, edge: str = "#8fa3b8"
) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(
        FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=1.2", facecolor=fill, edgecolor=edge, lw=1.2)
    )
    axis.text(x + w / 2, y + 0.72 * h, name, ha="center", va="center", fontsize=9.5, weight="bold", color=style.INK)
    axis.text(x + w / 2, y + 0.33 * h, text, ha="center", va="center", fontsize=8, color=style.INK, linespacing=1.25)


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "#44566c", line: str = "-",
    bend: float = 0.0,
) -> None:  # fmt: skip
    how = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "ls": line, "connectionstyle": f"arc3,rad={bend}"}
    axis.annotate("", end, start, arrowprops=how)


def _loop(axis: Axes) -> None:
    """The policy is the next step's world."""
    axis.plot([91.5, 91.5, 8, 8], [32, 39.3, 39.3, 33.2], color="#44566c", lw=1.2)
    _arrow(axis, (8, 34.5), (8, 32))
    axis.text(40, 37.4, "new success rates: the next step's world", fontsize=8, color="#44566c", ha="center")


PAGE = Page("figure1", TITLE, CAPTION, (), draw, lambda _: [])
