"""The rungs of the ladder: what each provides to the parts of a method, and the refusal of what cannot work there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, names, needs_prior
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.part import REMEDIES, Need


class Rung(NamedTuple):
    """A host of methods; `provides`: what its batches carry beside rewards."""

    name: str
    about: str
    provides: frozenset[Need]


_CHOICES: frozenset[Need] = frozenset({"prompt_choice", "batch_choice", "pass_rates"})
_BINARY: frozenset[Need] = frozenset({"binary_rewards"})
COUNTS = Rung(
    "counts", "exact sums and compiled streams of success counts", _BINARY | {"lengths", "true_prior", "batch_choice"}
)
CHAINS = Rung(
    "chains",
    "softmax policies on skill chains",
    _BINARY
    | _CHOICES
    | {"lengths", "prompt_ids", "clusters", "log_probs", "reference", "entropy", "behaviour", "true_prior"},
)
LANGUAGE_MODEL = Rung(
    "llm",
    "python llm/train.py",
    _CHOICES | {"lengths", "prompt_ids", "clusters", "log_probs", "reference"},
)
TRL = Rung("trl", "EBPOTrainer, estimators", frozenset({"lengths", "clusters"}))
VERL = Rung("verl", "verl's registry, estimators", frozenset({"lengths", "clusters"}))
RUNGS = (COUNTS, CHAINS, LANGUAGE_MODEL, TRL, VERL)
ANYWHERE: frozenset[Need] = _BINARY  # a matter of the rewards, not of the rung: checked on every batch


def missing(needs: Iterable[Need], rung: Rung) -> list[Need]:
    """What a part needs and the rung does not provide."""
    return sorted(set(needs) - rung.provides - ANYWHERE)


def check(name: str, needs: Iterable[Need], rung: Rung) -> None:
    """Raises InputError where the part cannot stand on the rung, naming the need and the remedy."""
    for need in missing(needs, rung):
        raise InputError(f"{name} needs {need}, which {rung.name} ({rung.about}) does not provide: {REMEDIES[need]}")


def bound(name: str, prior: Prior | None, rung: Rung) -> Estimator:
    """The preset for this rung; an oracle is given the true prior. Raises InputError where it cannot stand there."""
    if needs_prior(name):
        check(name, ("true_prior",), rung)
    estimator = make(name, prior=prior) if needs_prior(name) else make(name)
    check(name, estimator.needs, rung)
    return estimator


def standing(rung: Rung) -> tuple[str, ...]:
    """All registered presets that can stand on the rung, in order of registration."""
    flat = Prior((0.5,), (1.0,))  # only to build an oracle with
    return tuple(
        name
        for name in names()
        if ("true_prior" in rung.provides or not needs_prior(name))
        and not missing((make(name, prior=flat) if needs_prior(name) else make(name)).needs, rung)
    )
