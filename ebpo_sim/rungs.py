"""The rungs of the ladder: what each provides to the parts of a method, and the refusal of what cannot work there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, names, needs_prior
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import Objective
from ebpo_sim.part import REMEDIES, Need


class Rung(NamedTuple):
    """A host of methods; `provides`: what its batches carry beside rewards. whole: objectives get a batch in one piece,
    not some rows at a time. remembers: it carries their memories. instead: what to use there in the place of a part
    that needs this."""

    name: str
    about: str
    provides: frozenset[Need]
    whole: bool = True
    remembers: bool = True
    instead: Mapping[Need, str] = {}


_CHOICES: frozenset[Need] = frozenset({"prompt_choice", "batch_choice", "pass_rates"})
_BINARY: frozenset[Need] = frozenset({"binary_rewards"})
COUNTS = Rung(
    "counts",
    "exact sums and compiled streams of success counts",
    _BINARY | {"lengths", "true_prior", "batch_choice"},
    instead={"log_probs": "name the estimator alone there"},
)
_TOKENS: frozenset[Need] = frozenset({"lengths", "prompt_ids", "clusters", "log_probs"})
LANGUAGE_MODEL = Rung(
    "llm",
    "python llm/train.py",
    _CHOICES | _TOKENS | {"reference", "score_norms", "token_weights", "answers", "rollout_order"},
    whole=False,
)
CHAINS = Rung(
    "chains",
    "softmax policies on skill chains",
    _BINARY | LANGUAGE_MODEL.provides | {"entropy", "behaviour", "true_prior", "greedy_reward"},
)
TRL = Rung(
    "trl",
    "MethodTrainer",
    _TOKENS | {"reference", "score_norms", "components", "rollout_order"},
    whole=False,
    remembers=False,
    instead={
        "entropy": "set GRPOConfig's entropy_coef",
        "behaviour": "set GRPOConfig's vllm_importance_sampling_mode and its clip",
        "token_weights": "set GRPOConfig's loss_type",
    },
)
VERL = Rung(
    "verl",
    "verl's registries",
    _TOKENS,
    whole=False,
    remembers=False,
    instead={
        "reference": "set verl's actor.use_kl_loss, kl_loss_coef and kl_loss_type",
        "entropy": "set verl's actor.entropy_coeff",
        "batch_choice": "set verl's algorithm.filter_groups, its dynamic sampling",
        "behaviour": "set verl's algorithm.rollout_correction",
        "token_weights": "set verl's actor.loss_agg_mode",
        "greedy_reward": "use verl's own remax",
        "components": "use verl's own gdpo",
        "score_norms": "verl gives sum_pi_squared to its own optimal_token_baseline alone: use weights=length",
    },
)
RUNGS = (COUNTS, CHAINS, LANGUAGE_MODEL, TRL, VERL)
ANYWHERE: frozenset[Need] = _BINARY  # a matter of the rewards, not of the rung: checked on every batch


def missing(needs: Iterable[Need], rung: Rung) -> list[Need]:
    """What a part needs and the rung does not provide."""
    return sorted(set(needs) - rung.provides - ANYWHERE)


def check(name: str, needs: Iterable[Need], rung: Rung) -> None:
    """Raises InputError where the part cannot stand on the rung, naming the need and the remedy."""
    for need in missing(needs, rung):
        remedy = rung.instead.get(need, REMEDIES[need])
        raise InputError(f"{name} needs {need}, which {rung.name} ({rung.about}) does not provide: {remedy}")


def beyond(objective: Objective, rung: Rung) -> str:
    """What no batch of the rung can give the objective beside its needs; "" where it stands."""
    if objective.init() != () and not rung.remembers:
        return "keeps a state"
    return f"looks at a whole {objective.scope}" if not rung.whole and objective.scope in ("group", "batch") else ""


def check_objective(name: str, objective: Objective, rung: Rung) -> None:
    """Raises InputError where the objective cannot stand on the rung, with the reason and the remedy."""
    check(name, ("log_probs", *objective.needs), rung)
    if reason := beyond(objective, rung):
        remedy = "use settings in its place" if "state" in reason else "use one that looks at a token or a sequence"
        raise InputError(f"{name} {reason}, which {rung.name} ({rung.about}) does not carry for objectives: {remedy}")


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
