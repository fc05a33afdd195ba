"""Does an estimator keep the policy's entropy? One exact step, the same simulated, and long runs.

EBPO's Proposition 3.6 says its expected entropy loss per step is strictly below GRPO's. Three comparisons:
the loss at one shared learning rate; the loss per unit of expected reward gained, which a learning rate
cannot change; and Adam, which removes a global scale. Policies are softmax over 20 arms, one of them right.
Long runs train tabular policies and compare the entropy left when the mean reward reaches the same level.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ebpo_sim import report
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.sampled_updates import Path, entropy_at_reward, one_step_changes, train
from ebpo_sim.counts.streams import Design, Mean, mean_with_error, paired_ratio
from ebpo_sim.counts.updates import rates
from ebpo_sim.estimators import Estimator
from ebpo_sim.labels import REFERENCE, SUBJECT
from ebpo_sim.methods.selected import counted, is_oracle
from ebpo_sim.plots import Figure, curve, known, panels, points
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, run, z_scores
from ebpo_sim.worlds import World, intra_class_correlation, parse_world, quantiles

ARMS = 20
EDGE = 0.005  # starting success probabilities are kept this far from 0 and 1, where no softmax policy can be
DEGREE = 516  # of the quadrature behind the quantiles
LONG = {"arms": 10, "prompts": 128, "steps": 160, "replicates": 8}
RUNS = (("sgd", 0.5), ("adam", 0.03))  # one shared learning rate each; compared at equal reward
LEVELS = (0.25, 0.5, 0.75)  # of the way from the first mean reward to 1

SETTINGS = Settings(
    worlds=(
        "beta:5,5",
        "beta:0.5,0.7",
        "beta:0.1,0.1",
        "observed:Qwen2.5-7B",
        "observed:Qwen2.5-Math-1.5B-Instruct/MATH",
        "observed:GPT-4-0613/LiveCodeBench",
    ),
    group_sizes=(2, 4, 8, 32),
    estimators=("grpo", "dr_grpo", "grpo_batch_norm", "ebpo", "ebpo_released", "ebpo_debiased"),
    design=Design(prompts=4096, steps=3, burn_in=1, replicates=16),
)
QUICK = Settings(
    worlds=("beta:0.5,0.7", "observed:Qwen2.5-7B"),
    group_sizes=(2, 8),
    estimators=("grpo", "dr_grpo", "ebpo", "ebpo_debiased"),
    design=Design(prompts=2048, steps=2, burn_in=1, replicates=8),
)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """One-step rows (part "step") for every cell and optimiser, then long-run rows (part "run") at equal reward."""
    for name in settings.estimators:
        is_oracle(name)
    worlds = [(text, parse_world(text)) for text in settings.worlds]
    rows: Rows = []
    with report.progress(len(worlds) * (len(settings.group_sizes) + 1), "entropy_study") as bar:
        for text, world in worlds:
            for group_size in settings.group_sizes:
                rows += _one_step(text, world, group_size, settings)
                bar.update()
            rows += _long_runs(text, world, min(settings.group_sizes, key=lambda g: abs(g - 4)), settings)
            bar.update()
    return rows


def _estimators(settings: Settings, world: World, group_size: int) -> list[Estimator]:
    prior = rule(world, group_size)
    names = dict.fromkeys((REFERENCE, *settings.estimators))
    return [counted(n, prior) for n in names]


def _row(text: str, world: World, group_size: int, name: str, part: str, optimiser: str) -> dict[str, Any]:
    missing = ("reward_exact", "entropy_exact", "loss_ratio_exact", "loss_ratio_mc", "loss_ratio_mc_se",
               "per_reward_exact", "per_reward_mc", "per_reward_mc_se", "at_reward", "entropy_left", "entropy_left_se",
               "difference", "difference_se")  # fmt: skip
    icc = intra_class_correlation(world)
    start = {"part": part, "world": text, "icc": None if np.isnan(icc) else icc, "group_size": group_size}
    return {**start, "estimator": name, "optimiser": optimiser, **dict.fromkeys(missing)}


def _one_step(text: str, world: World, group_size: int, settings: Settings) -> Rows:
    estimators = _estimators(settings, world, group_size)
    sampled = one_step_changes(world, group_size, estimators, ARMS, settings.design)
    rows = []
    for optimiser in ("natural", "vanilla", "adam"):
        reference = rates(estimators[0], world, group_size, ARMS, optimiser)
        for i, estimator in enumerate(estimators):
            exact = rates(estimator, world, group_size, ARMS, optimiser)
            row = _row(text, world, group_size, estimator.name, "step", optimiser)
            row |= {"reward_exact": exact.reward, "entropy_exact": exact.entropy}
            row["loss_ratio_exact"] = _ratio(exact.entropy, reference.entropy)
            if row["loss_ratio_exact"] is not None and exact.reward > 0 and reference.reward > 0:
                row["per_reward_exact"] = row["loss_ratio_exact"] / (exact.reward / reference.reward)
            if optimiser in sampled and row["loss_ratio_exact"] is not None:
                (gain, change), (gain_0, change_0) = sampled[optimiser][i], sampled[optimiser][0]
                loss, per_reward = paired_ratio(change, change_0), double_ratio(change, change_0, gain, gain_0)
                row |= loss.columns("loss_ratio_mc") | per_reward.columns("per_reward_mc")
            rows.append(row)
    return rows


def _ratio(a: float, b: float) -> float | None:
    return None if b == 0 else a / b


def double_ratio(a: Any, b: Any, c: Any, d: Any) -> Mean:
    """(mean a / mean b) / (mean c / mean d) over paired replicates, delta method on the logarithm."""
    if min(abs(x.mean()) for x in (a, b, c, d)) == 0:
        return Mean(float("nan"), float("nan"))  # no group was mixed: nothing moved
    value = (a.mean() / b.mean()) / (c.mean() / d.mean())
    influence = a / a.mean() - b / b.mean() - c / c.mean() + d / d.mean()
    return Mean(float(value), float(abs(value) * np.std(influence, ddof=1) / np.sqrt(len(a))))


def _long_runs(text: str, world: World, group_size: int, settings: Settings) -> Rows:
    """Entropy left at equal mean reward; difference to the reference, paired by seed."""
    start_p = quantiles(world, LONG["prompts"], EDGE, DEGREE)
    rows: Rows = []
    for optimiser, learning_rate in RUNS:
        paths: dict[str, Path] = {}
        for estimator in _estimators(settings, world, group_size):
            paths[estimator.name] = train(
                estimator, start_p, group_size=group_size, arms=LONG["arms"], optimiser=optimiser,
                steps=LONG["steps"], learning_rate=learning_rate,
                replicates=LONG["replicates"], seed=settings.design.seed,
            )  # fmt: skip
        first = float(np.mean(start_p))
        for name, path in paths.items():
            for level in LEVELS:
                reward = first + level * (1 - first)
                left, reference = entropy_at_reward(path, reward), entropy_at_reward(paths[REFERENCE], reward)
                row = _row(text, world, group_size, name, "run", optimiser) | {"at_reward": reward}
                if not np.any(np.isnan(left) | np.isnan(reference)):
                    row |= mean_with_error(left).columns("entropy_left")
                    row |= mean_with_error(left - reference).columns("difference")
                rows.append(row)
    return rows


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """How often the entropy loss at a shared learning rate is below the reference's, and the joint agreement test."""
    steps = [r for r in rows if r["part"] == "step" and r["estimator"] == SUBJECT and r["loss_ratio_exact"] is not None]
    z = [x for what in ("loss_ratio", "per_reward") for x in z_scores(rows, f"{what}_mc", f"{what}_exact")]
    found: dict[str, Any] = {"comparisons": len(z), "max_abs_z": max(map(abs, z), default=None)}
    for optimiser in ("natural", "vanilla", "adam"):
        mine = [r for r in steps if r["optimiser"] == optimiser]
        found[f"ebpo_{optimiser}"] = {
            "cells": len(mine),
            "loses_less_entropy": sum(r["loss_ratio_exact"] < 1 for r in mine),
            "loses_less_per_reward": sum((r["per_reward_exact"] or np.inf) < 1 for r in mine),
        }
    return found


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """Entropy loss relative to GRPO's for each cell, and the entropy left in the long runs."""
    return f"{_step_table(rows)}\n\n{_run_table(rows)}\n{conclusion(rows)}"


def conclusion(rows: Rows) -> str:
    """In how many cells each rule loses more entropy than GRPO, at one rate and per reward; and in long runs."""
    parts = []
    for name in dict.fromkeys(r["estimator"] for r in rows if r["estimator"] != REFERENCE):
        mine = [r for r in rows if r["estimator"] == name]
        rate, reward = (
            [r[what] > 1 for r in mine if r["part"] == "step" and r["optimiser"] == "natural" and r[what] is not None]
            for what in ("loss_ratio_exact", "per_reward_exact")
        )
        runs = [r["difference"] / r["difference_se"] for r in mine if r["part"] == "run" and r["difference_se"]]
        left = f"{sum(z > 2 for z in runs)} more and {sum(z < -2 for z in runs)} less of {len(runs)}"
        parts.append(f"{name} {sum(rate)} of {len(rate)}, {sum(reward)} of {len(reward)}, {left}")
    what = f"loses more entropy than {REFERENCE} in a step, per reward; has more or less left after runs (by 2 se)"
    return f"Conclusion ({what}): {'; '.join(parts) or 'nothing to compare'}."


def _step_table(rows: Rows) -> str:
    steps = [r for r in rows if r["part"] == "step" and r["estimator"] != REFERENCE]
    adam = {(r["world"], r["group_size"], r["estimator"]): r for r in steps if r["optimiser"] == "adam"}
    natural = [
        {**r, "adam": adam[r["world"], r["group_size"], r["estimator"]]} for r in steps if r["optimiser"] == "natural"
    ]
    columns: report.Columns = (
        "world", ("G", "group_size"), "estimator", ("same rate", "loss_ratio_exact"),
        ("simulated", "±loss_ratio_mc"), ("per reward", "per_reward_exact"), ("simulated", "±per_reward_mc"),
        ("Adam", lambda r: report.number(r["adam"]["loss_ratio_exact"])),
        ("per reward", lambda r: report.number(r["adam"]["per_reward_exact"])),
    )  # fmt: skip
    title = (
        "Expected entropy loss of one step relative to GRPO's (above 1: loses more); natural gradient, 20 arms; Adam"
    )
    return f"{title}\n{report.columns_table(natural, columns)}"


def _run_table(rows: Rows) -> str:
    found = [r for r in rows if r["part"] == "run" and r["estimator"] != REFERENCE and r["entropy_left"] is not None]
    columns: report.Columns = (
        "world", "optimiser", "estimator", ("at mean reward", "at_reward"),
        ("entropy left, nats", "±entropy_left"), ("difference to grpo", "±difference"),
    )  # fmt: skip
    title = f"Long runs, {LONG['prompts']} prompts, {LONG['arms']} arms: entropy when the mean reward is the same"
    return f"{title}\n{report.columns_table(found, columns)}"


def plot(rows: Rows) -> dict[str, Figure]:
    """Loss ratio against G by world: at a shared learning rate, per reward, and under Adam."""
    figure, axes = panels(14, 4.6, 3)
    views = (
        ("natural", "loss_ratio", "entropy loss / GRPO's, one learning rate"),
        ("natural", "per_reward", "entropy loss per reward gained / GRPO's"),
        ("adam", "loss_ratio", "entropy loss / GRPO's, Adam (per logit)"),
    )
    named = [r["estimator"] for r in rows if r["estimator"] != REFERENCE]
    shown = SUBJECT if SUBJECT in named or not named else named[0]
    step = [r for r in rows if r["part"] == "step" and r["estimator"] == (shown if named else REFERENCE)]
    for panel, (optimiser, what, title) in zip(axes, views, strict=True):
        for world in dict.fromkeys(r["world"] for r in step):
            mine = known((r for r in step if (r["world"], r["optimiser"]) == (world, optimiser)), f"{what}_exact")
            line = curve(panel, mine, "group_size", f"{what}_exact", label=world)
            points(panel, mine, "group_size", f"{what}_mc", fmt="o", ms=4, color=line.get_color())
        panel.axhline(1, color="black", lw=0.8)
        panel.set(xscale="log", xlabel="group size G", title=title)
        panel.set_xticks(sorted({r["group_size"] for r in step}), labels=sorted({r["group_size"] for r in step}))
        panel.minorticks_off()
    axes[0].set_ylabel(f"{step[0]['estimator']}; points: simulated, 2 se" if step else "")
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8, frameon=False)
    return {"entropy.png": figure}


STUDY = Study(
    "entropy_study",
    __doc__ or "",
    SETTINGS,
    QUICK,
    lambda s, t: costs.entropy(s, ARMS, costs.Long(**LONG, optimisers=len(RUNS))),
    simulate,
    score,
    show,
    plot,
)
main = partial(run, STUDY)
