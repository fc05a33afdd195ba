"""What is said of published recipes in training, decided from a committed run of the methods study (`recipes.csv`: off-
policy training on skill chains, 8 paired seeds, G = 8, two starts, each method at its own best rate)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ebpo_sim.claims.base import Case, Context, Finding, claim

TABLE = Path(__file__).with_name("recipes.csv")
REGIMES = ("plateau", "balanced", "noisy")
PLACEBO = "grpo, random reward"


def lines() -> list[dict[str, str]]:
    """The committed lines."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@claim(
    "J15",
    "premise of published recipes, most of which change it",
    "Of a method's parts the objective matters most",
    "skill chains, Adam, 4 mini-batches a batch; shares of variance of log rollouts to a target, 18 crossed arms",
    "Not here: where steps are noisy selection explains more, by over five standard errors. "
    "Shares are of these levels.",
    tuple((regime, "fails") for regime in REGIMES),
)
def objective_first(context: Context) -> list[Finding]:
    """J15: the objective's share less each other part's, with the bootstrap's standard error."""
    found = []
    for regime in REGIMES:
        cases = [
            Case(f"methods_study --regime {regime}: share of objective less that of {r['name']}", float(r["value"]),
                 x=float(r["noise_ratio"]), se=float(r["se"]))
            for r in lines() if r["regime"] == regime and r["quantity"] == "objective's share less"
        ]  # fmt: skip
        found.append(Finding(regime, cases, "", "least difference of shares", min(case.effect for case in cases)))
    return found


@claim(
    "J16",
    "Spurious Rewards (arXiv 2506.10947)",
    "Rewards in random order raise pass@1",
    "skill chains, Adam, 4 mini-batches a batch, GRPO with clip 0.2; held-out pass@1, start to end, rate of the grid "
    "that suits it best",
    "They do not train here, whatever the clip does: chains are not a pretrained model with a habit to strengthen.",
    tuple((regime, "fails") for regime in REGIMES),
)
def random_reward(context: Context) -> list[Finding]:
    """J16: gain of pass@1 of GRPO with its rewards in random order, with its standard error."""
    found = []
    for regime in REGIMES:
        cases = [
            Case(f"methods_study --world {r['world']} --regime {regime}: gains of {PLACEBO}", float(r["value"]),
                 x=float(r["noise_ratio"]), se=float(r["se"]))
            for r in lines() if (r["regime"], r["name"]) == (regime, PLACEBO)
        ]  # fmt: skip
        mean = float(np.mean([case.effect for case in cases]))
        found.append(Finding(regime, cases, "", "mean gain of pass@1", mean))
    return found
