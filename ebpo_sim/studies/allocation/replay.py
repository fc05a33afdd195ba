"""A recorded run as a pool: at each visit every rule plans one batch, and is shown some of that visit's own rollouts.

A group of n rollouts is n of those recorded at the visit, without replacement, so nothing is modelled and no group is
larger than what was recorded. The policy is the recorded one whatever is chosen: what differs is which prompts are
drawn, and so how many groups are silent and how much of each rollout is signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import rungs
from ebpo_sim.groups import group_rewards
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.methods.step import start
from ebpo_sim.part import Draw
from ebpo_sim.sampling import Ask, Order, Pool, check_plan
from ebpo_sim.studies.prediction.outcomes import COSTS
from ebpo_sim.studies.recorded.replay import Interval, resampled
from ebpo_sim.worlds import Recorded

Array = NDArray[np.float64]
LEFT_OUT = 0.1  # of its fair weight: below it a prompt counts as left out
SUMS = ("rollouts", "groups", "silent", "rows", "signal")
EVERY = 5  # at each how many-th visit the objective is looked at


class Drawn(NamedTuple):
    """Sums over visits and replicates, by prompt. rollouts, groups: drawn. silent: groups whose rewards are all equal.
    rows: rollouts of groups that are trained on and not silent. signal: their squared deviations from the mean of their
    group, (n - 1) p (1 - p) a group in expectation. effective, left_out: means over visits of 1/mean(omega^2) and of
    the share of prompts with omega below LEFT_OUT, omega the weights of the objective that is climbed
    (`sampling.recall`); None for an allocation that does not tell."""

    rollouts_P: Array
    groups_P: Array
    silent_P: Array
    rows_P: Array
    signal_P: Array
    effective: float | None
    left_out: float | None


def method_of(text: str, rollouts: int) -> Method:
    """The method, its largest group at most what was recorded. Raises InputError where it cannot stand."""
    method = parse_method(text, None, rungs.CHAINS)
    part: Any = method.allocation or Order()
    return method._replace(allocation=replace(part, most=min(part.most, rollouts)) if hasattr(part, "most") else part)


def drawn(run: Recorded, text: str, group_size: int, prompts: int, visits: int, burn_in: int, seeds: range) -> Drawn:
    """One batch of `prompts` groups a visit, the first `burn_in` visits learnt from but not counted, one replicate a
    seed. Selections leave out whole groups."""
    method, count = method_of(text, run.rollouts), len(run.prompts)
    part, selection = method.allocation, method.selection
    assert part is not None
    pool = Pool(count, None, run.successes_PV[:, 0] / run.rollouts)
    sums, shape = np.zeros((5, count)), []
    for seed in seeds:
        state, rng = start(method).allocation, np.random.default_rng([seed, group_size])
        for visit in range(visits):
            ask, right_P = Ask(visit, visits, prompts, group_size), run.successes_PV[:, visit]
            kept, learnt = 0, None
            if visit >= burn_in and visit % EVERY == 0 and hasattr(part, "objective"):
                omega_P = part.objective(state, pool, ask)
                shape.append((1 / np.mean(omega_P**2), np.mean(omega_P < LEFT_OUT)))
            for attempt in range(selection.batches):
                draw = Draw(seed, "allocation", visit)
                plan = check_plan(part.plan(state, pool, ask._replace(attempt=attempt), draw), pool, text)
                k_P = rng.hypergeometric(right_P[plan.prompt_P], run.rollouts - right_P[plan.prompt_P], plan.size_P)
                row_N = np.repeat(np.arange(len(k_P)), plan.size_P)
                place_N = np.arange(len(row_N)) - np.repeat(np.cumsum(plan.size_P) - plan.size_P, plan.size_P)
                rewards_N = (place_N < k_P[row_N]).astype(np.float64)
                groups = group_rewards(rewards_N, row_N, prompt_ids=plan.prompt_P[row_N])
                stays_P = selection.weigh((), groups, None, draw).keep_PG.any(axis=-1)
                if selection.batches > 1:
                    stays_P &= kept + np.cumsum(stays_P) <= prompts
                kept += int(stays_P.sum())
                if visit >= burn_in:
                    live_P = stays_P & ~groups.degenerate_P
                    terms = (
                        groups.size_P, np.ones(len(k_P)), groups.degenerate_P, groups.size_P * live_P,
                        groups.within_ss_P * live_P,
                    )  # fmt: skip
                    for total_P, term_P in zip(sums, terms, strict=True):
                        np.add.at(total_P, plan.prompt_P, term_P)
                if state != ():
                    seen = part.observe(groups)
                    learnt = seen if learnt is None else part.merge(learnt, seen)
                if kept >= prompts:
                    break
            state = state if learnt is None else part.merge(part.forget(state), learnt)
    effective, left_out = np.mean(shape, axis=0).tolist() if shape else (None, None)
    return Drawn(*sums, effective, left_out)


def rows_of(run: Recorded, found: Sequence[tuple[str, Drawn]], seed: int) -> list[dict[str, Any]]:
    """(estimator, quantity, value, low, high) of each rule; the first is the reference of ratios."""
    weights_BP = np.vstack([np.ones(len(run.prompts)), resampled(len(run.prompts), seed)])
    rows, spent = [], dict[str, Array]()
    for text, x in found:
        total = {name: weights_BP @ getattr(x, f"{name}_P") for name in SUMS}
        values = {
            "silent groups": total["silent"] / total["groups"],
            "signal per rollout": total["signal"] / total["rollouts"],
            "rows per rollout": total["rows"] / total["rollouts"],
        }
        rates = {"signal per rollout": values["signal per rollout"]} | {
            f"signal per {name}": total["signal"] / (a * total["rollouts"] + b * total["rows"])
            for name, (a, b) in COSTS.items()
        }
        if text == REFERENCE:
            spent = rates
        else:
            values |= {f"{name} / {REFERENCE}'s": rates[name] / spent[name] for name in rates}
        rows += [
            {"estimator": text, "quantity": name, **interval(drawn_B)._asdict()} for name, drawn_B in values.items()
        ]
        for name, value in (("effective share of prompts", x.effective), ("prompts left out", x.left_out)):
            rows.append({"estimator": text, "quantity": name, "value": value, "low": None, "high": None})
    return rows


def interval(values_B: Array) -> Interval:
    """The first, and the percentiles of the others."""
    low, high = np.percentile(values_B[1:], [2.5, 97.5])
    return Interval(float(values_B[0]), float(low), float(high))
