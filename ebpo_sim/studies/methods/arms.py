"""The study's arms: recipes that stand on the chains, arms of a crossed design, and what each consists of.

The design is Taguchi's L18, balanced: every level of a part meets every level of every other equally often, so what a
part does is not mixed up with what it usually comes with. Interactions of two parts are not told apart from others.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import TrainingConfig, build_method
from ebpo_sim.errors import InputError
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.method import PLUS, spelt
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.shaping import SHAPINGS
from ebpo_sim.objectives import AGGREGATIONS
from ebpo_sim.sampling import ALLOCATIONS, SELECTIONS
from ebpo_sim.studies.methods.cells import PLACEBO, Settings

PARTS = ("allocation", "selection", "estimator", "objective", "aggregation")
DEFAULTS = {"allocation": "shuffled", "selection": "everything", "objective": "clip", "aggregation": "token_mean"}
LEVELS = {  # of the design: levels that recipes have; the first of each is GRPO's
    "objective": ("clip", "cispo", "gspo", "sapo", "gmpo", "dppo"),
    "estimator": ("grpo", "dr_grpo", "raft"),
    "selection": ("everything", "dynamic", "max_variance"),
    "aggregation": ("token_mean", "sequence_mean", "sequence_sum"),
    "allocation": ("shuffled", "variance_aware", "shuffled"),
}
PLAIN = "grpo + clip + token_mean"  # what a bare grpo is here
L18 = (  # runs x columns of the levels above; the first has six levels
    "00000", "01111", "02222", "10011", "11122", "12200", "20102", "21210", "22021",
    "30221", "31002", "32110", "40120", "41201", "42012", "50212", "51020", "52101",
)  # fmt: skip


class Left(NamedTuple):
    """A recipe that is left out, and why."""

    recipe: str
    reason: str


def standing(names: Iterable[str] = RECIPES) -> tuple[tuple[str, ...], list[Left]]:
    """(recipes that stand on the chains, those that do not with what they need)."""
    found, left = list[str](), list[Left]()
    population = parse_population("chain", 4, 0, 4)
    for name in names:
        try:
            build_method(population, TrainingConfig(estimator=name))
            found.append(name)
        except InputError as error:
            left.append(Left(name, str(error)))
    return tuple(found), left


@cache
def design() -> tuple[str, ...]:
    """The crossed design as texts."""
    columns = ("objective", "estimator", "selection", "aggregation", "allocation")
    found = []
    for line in L18:
        chosen = {name: LEVELS[name][int(i)] for name, i in zip(columns, line, strict=True)}
        named = ("allocation", "selection", "objective", "aggregation")
        default = ("shuffled", "everything")
        text = PLUS.join([chosen["estimator"], *(chosen[n] for n in named if chosen[n] not in default)])
        found.append(REFERENCE if text == PLAIN else text)
    return tuple(found)


def kind(arm: str) -> str:
    """What an arm is here for."""
    if arm in (REFERENCE, PLACEBO):
        return "reference" if arm == REFERENCE else "placebo"
    return "recipe" if arm in RECIPES else "design" if arm in design() else "method"


def arms(settings: Settings) -> tuple[str, ...]:
    """GRPO, the methods, the placebo and, where it is asked for, the design."""
    return (REFERENCE, *settings.methods, PLACEBO, *(design() if settings.design else ()))


def parts(arm: str) -> dict[str, str]:
    """What a method consists of, as texts: its parts by kind, with their settings. Penalties on long answers are left
    out; a bare estimator has the chains' own clip and token mean."""
    rule, *rest = (text.strip() for text in spelt(arm).split(PLUS))
    kinds: tuple[tuple[str, Any], ...] = (
        ("allocation", ALLOCATIONS), ("selection", SELECTIONS), ("aggregation", AGGREGATIONS), ("", SHAPINGS),
    )  # fmt: skip
    found, objectives = {**DEFAULTS, "estimator": rule}, list[str]()
    for text in rest:
        name = text.partition(":")[0]
        kind = next((kind for kind, registry in kinds if name in registry.names()), "objective")
        if kind == "objective":
            objectives.append(text)
        elif kind:
            found[kind] = text
    if objectives:
        found["objective"] = PLUS.join(objectives)
    return {name: found[name] for name in PARTS}
