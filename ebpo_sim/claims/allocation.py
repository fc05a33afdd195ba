"""Which prompts get the rollouts: Knapsack RL and MoPPS.

Exact where rates are known, replayed on the recorded run that ships, and read from allocation.csv: the rows of
evidence.csv of `python -m ebpo_sim.allocation_study` (8 paired seeds, each method at its own rate; the noisy start at
G = 4 alone). A method that misses the target with a seed has no row there."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ebpo_sim.claims.base import Case, Claim, Context, Finding, enter
from ebpo_sim.claims.family import world
from ebpo_sim.claims.recorded import RUN
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.formulas import degenerate_probability
from ebpo_sim.sampling import Knapsack, MoPPS
from ebpo_sim.studies.allocation import replay
from ebpo_sim.studies.recorded.replay import resampled
from ebpo_sim.worlds import recorded

TABLE = Path(__file__).with_name("allocation.csv")
DYNAMIC, MOPPS, KNAPSACK = (f"{REFERENCE} + {name}" for name in ("dynamic", "mopps", "knapsack"))
PROMPTS = 200  # quantiles of a world
PROMISED = 0.2  # more gradients that are not 0
REPLAY = (250, 46, 4)  # prompts a visit, visits, of which only learnt from


def measured(method: str, against: str = "") -> Iterator[tuple[str, list[Case]]]:
    """(regime and currency, -log ratio of the cost of the far target to GRPO's, or another method's, by group size)."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["value"]]
    values = {(r["estimator"], r["regime"], r["quantity"], r["group_size"], r["world"]): r for r in rows}
    for regime in dict.fromkeys(r["regime"] for r in rows):
        for currency in ("rollouts", "seconds 1:1"):
            cases = []
            for (name, where, quantity, size, start), mine in values.items():
                other = values.get((against, where, quantity, size, start))
                if (name, where, quantity) == (method, regime, f"ratio of {currency}") and (other or not against):
                    gain, se = -math.log(float(mine["value"])), float(mine["se"])
                    if other:
                        gain, se = gain + math.log(float(other["value"])), math.hypot(se, float(other["se"]))
                    shown = f"allocation_study --world {start} --regime {regime} --group-size {size}"
                    named = f" --estimator '{method}'" + (f" --estimator '{against}'" if against else "")
                    cases.append(Case(f"{shown}{named}: {quantity}", gain, x=float(size), se=se))
            yield f"trained, {regime}, {currency}", cases


def trained(method: str, against: str = "") -> list[Finding]:
    named = f"mean of -log cost of the far target / {against or REFERENCE}'s"
    return [
        Finding(variant, cases, "", named, float(np.mean([c.effect for c in cases])))
        for variant, cases in measured(method, against) if cases
    ]  # fmt: skip


@lru_cache(maxsize=1)
def redrawn() -> Array:
    """(1 + RESAMPLES, P): every prompt of the recorded run once, then a bootstrap."""
    prompts = len(recorded(RUN).prompts)
    return np.vstack([np.ones(prompts), resampled(prompts, 0)])


def told(values_B: Array) -> tuple[float, float]:
    """(value, standard error) from the value and its bootstrap."""
    found = replay.interval(values_B)
    return found.value, (found.high - found.low) / 3.92


@lru_cache(maxsize=256)
def quantiles(text: str) -> tuple[float, ...]:
    """Pass rates of PROMPTS equally likely prompts of a world."""
    prior = world(text).fine()
    order = np.argsort(prior.nodes)
    place = np.searchsorted(np.cumsum(np.array(prior.weights)[order]), (np.arange(PROMPTS) + 0.5) / PROMPTS)
    return tuple(np.array(prior.nodes)[order][np.minimum(place, len(order) - 1)].tolist())


def knapsack_gain(text: str, group_size: int) -> tuple[float, float]:
    """Known rates: (groups, rollouts of groups) that are alive, over those with equal sizes, less 1."""
    p = np.array(quantiles(text))
    n = Knapsack().sizes(p, group_size)
    mine, plain = (1 - degenerate_probability(p, size) for size in (n, group_size))
    return float(mine.sum() / plain.sum() - 1), float(mine @ n / (group_size * plain.sum()) - 1)


@lru_cache(maxsize=8)
def replayed(text: str) -> replay.Drawn:
    """On the recorded run, G = 4, one replicate."""
    return replay.drawn(recorded(RUN), text, 4, *REPLAY, range(1))


def sums_of(text: str) -> dict[str, Array]:
    """`replay.SUMS` over the prompts of each resample."""
    return dict(zip(replay.SUMS, replayed(text).sums_SP @ redrawn().T, strict=True))


def gain_of(text: str, above: str, below: str, other: str = REFERENCE) -> tuple[float, float]:
    """(ratio of above/below to the other method's, standard error) on the recorded run, by a bootstrap over prompts."""
    mine, plain = (x[above] / x[below] for x in (sums_of(text), sums_of(other)))
    return told(mine / plain)


def alive_of(text: str) -> tuple[float, float]:
    """(live groups a group over GRPO's, standard error)."""
    mine, plain = (1 - x["silent"] / x["groups"] for x in (sums_of(text), sums_of(REFERENCE)))
    return told(mine / plain)


def knapsack(context: Context) -> list[Finding]:
    """M6: relative gain less PROMISED."""
    sizes = [size for size in context.group_sizes if 2 <= size <= 128]
    gains = {(text, size): knapsack_gain(text, size) for size in sizes for text in context.worlds}
    cell, findings = knapsack_gain(context.reference, context.reference_size), []
    for i, what in enumerate(("groups alive", "rollouts in live groups")):
        cases = [
            Case(f"claims M6 --world {text} --group-size {size}: rates known, {what}", found[i] - PROMISED, x=size)
            for (text, size), found in gains.items()
        ]
        named = f"{what} / with equal sizes, {context.where}"
        findings.append(Finding(f"rates known, {what}", cases, "", named, 1 + cell[i]))
    for what, (value, se) in {
        "groups alive": alive_of(KNAPSACK), "rollouts in live groups": gain_of(KNAPSACK, "rows", "rollouts"),
    }.items():  # fmt: skip
        case = Case(f"claims M6: recorded run, {what}", value - 1 - PROMISED, x=4, se=se)
        findings.append(Finding(f"recorded run, {what}", [case], "", f"{what} / with equal sizes, G = 4", value))
    return findings + trained(KNAPSACK)


def mopps(context: Context) -> list[Finding]:
    """M7: signal per rollout / the other's, less 1; the objective's weights; costs of training."""
    findings = []
    for name, other in (("shuffled epochs", REFERENCE), ("dynamic sampling", DYNAMIC)):
        value, se = gain_of(MOPPS, "signal", "rollouts", other)
        variant = f"recorded run, signal, against {name}"
        case = Case(f"claims M7: {variant}", value - 1, x=4, se=se)
        findings.append(Finding(variant, [case], "", f"signal per rollout / of {name}, G = 4", value))
    variant, cases = "climbs the mean pass rate", list[Case]()
    for p in (0.5, 0.6, 0.7, 0.8, 0.9):
        away = abs(2 * first_of_two(p) - 1)
        cases.append(Case(f"claims M7: {variant}", -away, p == 0.5, p))
    named = f"|omega - 1| of rates 0.5 and 0.9, {SEEN} rollouts each"
    findings.append(Finding(variant, cases, "equal rates", named, -cases[-1].effect, strict=False))
    for variant, other in (("", ""), (", against dynamic sampling", DYNAMIC)):
        for finding in trained(MOPPS, other):
            again = (finding.variant + variant, finding.cases, "", finding.effect_name, finding.effect)
            findings.append(Finding(*again))
    return findings


SEEN = 64  # rollouts that the memory holds of each


def first_of_two(p: float) -> float:
    """The chance that of prompts of rates 1/2 and p, SEEN rollouts of each known, a batch of one is the first."""
    part, right = MoPPS(), np.array([0.5, p]) * SEEN
    known = part.prior + right, part.prior + SEEN - right
    below_T2 = np.array([part.below(known, t) for t in np.linspace(0, part.highest, 2001)])
    return float(np.sum(np.diff(below_T2[:, 0]) * (1 - (below_T2[1:, 1] + below_T2[:-1, 1]) / 2)))


enter(
    Claim(
        "M6",
        "Knapsack RL (2509.25849)",
        "At equal rollouts at least 20 % more of the gradients are not zero",
        "pass rates of the last epoch; 20 to 40 % is the abstract's",
        "Of rollouts, often; of groups, hardly: it takes from some prompts what it gives to others.",
        knapsack,
        (
            ("rates known, groups alive", "fails"),
            ("rates known, rollouts in live groups", "fails"),
            ("recorded run, groups alive", "fails"),
            ("recorded run, rollouts in live groups", "holds"),
        ),
    ),
    Claim(
        "M7",
        "MoPPS (2507.04632)",
        "Prompts near a pass rate of 1/2, by Thompson draws, train with fewer rollouts",
        "prompts come back often enough to be known",
        "It beats dynamic sampling per rollout from every start, shuffled epochs at G = 8 of the balanced start alone. "
        "More signal per rollout, but of another objective: prompts far from 1/2 are left out.",
        mopps,
        (
            ("recorded run, signal, against shuffled epochs", "holds"),
            ("climbs the mean pass rate", "holds_if"),
            *((f"trained, {start}, rollouts", "fails") for start in ("plateau", "balanced", "noisy")),
            *(
                (f"trained, {start}, rollouts, against dynamic sampling", "holds")
                for start in ("plateau", "balanced", "noisy")
            ),
        ),
    ),
)
