"""How far is each baseline from the prompt's true success probability?

For every world, group size and estimator: the exact long-run error E (baseline - p)^2, the same simulated with
the stateful estimator on a stream of batches, both relative to GRPO's group mean, and on real counts a
model-free check. Below 1 the baseline beats the group mean, above 1 it loses to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from ebpo_sim import cli, labels, report
from ebpo_sim.counts.exact import LimitRisk, limit_risk, rule
from ebpo_sim.counts.splits import SplitRatio, split_ratio
from ebpo_sim.counts.streams import Design, mean_with_error, paired_ratio, simulate_errors
from ebpo_sim.counts.updates import gradient_noise, raw_table
from ebpo_sim.estimators import Baseline, Estimator, make, names, needs_prior
from ebpo_sim.numbers import formulas
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, run
from ebpo_sim.worlds import (
    Counts,
    Points,
    World,
    intra_class_correlation,
    observed_source,
    parse_world,
    variance_components,
    world_counts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "ratio_vs_icc.png"
PAIR = (labels.SUBJECT, "ebpo_debiased")  # EBPO and its repair, side by side in the overview
FAMILY_WISE = 1e-3  # false-fail rate of the joint comparison of exact and simulated ratios


SETTINGS = Settings(
    worlds=(
        "beta:5,5",
        "beta:2,3",
        "beta:0.5,0.7",
        "beta:0.1,0.1",
        "observed:Qwen2.5-1.5B",
        "observed:Qwen2.5-7B",
        "observed:Qwen2-1.5B",
        "observed:Qwen2.5-Math-1.5B",
        "observed:Qwen2-1.5B-Instruct",
        "observed:Qwen2.5-1.5B-Instruct",
        "observed:Qwen2.5-Math-7B-Instruct",
        "observed:Qwen2.5-Math-1.5B-Instruct/MATH",
        "observed:CodeLlama-7b-Base/LiveCodeBench",
        "observed:GPT-4-0613/LiveCodeBench",
        "observed:Claude-2/LiveCodeBench",
    ),
    group_sizes=(2, 4, 8, 16, 32),
    estimators=names(),
    design=Design(prompts=16384, steps=6, burn_in=3, replicates=40),
)
QUICK = Settings(
    worlds=("beta:5,5", "beta:0.1,0.1", "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH"),
    group_sizes=(4, 8),
    estimators=names(),
    design=Design(prompts=8192, steps=4, burn_in=2, replicates=16),
)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """The long table: one row for each world, group size and estimator (see README for the columns)."""
    worlds = [(text, parse_world(text)) for text in settings.worlds]
    for name in settings.estimators:
        needs_prior(name)  # refuses unknown names before any work
    bar = report.progress(len(worlds) * len(settings.group_sizes) * (len(settings.estimators) + 1), "mse_study")
    rows = []
    with bar:
        for text, world in worlds:
            for group_size in settings.group_sizes:
                rows += _cell(text, world, group_size, settings, threads, bar.update)
    return rows


def _cell(
    text: str, world: World, group_size: int, settings: Settings, threads: int, advance: Any
) -> list[dict[str, Any]]:
    prior = rule(world, group_size)
    estimators = [bind(name, prior) for name in (labels.REFERENCE, *settings.estimators)]
    scored = [e for e in estimators if e.baseline is not None]
    errors = [e.mean(axis=1) for e in simulate_errors(world, group_size, scored, settings.design, threads, advance)]
    counts = world_counts(text)
    icc = intra_class_correlation(world)
    reference = limit_risk(estimators[0], world, group_size)
    rows = []
    fine = rule(world, max(group_size, 32))
    plain_noise = gradient_noise(raw_table(estimators[0], world, group_size), fine)
    # presets that share a baseline share its error
    known: dict[Baseline | None, tuple[LimitRisk, SplitRatio | None, float]] = {}
    found = iter(errors[1:])
    for estimator in estimators[1:]:
        if estimator.baseline is None:  # no baseline, so no error of one: the row says so
            rows.append(_row(text, icc, counts, group_size, estimator))
            advance()
            continue
        error_R = next(found)
        if estimator.baseline not in known:
            split = None if counts is None else split_ratio(estimator, counts, group_size)
            noise = gradient_noise(raw_table(estimator, world, group_size), fine)
            known[estimator.baseline] = limit_risk(estimator, world, group_size), split, noise / plain_noise
        limit, split, noise_ratio = known[estimator.baseline]
        if counts is not None and limit.shrinkage is None and max(counts.rollouts) <= group_size:
            # n rollouts a prompt determine n moments of p: enough for a line, but the error of a curve in k = 0..G
            # would rest on the shape of the deconvolution alone.
            rows.append(_row(text, icc, counts, group_size, estimator))
            continue
        simulated, ratio = mean_with_error(error_R), paired_ratio(error_R, errors[0])
        ratio_exact = limit.mse / reference.mse if reference.mse > 0 else None
        rows.append(
            _row(text, icc, counts, group_size, estimator)
            | {
                "shrinkage": limit.shrinkage,
                "mse_exact": limit.mse,
                "mse_mc": simulated.value,
                "mse_mc_se": simulated.se,
                "ratio_exact": ratio_exact,
                "ratio_mc": report.exists(ratio.value),
                "ratio_mc_se": report.exists(ratio.se),
                "ratio_split": None if split is None else split.ratio,
                "ratio_split_se": None if split is None else split.se,
                "gradient_noise_ratio": report.exists(noise_ratio),
                "verdict": verdict(ratio_exact),
            }
        )
    return rows


def _row(text: str, icc: float, counts: Counts | None, group_size: int, estimator: Estimator) -> dict[str, Any]:
    """A row of the table whose quantities do not exist yet."""
    missing = ("shrinkage", "mse_exact", "mse_mc", "mse_mc_se", "ratio_exact", "ratio_mc", "ratio_mc_se")
    return {
        "world": text,
        "icc": report.exists(icc),
        "icc_se": None if counts is None else report.exists(variance_components(counts).icc_se),
        "group_size": group_size,
        "estimator": estimator.name,
        **dict.fromkeys((*missing, "ratio_split", "ratio_split_se", "gradient_noise_ratio", "verdict")),
    }


def bind(name: str, prior: Prior) -> Estimator:
    """The preset, given the world's true prior where it is an oracle."""
    return make(name, prior=prior) if needs_prior(name) else make(name)


def verdict(ratio: float | None) -> str:
    """Against the group mean in the long run: "wins" below 1, "loses" above, "ties" within 1e-9."""
    if ratio is None or abs(ratio - 1) < 1e-9:
        return "ties"
    return "wins" if ratio < 1 else "loses"


def agreement(rows: Sequence[dict[str, Any]], replicates: int) -> dict[str, Any]:
    """All simulated ratios against the exact ones at once: the largest |z| and the Bonferroni limit for it.

    z = (ratio_mc - ratio_exact)/ratio_mc_se with `replicates` - 1 degrees of freedom; estimators that share a
    baseline share a z, so the limit is conservative.
    """
    z = [
        (row["ratio_mc"] - row["ratio_exact"]) / row["ratio_mc_se"]
        for row in rows
        if row["ratio_exact"] is not None and row["ratio_mc_se"]
    ]
    if not z:
        return {"comparisons": 0, "max_abs_z": None, "limit": None, "passes": None}
    limit = float(student.ppf(1 - FAMILY_WISE / (2 * len(z)), df=replicates - 1))
    worst = max(abs(x) for x in z)
    return {"comparisons": len(z), "max_abs_z": worst, "limit": limit, "passes": worst <= limit}


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """Each G's critical intra-class correlation, and the joint test of exact against simulated."""
    return {
        "critical_icc": {str(g): formulas.critical_icc(g) for g in settings.group_sizes},
        "agreement": agreement(rows, settings.design.replicates),
    }


def overview(rows: Sequence[dict[str, Any]]) -> str:
    """For each G, worlds by intra-class correlation, a rule at rho*(G); EBPO, its repair, and the best learnable."""
    parts = []
    headers = (
        "world",
        "ICC",
        "ebpo",
        "simulated",
        "model-free",
        "ebpo",
        "debiased",
        "simulated",
        "best learnt from data",
    )
    for group_size in dict.fromkeys(row["group_size"] for row in rows):
        cells: dict[str, dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row["group_size"] == group_size:
                cells.setdefault(row["world"], {})[row["estimator"]] = row
        lines, crossed = [], False
        for world, cell in sorted(cells.items(), key=lambda item: _order(item[1][PAIR[0]]["icc"])):
            ebpo, repaired = (cell[name] for name in PAIR)
            if not crossed and _order(ebpo["icc"]) > formulas.critical_icc(group_size):
                lines.append(
                    ("", f"-- {formulas.critical_icc(group_size):.3f}", "-- critical ICC") + ("",) * (len(headers) - 3)
                )
                crossed = True
            learnt = (r for r in cell.values() if not needs_prior(r["estimator"]) and r["mse_exact"] is not None)
            best = min(learnt, key=lambda r: r["mse_exact"])
            lines.append(
                (
                    world,
                    report.number(ebpo["icc"]),
                    *_three(ebpo),
                    ebpo["verdict"].upper() if ebpo["verdict"] == "loses" else ebpo["verdict"],
                    *_three(repaired)[:2],
                    f"{report.number(best['ratio_exact'])} {best['estimator']}",
                )
            )
        align = ("left", "right", "right", "right", "right", "left", "right", "right", "left")
        parts.append(f"G = {group_size}\n{report.text_table(headers, lines, align)}")
    return "\n\n".join(parts)


def long_table(rows: Sequence[dict[str, Any]]) -> str:
    """Every row, as it stands in table.csv."""
    headers = ("world", "ICC", "G", "estimator", "S", "ratio", "simulated", "model-free", "verdict")
    lines = [
        (
            r["world"],
            report.number(r["icc"]),
            str(r["group_size"]),
            r["estimator"],
            report.number(r["shrinkage"]),
            *_three(r),
            r["verdict"] or "-",
        )
        for r in rows
    ]
    return report.text_table(
        headers, lines, ("left", "right", "right", "left", "right", "right", "right", "right", "left")
    )


def _three(row: dict[str, Any]) -> tuple[str, str, str]:
    return (
        report.number(row["ratio_exact"]),
        report.with_error(row["ratio_mc"], row["ratio_mc_se"]),
        report.with_error(row["ratio_split"], row["ratio_split_se"]),
    )


def _order(icc: float | None) -> float:
    return 2.0 if icc is None else icc


CURVES = ("rloo", "james_stein", "ebpo", "ebpo_within", "ebpo_beta_binomial", "ebpo_debiased", "global_mean")
POINTS = (labels.SUBJECT, "ebpo_nonparametric")  # as simulated
SAME = {"ebpo": " = ebpo_released", "ebpo_debiased": " = oracle_linear"}  # in the limit
APART = {"rloo": "tab:gray"}  # beside the group mean at 1, in the colour of a reference


def plot(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error ratio against intra-class correlation, a panel for each G; the last panel is the key."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(row["group_size"] for row in rows))
    columns = min(3, len(sizes) + 1)
    height = -(-(len(sizes) + 1) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.4 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    number = {
        w: i + 1 for i, w in enumerate(dict.fromkeys(r["world"] for r in sorted(rows, key=lambda r: _order(r["icc"]))))
    }
    for panel, group_size in zip(panels, sizes, strict=False):
        _panel(panel, group_size, [r for r in rows if r["group_size"] == group_size], number)
    for panel in panels[len(sizes) :]:
        panel.axis("off")
    handles, texts = panels[0].get_legend_handles_labels()
    key = panels[len(sizes)]
    key.legend(handles, texts, loc="upper left", frameon=False, fontsize=8.5)
    lines = [f"{i:>2}  {w}" for w, i in number.items()]
    if any("LiveCodeBench" in w for w in number):
        lines.append("    (LiveCodeBench: T = 0.2, colder than RL training)")
    key.text(0.02, 0.0, "\n".join(lines), transform=key.transAxes, va="bottom", fontsize=6.5, family="monospace")
    figure.suptitle("Baseline error relative to GRPO's group mean (below 1: better)")
    return figure


def _panel(axis: Axes, group_size: int, rows: Sequence[dict[str, Any]], number: dict[str, int]) -> None:
    grid = np.sin(np.linspace(0.06, np.pi / 2 - 0.06, 41)) ** 2  # denser at both ends, where the curves are steep
    shown = {r["estimator"] for r in rows}
    for name in CURVES:
        if name in shown:
            curve = [_linear_ratio(name, icc, group_size) for icc in grid]
            colour = APART.get(name, labels.label(name).colour)
            axis.plot(grid, curve, color=colour, lw=1.6, label=name + SAME.get(name, ""))
    for name in POINTS:
        look = labels.label(name)
        points = [r for r in rows if r["estimator"] == name and None not in (r["icc"], r["ratio_mc"])]
        if points:
            axis.errorbar(
                [r["icc"] for r in points], [r["ratio_mc"] for r in points], [2 * r["ratio_mc_se"] for r in points],
                fmt=look.marker, color=look.colour, ms=4, lw=1, label=f"{name}, simulated (2 se)",
            )  # fmt: skip
        if name == labels.SUBJECT:
            for i, r in enumerate(sorted(points, key=lambda r: r["icc"])):
                axis.annotate(
                    str(number[r["world"]]), (r["icc"], r["ratio_mc"]), fontsize=7,
                    textcoords="offset points", xytext=(-4, 5) if i % 2 else (3, -9),
                )  # fmt: skip
    critical = formulas.critical_icc(group_size)
    axis.axvline(critical, color="black", ls=":", lw=1)
    axis.axhline(1.0, color="black", lw=0.8)
    axis.annotate(f"ρ* = {critical:.3f}", (critical, 0.21), fontsize=9, ha="right", rotation=90, va="bottom")
    axis.set(yscale="log", ylim=(0.2, 6), xlim=(0, 1), title=f"G = {group_size}")
    axis.set_yticks([0.25, 0.5, 1, 2, 4], labels=["0.25", "0.5", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_xlabel("intra-class correlation of rewards")
    axis.set_ylabel("error / error of the group mean")


def _linear_ratio(name: str, icc: float, group_size: int) -> float:
    """A linear rule's ratio depends on the prior only through icc, so a two-point world of mean 1/2 gives the curve."""
    half = np.sqrt(icc) / 2
    world = Points("curve", Prior((0.5 - half, 0.5 + half), (0.5, 0.5)))
    return limit_risk(make(name), world, group_size).mse / (world.prior.within / group_size)


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The overview when EBPO and its repair are among several estimators, every row otherwise; then the notes."""
    whole = set(PAIR) <= set(settings.estimators) and len(settings.estimators) > 3
    return "\n".join([overview(rows) if whole else long_table(rows), *notes(settings, summary)])


def notes(settings: Settings, summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know: what the numbers are, whether they agree, where the data are from."""
    lines = [
        "",
        "Error E (baseline - p)^2 relative to the group mean's: exact long-run value; simulated over "
        f"{settings.design.replicates} streams; model-free split of real rollouts; ± one standard error.",
    ]
    checked = summary["agreement"]
    if checked["comparisons"]:
        lines.append(
            f"Exact against simulated: largest |z| {checked['max_abs_z']:.2f} of {checked['comparisons']}, "
            f"limit {checked['limit']:.2f} at a family-wise false-fail rate of {FAMILY_WISE:g}: "
            f"{'agree' if checked['passes'] else 'DISAGREE'}."
        )
    observed = [w.partition(":")[2] for w in settings.worlds if w.startswith("observed:")]
    lines += [f"Source of {source}." for source in dict.fromkeys(map(observed_source, observed))]
    return lines


STUDY = Study(
    "mse_study", __doc__ or "", SETTINGS, QUICK, costs.mse, simulate, score, show, lambda rows: {FIGURE: plot(rows)}
)


def main(argv: Sequence[str]) -> None:
    run(STUDY, argv)


if __name__ == "__main__":
    cli.run(main)
