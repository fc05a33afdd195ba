"""Curves over training with bands, and the frame that figures 3 to 7 share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, Measure, contrast, last, select
from paper_figures import language_model, reported, style
from paper_figures.data import TRAINING, Data, steps
from paper_figures.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN = ("grpo", "ebpo", "ebpo_debiased", "ebpo_debiased:memory=0.95")  # with bands; the others thin
GROUP_SIZE = 4
MEASURES: dict[Measure, str] = {
    "end": "at the end, paired",
    "mean": "mean, paired",
    "kept": "log(last / first record)",
}
RUNG = "Rung 2: synthetic skill-chain prompts, softmax policies that learn"
READING = (
    "Thick: each method at its own best learning rate, band = 2 standard errors; dotted: all at one shared learning "
    "rate. Differences ± 2 standard errors, which do not cover the choice of rates from a grid."
)


def columns(data: Data) -> dict[str, str]:
    """Names of the columns of a figure: the training study's optimisers and, where it was run, the tiny LM."""
    return style.OPTIMISERS | ({language_model.OPTIMISER: style.TINY} if data.llm else {})


def cell(data: Data, optimiser: str, metric: str, tuning: str = "own", order: str = "shuffled") -> dict[str, Any]:
    """What names a cell of the training table at G = 4."""
    world = language_model.WORLD if optimiser == language_model.OPTIMISER else data.world
    return {
        "world": world, "group_size": GROUP_SIZE, "optimiser": optimiser, "order": order, "tuning": tuning,
        "metric": metric,
    }  # fmt: skip


def judged(data: Data, name: str, metric: str, measure: Measure) -> list[Contrast]:
    """EBPO against GRPO by the measure: under both optimisers and tunings, and of the tiny LM what it has."""
    sign = reported.CLAIMS[name].sign
    found = []
    for optimiser, label in columns(data).items():
        for tuning in ("own", "shared"):
            where = cell(data, optimiser, metric, tuning)
            if optimiser == language_model.OPTIMISER and not select(data.rows, **where):
                continue
            what = f"{label}, {tuning} learning rate{'s' if tuning == 'own' else ''}{rates(data, where)}"
            found.append(contrast(data.rows, sign, what, measure, **where))
    return found


def rates(data: Data, where: dict[str, Any]) -> str:
    """The learning rates of a cell: where they differ, so may all that follows from the size of a step."""
    rows = [last(data.rows, estimator=name, **where) for name in ("ebpo", "grpo")]
    both = [f"{r['learning_rate']:g}" for r in rows if r is not None]
    if len(both) < 2:
        return ""
    return f" ({both[0]})" if both[0] == both[1] else f" (EBPO {both[0]}, GRPO {both[1]})"


def draw_metric(axis: Axes, data: Data, optimiser: str, metric: str, order: str = "shuffled") -> None:
    """All estimators of one cell over the steps."""
    present = dict.fromkeys(r["estimator"] for r in select(data.rows, **cell(data, optimiser, metric)))
    for name in sorted(present, key=lambda n: n in MAIN):  # the main ones on top
        for tuning in ("own", "shared"):
            rows = select(data.rows, estimator=name, **cell(data, optimiser, metric, tuning, order))
            rows = [r for r in rows if r["value"] is not None]
            if not rows or (tuning == "shared" and name not in (labels.REFERENCE, labels.SUBJECT)):
                continue
            x, y = [r["step"] for r in rows], [r["value"] for r in rows]
            colour = labels.label(name).colour
            if tuning == "shared":
                axis.plot(x, y, color=colour, lw=1.1, ls=":", alpha=0.9)
                continue
            thick = name in MAIN
            axis.plot(x, y, color=colour, lw=2.0 if thick else 0.9, alpha=1 if thick else 0.75,
                      label=labels.label(name).name, zorder=3 if thick else 2)  # fmt: skip
            if thick:
                half = [2 * (r["se"] or 0.0) for r in rows]
                low, high = ([v + s * h for v, h in zip(y, half, strict=True)] for s in (-1, 1))
                axis.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, zorder=1)
    if metric == "gradient_cosine":
        axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))  # a band's upper half knows no such bound
    axis.set_xlabel("step", fontsize=8.5, labelpad=1)


def seeds(data: Data) -> str:
    """For captions: the version, seeds, group size, world and length."""
    return f"{data.scale}; G = {GROUP_SIZE}, {steps(data.training)} steps, {data.world_text}"


def panel(axis: Axes, data: Data, optimiser: str, metric: str, verdict: Contrast | None = None) -> None:
    """A metric with its title; what the tiny LM has instead of it; an empty place where it has nothing."""
    if optimiser == language_model.OPTIMISER and not select(data.rows, **cell(data, optimiser, metric)):
        metric = language_model.INSTEAD.get(metric, "")
        if not select(data.rows, **cell(data, optimiser, metric)):
            axis.set_axis_off()
            return
    draw_metric(axis, data, optimiser, metric)
    style.panel_title(axis, f"{style.METRICS[metric]}, {columns(data)[optimiser]}", verdict, below=bool(data.llm))


Extra = Callable[["Axes", Data, str], None]  # draws a panel of an optimiser


def page(
    name: str, title: str, about: str, metrics: Sequence[str], measure: Measure = "end", extra: Extra | None = None
) -> Page:
    """A figure of metrics over training; `about` says what the caption must beside the rung."""
    caption = f"{RUNG}. {about}"

    def verdicts(data: Data) -> list[Contrast]:
        """EBPO minus GRPO, named by the metric where there are several."""
        found = [(metric, v) for metric in metrics for v in judged(data, name, metric, measure)]
        return [v._replace(what=f"{metric}, {v.what}") if len(metrics) > 1 else v for metric, v in found]

    def draw(data: Data) -> Figure:
        return over_training(data, name, title, caption, metrics, measure, extra)

    return Page(name, title, caption, (TRAINING,), draw, verdicts)


def over_training(
    data: Data, name: str, heading: str, about: str, metrics: Sequence[str], measure: Measure, extra: Extra | None
) -> Figure:
    """A row of panels for each metric, SGD, Adam and the tiny LM side by side, with paper and verdicts beside them.

    `extra` adds a row that no verdict is passed on: what the paper does not show but one needs to read the rest.
    """
    lines, shown = len(metrics) + (extra is not None), columns(data)
    wide = len(shown) > 2
    figure = style.figure(style.WIDE if wide else style.WIDTH, (4.9 if lines == 1 else 6.6) + 0.7 * wide)
    style.title(figure, heading)
    found = []
    grid = style.panels(figure, lines, len(shown), right=style.strip(figure) - 0.025)
    for line, metric in zip(grid, metrics, strict=False):
        all_of_it = judged(data, name, metric, measure)
        own = dict(zip(shown, all_of_it[::2], strict=False))
        # With two metrics the strip has room for the main comparison only; captions.md has all.
        label = style.METRICS[metric]
        found += all_of_it if len(metrics) == 1 else [v._replace(what=f"{label}, {v.what}") for v in own.values()]
        for axis, optimiser in zip(line, shown, strict=True):
            panel(axis, data, optimiser, metric, own.get(optimiser))
    if extra is not None:
        for axis, optimiser in zip(grid[-1], shown, strict=True):
            extra(axis, data, optimiser)
    style.key(figure, grid[0])
    style.beside(figure, reported.CLAIMS[name].text, found, MEASURES[measure])
    style.caption(figure, f"{about} {READING} {seeds(data)}.{language_model.note(name, data)}")
    return figure
