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
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.labels import REFERENCE
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.methods.step import start
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw
from ebpo_sim.sampling import Ask, Order, Plan, Pool, check_plan
from ebpo_sim.studies.prediction.outcomes import COSTS
from ebpo_sim.studies.recorded.replay import Interval, resampled
from ebpo_sim.worlds import Recorded

LEFT_OUT = 0.1  # of its fair weight: below it a prompt counts as left out
# rollouts, groups: drawn. silent: groups whose rewards are all equal. rows: rollouts of groups that are trained on and
# not silent. signal: their squared deviations from their group's mean, (n - 1) p (1 - p) a group in expectation
SUMS = ("rollouts", "groups", "silent", "rows", "signal")
EVERY = 5  # at each how many-th visit the objective is looked at


class Drawn(NamedTuple):
    """sums_SP: over visits and replicates by prompt, in the order of SUMS. effective, left_out: means over visits of
    1/mean(omega^2) and of the share of prompts with omega below LEFT_OUT, omega the weights of the objective that is
    climbed (`sampling.recall`); None for an allocation that does not tell. kish: (sum n w)^2/(sum n sum n w^2), the
    share of the rollouts n that is left by their weights w."""

    sums_SP: Array
    effective: float | None
    left_out: float | None
    kish: float


def method_of(text: str, rollouts: int) -> Method:
    """The method, its largest group at most what was recorded. Raises InputError where it cannot stand."""
    method = parse_method(text, None, rungs.CHAINS)
    part: Any = method.allocation or Order()
    return method._replace(allocation=replace(part, most=min(part.most, rollouts)) if hasattr(part, "most") else part)


def drawn(run: Recorded, text: str, group_size: int, prompts: int, visits: int, burn_in: int, seeds: range) -> Drawn:
    """One batch of `prompts` groups a visit, the first `burn_in` visits learnt from but not counted, one replicate a
    seed. Selections leave out whole groups."""
    method, count = method_of(text, run.rollouts), len(run.prompts)
    part: Any = method.allocation
    pool = Pool(count, None, run.successes_PV[:, 0] / run.rollouts)
    sums_SP, shape, weights = np.zeros((len(SUMS), count)), list[tuple[float, float]](), np.zeros(3)
    for seed in seeds:
        state, rng = start(method).allocation, np.random.default_rng([seed, group_size])
        for visit in range(visits):
            ask, learnt = Ask(visit, visits, prompts, group_size), part.init()
            if visit >= burn_in and visit % EVERY == 0 and hasattr(part, "objective"):
                omega_P = part.objective(state, pool, ask)
                shape.append((1 / float(np.mean(omega_P**2)), float(np.mean(omega_P < LEFT_OUT))))
            kept = 0
            for attempt in range(method.selection.batches):
                draw = Draw(seed, "allocation", visit)
                plan = check_plan(part.plan(state, pool, ask._replace(attempt=attempt), draw), pool, text)
                groups = recorded_groups(run, visit, plan, rng)
                stays_P = np.asarray(method.selection.weigh((), groups, None, draw).keep_PG.any(axis=-1))
                if method.selection.batches > 1:
                    stays_P = stays_P & (kept + np.cumsum(stays_P) <= prompts)
                kept += int(stays_P.sum())
                learnt = part.merge(learnt, part.observe(groups))
                if visit >= burn_in:
                    np.add.at(sums_SP.T, plan.prompt_P, _terms(groups, stays_P).T)
                    w_P = np.ones(len(stays_P)) if plan.weight_P is None else plan.weight_P
                    weights += [plan.size_P.sum(), plan.size_P @ w_P, plan.size_P @ w_P**2]
                if kept >= prompts:
                    break
            state = part.merge(part.forget(state), learnt)
    effective, left_out = np.mean(shape, axis=0).tolist() if shape else (None, None)
    return Drawn(sums_SP, effective, left_out, float(weights[1] ** 2 / (weights[0] * weights[2])))


def recorded_groups(run: Recorded, visit: int, plan: Plan, rng: np.random.Generator) -> Groups:
    """Rollouts of this visit, drawn for the plan without replacement."""
    right_P = run.successes_PV[plan.prompt_P, visit]
    k_P = rng.hypergeometric(right_P, run.rollouts - right_P, plan.size_P)
    row_N = np.repeat(np.arange(len(k_P)), plan.size_P)
    place_N = np.arange(len(row_N)) - np.repeat(np.cumsum(plan.size_P) - plan.size_P, plan.size_P)
    return group_rewards((place_N < k_P[row_N]) * 1.0, row_N, prompt_ids=plan.prompt_P[row_N])


def _terms(groups: Groups, stays_P: NDArray[np.bool_]) -> Array:
    """SUMS of each group."""
    live_P = stays_P & ~groups.degenerate_P
    ones_P = np.ones(len(live_P))
    return np.array([
        groups.size_P, ones_P, groups.degenerate_P, groups.size_P * live_P, groups.within_ss_P * live_P
    ])  # fmt: skip


def rows_of(run: Recorded, found: Sequence[tuple[str, Drawn]], seed: int) -> list[dict[str, Any]]:
    """(estimator, quantity, value, low, high) of each rule; the first is the reference of ratios."""
    weights_BP = np.vstack([np.ones(len(run.prompts)), resampled(len(run.prompts), seed)])
    rows, spent = [], dict[str, Array]()
    for text, x in found:
        total = dict(zip(SUMS, x.sums_SP @ weights_BP.T, strict=True))
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
        shape = {"effective share of prompts": x.effective, "prompts left out": x.left_out}
        for name, value in (shape | {"effective share of rollouts": x.kish}).items():
            rows.append({"estimator": text, "quantity": name, "value": value, "low": None, "high": None})
    return rows


def interval(values_B: Array) -> Interval:
    """The first, and the percentiles of the others."""
    low, high = np.percentile(values_B[1:], [2.5, 97.5])
    return Interval(float(values_B[0]), float(low), float(high))
