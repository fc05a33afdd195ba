"""The mse study's table: exact, simulated and model-free errors of every baseline, side by side."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ebpo_sim import labels, report
from ebpo_sim.counts.exact import LimitRisk, limit_risk, rule
from ebpo_sim.counts.noise import gradient_noise
from ebpo_sim.counts.splits import SplitRatio, split_ratio
from ebpo_sim.counts.streams import mean_with_error, paired_ratio, simulate_errors
from ebpo_sim.counts.updates import raw_table
from ebpo_sim.estimators import Estimator
from ebpo_sim.methods.selected import counted, is_oracle
from ebpo_sim.studies.base import Rows, Settings
from ebpo_sim.worlds import Counts, World, intra_class_correlation, ratio_world, variance_components, world_counts


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """The long table: one row for each world, group size and estimator (see README for the columns)."""
    worlds = [(text, ratio_world(text)) for text in settings.worlds]
    for name in settings.estimators:
        is_oracle(name)  # refuses unknown names before any work
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
    estimators = [counted(name, prior) for name in (labels.REFERENCE, *settings.estimators)]
    scored = [e for e in estimators if e.baseline is not None]
    errors = [e.mean(axis=1) for e in simulate_errors(world, group_size, scored, settings.design, threads, advance)]
    counts = world_counts(text)
    icc = intra_class_correlation(world)
    reference = limit_risk(estimators[0], world, group_size)
    rows = []
    fine = rule(world, max(group_size, 32))
    plain_noise = gradient_noise(raw_table(estimators[0], world, group_size), fine)
    known: dict[Hashable, tuple[LimitRisk, SplitRatio | None, float]] = {}
    found = iter(errors[1:])
    for estimator in estimators[1:]:
        if estimator.baseline is None:  # no baseline, so no error of one: the row says so
            rows.append(_row(text, icc, counts, group_size, estimator))
            advance()
            continue
        error_R = next(found)
        if estimator.learns not in known:
            split = None if counts is None else split_ratio(estimator, counts, group_size)
            noise = gradient_noise(raw_table(estimator, world, group_size), fine)
            known[estimator.learns] = limit_risk(estimator, world, group_size), split, noise / plain_noise
        limit, split, noise_ratio = known[estimator.learns]
        if counts is not None and limit.shrinkage is None and max(counts.rollouts) <= group_size:
            # n rollouts a prompt determine n moments of p: enough for a line, but the error of a curve in k = 0..G
            # would rest on the shape of the deconvolution alone.
            rows.append(_row(text, icc, counts, group_size, estimator))
            continue
        ratio_exact = limit.mse / reference.mse if reference.mse > 0 else None
        rows.append(
            _row(text, icc, counts, group_size, estimator)
            | {
                "shrinkage": limit.shrinkage,
                "mse_exact": limit.mse,
                **mean_with_error(error_R).columns("mse_mc"),
                "ratio_exact": ratio_exact,
                **paired_ratio(error_R, errors[0]).columns("ratio_mc"),
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


def verdict(ratio: float | None) -> str:
    """Against the group mean in the long run: "wins" below 1, "loses" above, "ties" within 1e-9."""
    if ratio is None or abs(ratio - 1) < 1e-9:
        return "ties"
    return "wins" if ratio < 1 else "loses"
