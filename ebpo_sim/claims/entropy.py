"""Proposition 3.6: EBPO loses less entropy per step than GRPO."""

from __future__ import annotations

from functools import cache

import numpy as np

from ebpo_sim.claims import batches
from ebpo_sim.claims.base import Case, Check, Context, Finding, Subject, claim
from ebpo_sim.claims.baseline_error import FINITE, SMALL
from ebpo_sim.claims.family import cells, preset, world
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.sampled_updates import one_step_changes
from ebpo_sim.counts.streams import paired_ratio
from ebpo_sim.counts.updates import Rates, natural_directions, proof_entropy_ratio, rates
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, count_pmf
from ebpo_sim.studies.entropy.study import ARMS, double_ratio

VIEWS = {  # option: (optimiser, per unit of reward)
    "": ("natural", False),
    "per unit of reward": ("natural", True),
    "vanilla gradient": ("vanilla", False),
    "with Adam": ("adam", False),
    "with Adam, per unit of reward": ("adam", True),
}


@claim(
    "P1",
    "EBPO Proposition 3.6",
    "The expected entropy loss of a step is strictly below GRPO's",
    "log-probability/reward covariance over the within std independent of that std; heterogeneous prompts",
    "EBPO's entropy is not protected: at one learning rate it falls faster; per reward gained it is about GRPO's.",
    (("algorithm-1", "fails"), ("algorithm-1, per unit of reward", "fails"), ("released", "fails")),
)
def slower_entropy_loss(context: Context) -> list[Finding]:
    """P1: exact expected entropy loss of one step over GRPO's; effect 1 - ratio. The released code in batches of M."""
    reference, size = world(context.reference), context.reference_size
    ideal = [
        Case(f"claims P1 --world {text}: idealised", 1 - proof_entropy_ratio(here), True)
        for text, here, group_size in cells(context)
        if group_size == context.group_sizes[0]
    ]
    name = f"entropy loss / GRPO's, {context.where}"
    findings = [Finding("idealised", ideal, "", name + ", as in the proof", proof_entropy_ratio(reference))]
    subjects = {v: s for v, s in context.subjects.items() if v != "idealised"}

    @cache  # of this run: several views share a rate, and all of them GRPO's
    def known(subject: Subject, text: str, group_size: int, optimiser: str) -> Rates:
        here = world(text)
        return rates(subject(rule(here, group_size)), here, group_size, ARMS, optimiser)

    estimators = [make("grpo"), *(subject(rule(reference, size)) for subject in subjects.values())]
    design = context.design._replace(replicates=16)
    few = batches.exact(context.reference, size, SMALL)
    sampled = one_step_changes(reference, size, estimators, ARMS, design)
    for i, (variant, subject) in enumerate(subjects.items(), start=1):
        for option, (optimiser, per_reward) in VIEWS.items():
            if variant == "released" and option:
                continue  # in the limit of large batches the released code is Algorithm 1
            named = f"{variant}, {option}" if option else variant
            cases = []
            for text, _, group_size in cells(context):
                mine, plain = (known(s, text, group_size, optimiser) for s in (subject, _plain))
                ratio = _loss_ratio(mine, plain, per_reward)
                if ratio is not None:
                    command = f"claims P1 --world {text} --group-size {group_size}: {named}"
                    cases.append(case := Case(command, 1 - ratio, True, group_size))
                    if variant == FINITE:
                        cases += [c for _, c in batches.finite_cases(context, text, group_size, _slower, case)]
            exact = _loss_ratio(
                rates(estimators[i], reference, size, ARMS, optimiser),
                rates(estimators[0], reference, size, ARMS, optimiser),
                per_reward,
            )
            check = None
            if optimiser in sampled and exact is not None:
                (gain, loss), (gain_0, loss_0) = sampled[optimiser][i], sampled[optimiser][0]
                simulated = double_ratio(loss, loss_0, gain, gain_0) if per_reward else paired_ratio(loss, loss_0)
                check = Check(exact, *simulated, design.replicates - 1)
            effect = name
            if variant == FINITE:
                effect, exact = f"{name}, batches of {SMALL}", 1 - float(_slower(few, context.reference, size)[0])
                check = _in_batches(context, estimators[i], estimators[0], exact)
            findings.append(Finding(named, cases, "", effect, float("nan") if exact is None else exact, check))
    return findings


def _plain(prior: Prior) -> Estimator:
    return preset("grpo")


def _slower(found: batches.Batches, text: str, group_size: int) -> Array:
    """1 - entropy loss over GRPO's, natural gradient, for each block of batches."""
    prior = world(text).fine()
    weighed = natural_directions(prior.nodes, ARMS)[1] * prior.weights
    others = count_pmf(np.asarray(prior.nodes), group_size - 1, np.arange(group_size))
    gaps = (found.right[:, 1:] - found.wrong[:, :-1]) @ others.T
    return 1 - gaps @ weighed / rates(preset("grpo"), world(text), group_size, ARMS, "natural").entropy


def _in_batches(context: Context, estimator: Estimator, plain: Estimator, exact: float) -> Check:
    """The same ratio from simulated batches of SMALL prompts."""
    design = context.design._replace(prompts=SMALL, steps=64, burn_in=0, replicates=16)
    found = one_step_changes(world(context.reference), context.reference_size, [estimator, plain], ARMS, design)
    return Check(exact, *paired_ratio(found["natural"][0, 1], found["natural"][1, 1]), design.replicates - 1)


def _loss_ratio(mine: Rates, plain: Rates, per_reward: bool) -> float | None:
    """Entropy loss over GRPO's; None where GRPO loses none or the two have different signs (nothing to compare)."""
    if plain.entropy >= 0 or mine.entropy >= 0 or plain.reward <= 0 or mine.reward <= 0:
        return None
    ratio = mine.entropy / plain.entropy
    return float(np.float64(ratio / (mine.reward / plain.reward) if per_reward else ratio))
