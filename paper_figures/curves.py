"""Curves over training with bands, and the frame that figures 3 to 7 share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ebpo_sim import labels
from ebpo_sim.compare.contrasts import Contrast, Measure, contrast, corrected, last, select
from ebpo_sim.plots import Axes, Figure
from paper_figures import language_model, reported, style
from paper_figures.data import TRAINING, Data
from paper_figures.page import Page

MAIN = ("grpo", "ebpo", "ebpo_debiased", "ebpo_debiased:memory=0.95")  # with bands; the others thin
GROUP_SIZE = 4
MEASURES: dict[Measure, str] = {
    "end": "at the end, paired",
    "mean": "mean, paired",
    "kept": "log(last / first record)",
}
RUNG = "Rung 2: synthetic skill-chain prompts, softmax policies that learn"
READING = (
    "Thick: each method at its own best learning rate, band = 2 standard errors; dotted: all at one shared rate. "
    "Right: differences in percent of GRPO's value with 95 % intervals, which do not cover the choice of rates from "
    "a grid; words after Holm's correction within the figure and regime; shaded: ± 1 %."
)
MAIN_OPTIMISER = "adam"


def columns(data: Data) -> dict[str, str]:
    """Names of the columns of a figure: the training study's regimes and, where it was run, the tiny LM."""
    return data.regimes | ({language_model.OPTIMISER: style.TINY} if data.llm else {})


def cell(
    data: Data, column: str, optimiser: str, metric: str, tuning: str = "own", order: str = "shuffled"
) -> dict[str, Any]:
    """What names a cell of the training table at G = 4."""
    place = {"group_size": GROUP_SIZE, "order": order, "tuning": tuning, "metric": metric}
    if column == language_model.OPTIMISER:
        return {"world": language_model.WORLD, "optimiser": column, **place}
    return {"world": data.world, "regime": column, "optimiser": optimiser, **place}


def places(data: Data) -> list[tuple[str, str, str]]:
    """(column, optimiser, what both are called) of all that is compared; the tiny LM has one optimiser."""
    found = [(regime, opt, f"{regime}, {label}") for regime in data.regimes for opt, label in style.OPTIMISERS.items()]
    return found + ([(language_model.OPTIMISER, MAIN_OPTIMISER, style.TINY)] if data.llm else [])


def judged(data: Data, name: str, metric: str, measure: Measure) -> dict[tuple[str, str, str, str], Contrast]:
    """EBPO against GRPO by (metric, column, optimiser, tuning), uncorrected: of the tiny LM what it has."""
    found = {}
    for column, optimiser, label in places(data):
        for tuning in ("own", "shared"):
            where = cell(data, column, optimiser, metric, tuning)
            if column == language_model.OPTIMISER and not select(data.of(metric), **where):
                continue
            what = f"{label}, {tuning} learning rate{'s' if tuning == 'own' else ''}{rates(data, where)}"
            key = metric, column, optimiser, tuning
            found[key] = contrast(data.of(metric), reported.CLAIMS[name].sign, what, measure, **where)
    return found


def rates(data: Data, where: dict[str, Any]) -> str:
    """The learning rates of a cell: where they differ, so may all that follows from the size of a step."""
    rows = [last(data.of(where["metric"]), estimator=name, **where) for name in ("ebpo", "grpo")]
    both = [f"{r['learning_rate']:g}" for r in rows if r is not None]
    if len(both) < 2:
        return ""
    return f" ({both[0]})" if both[0] == both[1] else f" (EBPO {both[0]}, GRPO {both[1]})"


def draw_metric(axis: Axes, data: Data, column: str, optimiser: str, metric: str) -> None:
    """All estimators of one cell over the steps."""
    present = dict.fromkeys(r["estimator"] for r in select(data.of(metric), **cell(data, column, optimiser, metric)))
    colour = labels.colours(present)
    for name in sorted(present, key=lambda n: n in MAIN):  # the main ones on top
        for tuning in ("own", "shared"):
            rows = select(data.of(metric), estimator=name, **cell(data, column, optimiser, metric, tuning))
            rows = [r for r in rows if r["value"] is not None]
            if not rows or (tuning == "shared" and name not in (labels.REFERENCE, labels.SUBJECT)):
                continue
            x, y = [r["step"] for r in rows], [r["value"] for r in rows]
            if tuning == "shared":
                axis.plot(x, y, color=colour[name], lw=1.1, ls=":", alpha=0.9)
                continue
            thick = name in MAIN
            axis.plot(x, y, color=colour[name], lw=2.0 if thick else 0.9, alpha=1 if thick else 0.75,
                      label=labels.label(name).name, zorder=3 if thick else 2)  # fmt: skip
            if thick:
                half = [2 * (r["se"] or 0.0) for r in rows]
                low, high = ([v + s * h for v, h in zip(y, half, strict=True)] for s in (-1, 1))
                axis.fill_between(x, low, high, color=colour[name], alpha=0.18, lw=0, zorder=1)
    if metric == "gradient_cosine":
        axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))  # a band's upper half knows no such bound
    axis.set_xlabel("step", fontsize=8.5, labelpad=1)


def seeds(data: Data) -> str:
    """For captions: the version, seeds, group size, world and regimes."""
    return f"{data.scale}; G = {GROUP_SIZE}, {data.world_text}; {data.regimes_text}"


def panel(axis: Axes, data: Data, column: str, optimiser: str, metric: str, verdict: Contrast | None = None) -> None:
    """A metric with its title; what the tiny LM has instead of it; an empty place where it has nothing."""
    tiny = column == language_model.OPTIMISER
    if tiny and not select(data.of(metric), **cell(data, column, optimiser, metric)):
        metric = language_model.INSTEAD.get(metric, "")
    if not select(data.of(metric), **cell(data, column, optimiser, metric)) or (tiny and optimiser != MAIN_OPTIMISER):
        axis.set_axis_off()
        return
    draw_metric(axis, data, column, optimiser, metric)
    style.panel_title(axis, f"{style.METRICS[metric]}, {heading(data, column, optimiser)}", verdict, below=True)


def heading(data: Data, column: str, optimiser: str) -> str:
    """What a panel shows: regime with its nu/N and optimiser, or the tiny LM."""
    tiny = column == language_model.OPTIMISER
    return style.TINY if tiny else f"{columns(data)[column]}, {style.OPTIMISERS[optimiser]}"


Extra = Callable[[Axes, Data, str], None]  # draws a panel of a column


def page(
    name: str, title: str, about: str, metrics: Sequence[str], measure: Measure = "end", extra: Extra | None = None
) -> Page:
    """A figure of metrics over training; `about` says what the caption must beside the rung."""
    caption = f"{RUNG}. {about}"

    def found(data: Data) -> dict[tuple[str, str, str, str], Contrast]:
        listed = {key: v for metric in metrics for key, v in judged(data, name, metric, measure).items()}
        named = {k: v._replace(what=f"{k[0]}, {v.what}") if len(metrics) > 1 else v for k, v in listed.items()}
        return dict(zip(named, corrected(list(named.values())), strict=True))

    def draw(data: Data) -> Figure:
        return over_training(data, name, title, caption, metrics, measure, found(data), extra)

    return Page(name, title, caption, (TRAINING,), draw, lambda data: list(found(data).values()))


def over_training(
    data: Data, name: str, title: str, about: str, metrics: Sequence[str], measure: Measure,
    found: dict[tuple[str, str, str, str], Contrast], extra: Extra | None,
) -> Figure:  # fmt: skip
    """Regimes and the tiny LM side by side: the first metric under Adam and SGD, the others under Adam, what the paper
    reports and all differences beside them.

    `extra` adds a row that no verdict is passed on: what the paper does not show but one needs to read the rest.
    """
    lines = [(metrics[0], optimiser) for optimiser in reversed(style.OPTIMISERS)]
    lines += [(metric, MAIN_OPTIMISER) for metric in metrics[1:]]
    shown = columns(data)
    tall = len(lines) + (extra is not None)
    figure = style.figure(style.WIDE, max(2.0 + 1.85 * tall, 4.0 + 0.2 * len(found)))
    style.title(figure, title)
    grid = style.panels(figure, tall, len(shown), right=style.strip(figure) - 0.025)
    for line, (metric, optimiser) in zip(grid, lines, strict=False):
        for axis, column in zip(line, shown, strict=True):
            panel(axis, data, column, optimiser, metric, found.get((metric, column, optimiser, "own")))
    if extra is not None:
        for axis, column in zip(grid[-1], shown, strict=True):
            extra(axis, data, column)
    style.key(figure, [*grid[0], *grid[-1]])
    style.beside(figure, reported.CLAIMS[name].text, list(found.values()), MEASURES[measure])
    style.caption(figure, f"{about} {READING} {seeds(data)}.{language_model.note(name, data)}")
    return figure
