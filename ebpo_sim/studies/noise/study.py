"""How much does a batch of rollouts know about the direction of the gradient, and at what cost?

For every world, group size, method and score model, exactly: nu, the gradient noise scale in rollouts for each prompt
of a population that shares nothing and is all in every batch (nu_drawn: of which a batch draws few), relative to
GRPO's at equal rollouts (also simulated), and nu_ratio_same_rows with rows skipped without bias down to GRPO's share;
cosine of the expected and the true gradient; share of silent groups; share of rollouts with an advantage; change of
entropy per unit of reward (nats; SGD on 8 softmax arms). Beside the estimators stand the best functions of the other
rollouts' successes (`table`, `score_table`, `best_table`, `constant`). Score models: equal (many right answers, all
scores equally long), one_logit, softmax (one right of 8 arms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import report
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.noise import ARMS, MODELS, Model, Weights, leave_one_out, noise
from ebpo_sim.counts.sampled_noise import sampled_noise, scale_ratio
from ebpo_sim.counts.streams import Design, Mean
from ebpo_sim.counts.updates import limit_advantages, table_rates
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.selected import counted, is_oracle
from ebpo_sim.plots import Figure, curve, panels
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, agreement, agreement_text, run
from ebpo_sim.worlds import World, intra_class_correlation, parse_world

TABLES: dict[str, Weights] = {"table": "none", "score_table": "score", "best_table": "best", "constant": "constant"}
SETTINGS = Settings(
    worlds=("beta:0.5,0.7", "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH"),
    group_sizes=(2, 4, 8),
    estimators=("rloo", "dr_grpo", "ebpo", "ebpo_debiased", "global_mean"),
    design=Design(prompts=4096, steps=1, burn_in=0, replicates=32),
)
QUICK = replace(SETTINGS, worlds=SETTINGS.worlds[1:2], group_sizes=(2, 8))


def advantages(name: str, world: World, group_size: int, model: Model) -> NDArray[np.float64]:
    """A[k, r] in the long run, of a method or of one of TABLES."""
    prior = rule(world, max(group_size, 32))
    if name in TABLES:
        return leave_one_out(prior, group_size, model, TABLES[name])
    return limit_advantages(counted(name, rule(world, group_size)), world, group_size)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """One row for each world, group size, score model and method."""
    for name in settings.estimators:
        is_oracle(name)  # refuses unknown names before any work
    rows: Rows = []
    with report.progress(len(settings.worlds) * len(settings.group_sizes), "noise_study") as bar:
        for text in settings.worlds:
            for group_size in settings.group_sizes:
                for scores in MODELS:
                    rows += _cell(text, group_size, scores, settings)
                bar.update()
    return rows


def _cell(text: str, group_size: int, scores: str, settings: Settings) -> Rows:
    world, model, plan = parse_world(text), MODELS[scores], settings.design
    kept = [name for name in TABLES if group_size > 1 or name == "constant"]
    names = dict.fromkeys((REFERENCE, *settings.estimators, *kept))
    tables = [advantages(name, world, group_size, model) for name in names]
    sampled = sampled_noise(world, tables, model, plan.prompts, plan.replicates, plan.seed)
    prior = rule(world, max(group_size, 32))
    found = [noise(table, prior, model) for table in tables]
    rows = []
    for name, table, mine, drawn in zip(names, tables, found, sampled, strict=True):
        rates = table_rates(table, world, ARMS, "vanilla")
        same = name == REFERENCE  # compared with itself nothing is simulated
        few = noise(table, prior, model, found[0].rows) if found[0].rows > 0 else mine
        rows.append({
            "world": text, "icc": report.exists(intra_class_correlation(world)), "group_size": group_size,
            "scores": scores, "estimator": name, "nu": report.exists(mine.nu), "nu_drawn": report.exists(mine.nu_drawn),
            "nu_ratio": report.exists(mine.nu / found[0].nu),
            "nu_ratio_same_rows": report.exists(few.nu / found[0].nu),
            **(Mean(np.nan, np.nan) if same else scale_ratio(drawn, sampled[0])).columns("nu_ratio_mc"),
            "cosine": report.exists(mine.cosine), "silent": mine.silent, "rows": mine.rows,
            "entropy_per_reward": rates.entropy / rates.reward if rates.reward != 0 else None,
        })  # fmt: skip
    return rows


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """The joint agreement of exact and simulated noise scales."""
    known = [r for r in rows if r["nu_ratio_mc"] is not None]
    return {"agreement": agreement(known, "nu_ratio_mc", "nu_ratio", settings.design.replicates)}


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The table, and whether the simulation agrees."""
    columns: report.Columns = (
        "world", ("G", "group_size"), "scores", "estimator", "nu", ("/ grpo's", "nu_ratio"),
        ("simulated", "±nu_ratio_mc"), "cosine", "silent", "rows", ("entropy / reward", "entropy_per_reward"),
    )  # fmt: skip
    title = "Gradient noise scale in rollouts per prompt (lower: fewer rollouts to a step as good)"
    table = report.columns_table(rows, columns, ("rows", "simulated", "cosine", "entropy / reward"))
    return "\n".join((title, table, *agreement_text("Exact", summary["agreement"]), conclusion(rows)))


def conclusion(rows: Rows) -> str:
    """The least and the most noise beside GRPO's, geometric means over all cells."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["estimator"] != REFERENCE and row["nu_ratio"]:
            ratios.setdefault(row["estimator"], []).append(row["nu_ratio"])
    if not ratios:
        return f"Conclusion: only {REFERENCE} has a noise scale here."
    means = {name: float(np.exp(np.mean(np.log(found)))) for name, found in ratios.items()}
    order = sorted(means, key=means.__getitem__)
    listed = ", ".join(f"{name} {means[name]:.3g}" for name in order)
    return (
        f"Conclusion: rollouts for a step as good as {REFERENCE}'s, geometric mean over cells, fewest first: {listed}."
    )


def plot(rows: Rows) -> dict[str, Figure]:
    """Noise scale relative to GRPO's against G, a panel a score model, the first world."""
    figure, axes = panels(5 * len(MODELS), 4.4, len(MODELS))
    first = [r for r in rows if r["world"] == rows[0]["world"]]
    for panel, scores in zip(axes, MODELS, strict=True):
        for name in dict.fromkeys(r["estimator"] for r in first):
            mine = (r for r in first if r["scores"] == scores and r["estimator"] == name)
            curve(panel, mine, "group_size", "nu_ratio", marker="o", label=name)
        panel.axhline(1, color="black", lw=0.8)
        panel.set(xlabel="group size G", title=f"{scores} scores, {rows[0]['world']}")
    axes[0].set_ylabel("gradient noise scale / GRPO's")
    axes[0].legend(fontsize=8, frameon=False)
    return {"noise.png": figure}


STUDY = Study(
    "noise_study", __doc__ or "", SETTINGS, QUICK, costs.mse, simulate, score, show, plot
)  # fmt: skip
main = partial(run, STUDY)
