"""A method as text: an estimator, then objectives, joined by " + ".

grpo                                                  a bare estimator: the host's own clip and divergence
ebpo_debiased:memory=0.95 + clip:low=0.2,high=0.28    the objective is named, the host's settings of it are not used
rloo + cispo:high=0.2 + kl:coef=0.001                 pushes add
"""

from __future__ import annotations

from typing import NamedTuple

from ebpo_sim import rungs
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import Objective
from ebpo_sim.objectives.registry import make_objective
from ebpo_sim.rungs import Rung

PLUS = " + "


class Method(NamedTuple):
    """name: the text. objectives: those named, () for a bare estimator."""

    name: str
    estimator: Estimator
    objectives: tuple[Objective, ...]


def estimator_of(text: str) -> str:
    """The estimator's part of a method's text."""
    return text.split(PLUS, 1)[0].strip()


def parse_method(text: str, prior: Prior | None, rung: Rung) -> Method:
    """The method that the text spells, on this rung; an oracle is given the true prior.

    Raises InputError for unknown parts and settings, for a part that is named twice, and for parts that need what the
    rung does not provide.
    """
    first, *rest = (part.strip() for part in text.split(PLUS))
    estimator = rungs.bound(first, prior, rung)
    objectives = tuple(make_objective(part) for part in rest)
    for part, objective in zip(rest, objectives, strict=True):
        rungs.check_objective(part, objective, rung)
    names = [part.partition(":")[0] for part in rest]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"method {text!r} names {twice!r} twice: give it once, with the sum of both")
    return Method(text, estimator, objectives)
