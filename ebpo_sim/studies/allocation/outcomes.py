"""Runs to a target with memories that know the start, and ratios of what it cost, method / GRPO with shuffled epochs,
paired by seed and corrected by Holm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ebpo_sim import cache
from ebpo_sim.chains.noise import warmed
from ebpo_sim.chains.population import SkillChain
from ebpo_sim.chains.rung import State, TrainingConfig, start
from ebpo_sim.compare.differences import Difference, holm, mean_of
from ebpo_sim.compare.plan import Job
from ebpo_sim.compare.verdicts import in_regime, judge
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.prediction.cells import REGIMES, TARGETS, Cell, Ladder
from ebpo_sim.studies.prediction.outcomes import COSTS, MARGIN, Found, log_ratios, spent

Rows = list[dict[str, Any]]
CURRENCIES = ("step", "rollouts", "rows", *COSTS)
QUANTITIES = {name: f"ratio of {'steps' if name == 'step' else name}" for name in CURRENCIES}


@dataclass(frozen=True)
class Warm(Ladder):
    """The ladder's runs, an allocation's memory having seen `epochs` times as many rollouts of the starting policy as
    the population has prompts of a group: what a run of many epochs knows, where these are over within a few. They are
    neither trained on nor counted."""

    epochs: int = 0

    def key(self, job: Job) -> str:
        return cache.key(__name__, super().key(job), self.epochs)

    def begin(self, people: SkillChain, run: TrainingConfig) -> State:
        state, batches = start(people, run), -(-self.epochs * len(people.prompts.length_P) // run.prompts)
        return state._replace(method=warmed(people, run, people.start_SK, batches))


def row(estimator: str, quantity: str, value: float | None, **more: Any) -> dict[str, Any]:
    """A row of the table: part A's and part B's."""
    columns = ("part", "world", "regime", "group_size", "target", "rollouts")
    numbers = ("low", "high", "se", "seeds", "p_holm", "verdict")
    empty = dict.fromkeys(columns) | {"estimator": estimator, "quantity": quantity, "value": value}
    return empty | dict.fromkeys(numbers) | more


def training_rows(found: Found, seeds: int) -> Rows:
    """Each ratio with its interval; None where a seed of either missed the target. Holm's family: all methods, worlds,
    regimes and group sizes of one currency and target; "appears" means cheaper, and below nu/N = 1 no tie is called."""
    rows: Rows = []
    for (arm, cell, _), mine in found.items():
        place = {"part": "training", **_place(cell)}
        verdict = "edge of the grid" if mine.edge else None
        rows.append(row(arm, "learning rate", mine.rate, **place, verdict=verdict))
        for target in TARGETS:
            costs, other = spent(mine, target), spent(found[REFERENCE, cell, "own"], target)
            steps = mean_of(x["step"] for x in costs.values()) if costs else None
            there = {"seeds": len(costs)} | ({"se": steps.se, "low": steps.low, "high": steps.high} if steps else {})
            rows.append(row(arm, "steps", steps and steps.value, **place, target=target, **there))
            whole = len(costs) == len(other) == seeds
            for name, quantity in QUANTITIES.items() if arm != REFERENCE else ():
                ratio = mean_of(log_ratios(costs, other, name)) if whole else None
                rows.append(_ratio_row(arm, quantity, ratio, **place, target=target, seeds=len(costs)))
    for target in TARGETS:
        for quantity in QUANTITIES.values():
            family = [r for r in rows if (r["target"], r["quantity"]) == (target, quantity)]
            known = [r for r in family if r["found"] is not None]
            corrected = holm([r["found"].p for r in known] + [1.0] * (len(family) - len(known)))
            for r, p in zip(known, corrected, strict=False):
                word = judge(r["found"], -1, MARGIN, p)
                r |= {"p_holm": p, "verdict": in_regime(word, REGIMES[r["regime"]].ratio)}
    return [{k: v for k, v in r.items() if k != "found"} for r in rows]


def _place(cell: Cell) -> dict[str, Any]:
    return {"world": cell.world, "regime": cell.regime, "group_size": cell.group_size, "rollouts": cell.rollouts}


def _ratio_row(arm: str, quantity: str, found: Difference | None, **more: Any) -> dict[str, Any]:
    """se: of the logarithm. found: to be judged."""
    if found is None:
        return row(arm, quantity, None, **more, verdict="not studied", found=None)
    ends = {k: None if v is None else math.exp(v) for k, v in (("low", found.low), ("high", found.high))}
    return row(arm, quantity, math.exp(found.value), **more, **ends, se=found.se, found=found)
