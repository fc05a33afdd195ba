"""A method as text: an estimator, then its other parts in any order, joined by " + ".

grpo                                                  a bare estimator: the host's own order, clip and divergence
ebpo_debiased:memory=0.95 + clip:low=0.2,high=0.28    objectives are named, the host's settings of them are not used
rloo + cispo:high=0.2 + kl:coef=0.001                 pushes add
grpo + gspo + sequence_mean                           an aggregation, the weight of a token in the objective
grpo + overlong:longest=512,cache=64                  a penalty on long answers, in the rewards that are scored
dapo, cispo + kl                                      a recipe (`recipes.py`) stands for its text, at the beginning
grpo + easy_to_hard + dynamic:batches=5               an allocation, before the rollouts; a selection, after them
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ebpo_sim import rungs
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators import Estimator
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.shaping import SHAPINGS, Shaped
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import AGGREGATIONS, OBJECTIVES, Aggregation, Objective
from ebpo_sim.part import Need
from ebpo_sim.rungs import Rung
from ebpo_sim.sampling import ALLOCATIONS, SELECTIONS, Allocation, Everything, Selection

PLUS = " + "
KINDS = (ALLOCATIONS, SELECTIONS, OBJECTIVES, AGGREGATIONS, SHAPINGS)


class Method(NamedTuple):
    """name: the text. allocation: None leaves the prompts to the host's own order. objectives: those named, () leaves
    them to the host's settings. aggregation: None leaves the tokens' weights to the host's settings."""

    name: str
    estimator: Estimator
    objectives: tuple[Objective, ...] = ()
    allocation: Allocation | None = None
    selection: Selection = Everything()
    aggregation: Aggregation | None = None

    def needs(self) -> frozenset[Need]:
        """What a batch must carry beside rewards for estimator, allocation and selection."""
        chosen = frozenset[Need]() if self.allocation is None else self.allocation.needs
        return self.estimator.needs | self.selection.needs | chosen


def spelt(text: str) -> str:
    """The method's text with a recipe at its beginning written out."""
    first, *rest = text.split(PLUS, 1)
    return PLUS.join([RECIPES[first.strip()].text if first.strip() in RECIPES else first, *rest])


def estimator_of(text: str) -> str:
    """The estimator's part of a method's text."""
    return spelt(text).split(PLUS, 1)[0].strip()


def parse_method(text: str, prior: Prior | None, rung: Rung) -> Method:
    """The method that the text spells, on this rung; an oracle is given the true prior.

    Raises InputError for unknown parts and settings, for a part that is named twice, and for parts that need what the
    rung does not provide.
    """
    first, *rest = (part.strip() for part in spelt(text).split(PLUS))
    method = Method(text, rungs.bound(first, prior, rung))
    for i, part in enumerate(rest):
        name = part.partition(":")[0]
        if name in [other.partition(":")[0] for other in rest[:i]]:
            raise InputError(f"method {text!r} names {name!r} twice: give it once, with the sum of both")
        method = _with(method, part, name, rung)
    return method


def _with(method: Method, text: str, name: str, rung: Rung) -> Method:
    """The method with one part more."""
    registry = next((r for r in KINDS if name in r.names()), None)
    if registry is None:
        known = [n for r in KINDS for n in r.names()]
        raise unknown_name("part of a method", name, known, "; one of your own comes with --load FILE.py")
    part: Any = registry.make(text)
    if registry is OBJECTIVES:
        rungs.check_objective(text, part, rung)
        return method._replace(objectives=(*method.objectives, part))
    if registry is SHAPINGS:
        rungs.check(text, part.needs, rung)
        rule = method.estimator
        return method._replace(estimator=Shaped(f"{rule.name}{PLUS}{text}", rule.chain, rule.order, part))
    if registry is AGGREGATIONS:
        rungs.check(text, ("log_probs", "token_weights"), rung)
        if method.aggregation is None:
            return method._replace(aggregation=part)
        raise InputError(f"method {method.name!r} names a second aggregation, {name!r}: name one")
    rungs.check(text, part.needs, rung)
    if registry is ALLOCATIONS and method.allocation is None:
        return method._replace(allocation=part)
    if registry is SELECTIONS and isinstance(method.selection, Everything):
        return method._replace(selection=part)
    raise InputError(f"method {method.name!r} names a second {registry.kind}, {name!r}: name one")
