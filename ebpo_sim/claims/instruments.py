"""The tools behind the ledger, checked against arithmetic that shares no code with them.

Exact and simulated numbers of the ledger come from the same estimator objects and the same standard errors, so a fault
in those can leave every verdict and every agreement as it is. Each check here compares a tool with `plain` arithmetic,
with a closed form from both sides, or with the law that right standard errors obey (`calibration`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim import report
from ebpo_sim.claims import batches, calibration, plain
from ebpo_sim.claims.history import AGES, own_weight
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.counts.noise import gradient_noise
from ebpo_sim.counts.splits import split_ratio
from ebpo_sim.counts.streams import Design, simulate_errors, simulate_stream
from ebpo_sim.counts.updates import (
    adam_directions,
    advantage_gap,
    limit_advantages,
    natural_directions,
    vanilla_directions,
)
from ebpo_sim.estimators import Estimator, baseline_table, make
from ebpo_sim.estimators.nonparametric import PosteriorMean
from ebpo_sim.groups import Groups, count_groups, group_rewards
from ebpo_sim.numbers import adam
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.studies.failure.study import signal_to_noise
from ebpo_sim.worlds import Counts, parse_world

ROUNDING = 1e-9
STREAM: tuple[plain.Batch, ...] = (  # ragged; a group that failed, one that passed, rewards between 0 and 1
    ((1, 0, 0), (0, 0), (1, 1, 0, 1), (1, 1)),
    ((0, 0, 0), (1, 0.5), (0, 1, 1)),
    ((0, 1), (1, 1, 1, 0), (0.25, 0, 1), (0, 0, 0, 0, 1)),
)
SPREAD = ((0.1, 0.3), (0.6, 0.5), (0.95, 0.2))  # (p, weight) of the world of the closed forms
TABLE = np.array([[-0.6, -0.6], [-0.4, 0.7], [-0.3, 0.5], [0.2, 0.2]])  # advantages A[k, r] of the closed forms
RATES = (0.1, 0.45, 0.8)  # success probabilities of the policies that they move
RULES: dict[str, tuple[Callable[[], Estimator], Callable[[Sequence[plain.Batch]], list[plain.Scored]]]] = {
    "Algorithm 1": (partial(make, "ebpo"), plain.algorithm_1),
    "released code": (partial(make, "ebpo_released"), plain.released),
    "ebpo_debiased": (partial(make, "ebpo_debiased"), plain.repaired),
    "ebpo_debiased, leave-one-out": (
        partial(make, "ebpo_debiased", leave_one_out=True),
        partial(plain.repaired, leave_one_out=True),
    ),
}


class Instrument(NamedTuple):
    """A measured number and the range that it has when the tool is right."""

    name: str
    measures: str
    value: float
    low: float
    high: float

    @property
    def passes(self) -> bool:
        """Whether the value lies in the range; NaN does not."""
        return self.low <= self.value <= self.high


def instrument_checks(seed: int, threads: int = 1) -> list[Instrument]:
    """All checks, in about two seconds of one core. The four of the standard errors fail together with probability
    `calibration.FAMILY_WISE` for a new seed when nothing is wrong; the others are exact."""
    exact = [
        *_streams(),
        ("two workers merged", "table against one worker's", _merged()),
        *_simulated(seed, threads),
        ("S from both sides", "|S - S*| of the repair, |S - 1/(2+(G-1)ρ)| of Algorithm 1", _weights()),
        ("best line's error", "the repair's long-run error against S* Var p", _best_line()),
        ("own-batch weight", "1/T without centring, 1 with it", _rate()),
        ("released code in batches", "all batches of 3 groups one by one", _batches()),
        ("update of a policy", "(dp, dH) and its noise over all groups one by one", _updates()),
        ("all-fail advantage", "-S mu over the spread, in closed form", _all_fail()),
        ("signal of a penalty", "over all wrong answers one by one", _signal()),
        ("learnt prior", "20 EM steps on 5 counts", _fitted()),
        ("split check", "Algorithm 1, learnt from the other folds", _split()),
        ("AdamW", "parameters after 4 steps", _adamw()),
        ("Adam's direction", "(dp, dH) over all groups one by one", _adam_direction()),
    ]
    found = [Instrument(name, f"largest difference: {what}", gap, 0.0, ROUNDING) for name, what, gap in exact]
    for kind, value, low, high in calibration.standard_errors(seed, threads):
        measured = f"mean square of z over {calibration.RUNS} runs of known mean"
        found.append(Instrument(f"standard error of a {kind}", measured, value, low, high))
    return found


def summary(found: Sequence[Instrument]) -> dict[str, Any]:
    """For JSON: how many checks failed, and every check."""
    rows = [{**check._asdict(), "passes": check.passes} for check in found]
    return {"checks": len(found), "failed": sum(not check.passes for check in found), "rows": rows}


def text(found: Sequence[Instrument]) -> str:
    """The block after the ledger: every check, and a last line that says how many failed."""
    lines = [
        (c.name, c.measures, f"{c.value:.2g}", f"{c.low:.2g} to {c.high:.2g}", "agree" if c.passes else "DISAGREE")
        for c in found
    ]
    headers = ("instrument check", "measures", "value", "allowed", "verdict")
    table = report.text_table(headers, lines, ("left", "left", "right", "right", "left"))
    failed = [c.name for c in found if not c.passes]
    last = f"All {len(found)} instrument checks agree."
    if failed:
        last = (
            f"{len(failed)} of {len(found)} instrument checks DISAGREE, do not trust the ledger: {'; '.join(failed)}."
        )
    return f"{table}\n{last}"


def _gap(a: Any, b: Any) -> float:
    return float(np.max(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))))


def _groups(batch: plain.Batch) -> Groups:
    ids = [i for i, group in enumerate(batch) for _ in group]
    return group_rewards([float(r) for group in batch for r in group], ids)


def _streams() -> Iterator[tuple[str, str, float]]:
    """Advantages of a stream of ragged batches, in each estimator's own order."""
    for name, (build, arithmetic) in RULES.items():
        estimator = build()
        state, gap = estimator.init(), 0.0
        for batch, scored in zip(STREAM, arithmetic(STREAM), strict=True):
            advantages, _, state = estimator.step(state, _groups(batch))
            gap = max(gap, _gap(advantages, [a for group in scored.advantage for a in group]))
        yield f"{name} by hand", f"advantages of {len(STREAM)} batches", gap


def _merged() -> float:
    """What two workers have learnt, merged, against one that saw all their groups at once, so without any merging."""
    found = []
    for name in ("ebpo", "ebpo_debiased"):
        estimator = make(name)
        parts = [estimator.update(estimator.init(), _groups(batch)) for batch in STREAM[:2]]
        alone = estimator.update(estimator.init(), _groups((*STREAM[0], *STREAM[1])))
        tables = [baseline_table(estimator, state, 4) for state in (estimator.merge(*parts), alone)]
        found.append(_gap(*tables))
    return max(found)


def _simulated(seed: int, threads: int) -> Iterator[tuple[str, str, float]]:
    """Squared errors of a simulated stream against those of the plain rules on the same counts and sums of p."""
    size, design = 3, Design(prompts=24, steps=3, burn_in=0, replicates=2, seed=seed)
    world = parse_world("beta:2,3")
    stream = simulate_stream(world, size, design, threads)
    for name in ("Algorithm 1", "released code", "ebpo_debiased"):
        build, arithmetic = RULES[name]
        (errors,) = simulate_errors(world, size, [build()], design, threads)
        expected = np.zeros(errors.shape)
        for r, replicate in enumerate(stream):
            batches = [
                [[1.0] * k + [0.0] * (size - k) for k, c in enumerate(sums[0]) for _ in range(int(c))]
                for sums in replicate
            ]
            for t, (scored, sums) in enumerate(zip(arithmetic(batches), replicate, strict=True)):
                first = np.cumsum(sums[0]).astype(int) - 1  # the last group with each k
                for k in np.flatnonzero(sums[0]):
                    b = scored.baseline[first[k]][0]
                    expected[r, t] += (sums[0, k] * b * b - 2 * b * sums[1, k] + sums[2, k]) / design.prompts
        yield f"{name}, simulated by hand", f"squared errors of {design.steps} batches", _gap(errors, expected)


def _moments() -> tuple[float, float]:
    """(within, between) of the world of the closed forms."""
    mean = sum(w * p for p, w in SPREAD)
    return sum(w * p * (1 - p) for p, w in SPREAD), sum(w * (p - mean) ** 2 for p, w in SPREAD)


WORLD = "points:" + ",".join(f"{p:g}@{w:g}" for p, w in SPREAD)


SIZES = (2, 4, 16)


def _closed(size: int) -> dict[str, float]:
    """S of the repair and of Algorithm 1 in the long run."""
    within, between = _moments()
    return {
        "ebpo_debiased": within / size / (within / size + between),
        "ebpo": 1 / (2 + (size - 1) * between / (within + between)),
    }


def _weights() -> float:
    """A weight that never exceeds S* may still be far below it; here it is S*."""
    return max(
        _gap(limit_risk(make(name), parse_world(WORLD), size).shrinkage, weight)  # no weight is no number, and a gap
        for size in SIZES
        for name, weight in _closed(size).items()
    )


def _best_line() -> float:
    within, between = _moments()
    return max(
        _gap(
            limit_risk(make("ebpo_debiased"), parse_world(WORLD), size).mse,
            between * within / size / (within / size + between),
        )
        for size in SIZES
    )


def _rate() -> float:
    """The running mean gives its last batch 1/T; after centring the batch's own mean stands in its place."""
    running, centred = make("ebpo", centre="none", scale="none"), make("ebpo")
    return _gap([(own_weight(running, t), own_weight(centred, t)) for t in AGES], [(1 / t, 1.0) for t in AGES])


def _batches() -> float:
    """Expectations over batches of three groups: the law of their sums against the plain rule on every batch. The own
    group is mixed, since the plain rule does not say what S is where every reward is equal."""
    size, many, found = 3, 3, []
    groups = [[1.0] * k + [0.0] * (size - k) for k in range(size + 1)]
    law = [sum(w * math.comb(size, k) * p**k * (1 - p) ** (size - k) for p, w in SPREAD) for k in range(size + 1)]
    exact = batches.exact(WORLD, size, many)
    for k in (1, 2):
        expected = np.zeros(4)
        for others in itertools.product(range(size + 1), repeat=many - 1):
            scored = plain.released([[groups[k], *(groups[j] for j in others)]])[0]
            b, advantage = scored.baseline[0][0], scored.advantage[0]
            expected += math.prod(law[j] for j in others) * np.array([b, b * b, advantage[0], advantage[-1]])
        found.append(_gap([x[0, k] for x in exact[1:]], expected))
    return max(found)


def _updates() -> float:
    """Natural and vanilla directions and the gradient's noise against sums over every group that can be drawn."""
    found = []
    for p in RATES:
        gap = advantage_gap(TABLE, p)
        for optimiser, directions in (("natural", natural_directions), ("vanilla", vanilla_directions)):
            exact = [float((gap * d)[0]) for d in directions(p, 3)]
            found.append(_gap(exact, plain.rates(TABLE.tolist(), p, 3, optimiser)))
    prior = Prior(tuple(p for p, _ in SPREAD), tuple(w for _, w in SPREAD))
    found.append(_gap(gradient_noise(TABLE, prior), plain.noise(TABLE.tolist(), SPREAD)))
    return max(found)


def _all_fail() -> float:
    """-S mu/sqrt(w(1 - 1/G) + S^2(T2 + w/G)), after centring, and for the repair without; S in closed form."""
    within, between = _moments()
    mu, found = sum(w * p for p, w in SPREAD), []
    for size in SIZES:
        for name, s in _closed(size).items():
            scale = math.sqrt(within * (1 - 1 / size) + s * s * (between + within / size)) + plain.EPS
            found.append(_gap(limit_advantages(make(name), parse_world(WORLD), size)[0, 0], -s * mu / scale))
    return max(found)


def _signal() -> float:
    return max(_gap(signal_to_noise(p, 3, 5), plain.penalty_signal(p, 3, 5)) for p in (0.02, 0.3, 0.7))


def _fitted() -> float:
    counts = [7.0, 2.0, 1.0, 3.0, 5.0]
    baseline = make("ebpo_nonparametric").baseline
    assert isinstance(baseline, PosteriorMean)
    state = baseline.observe(count_groups(4, counts))
    nodes, start = replace(baseline, iterations=0).fitted(state)
    expected = plain.expectation_maximisation(nodes.tolist(), start.tolist(), counts, 20)
    return _gap(baseline.fitted(state)[1], expected)


def _split() -> float:
    counts = Counts((6, 6, 6, 5), (1, 2, 5, 3), (4, 3, 4, 3))
    cells = zip(counts.rollouts, counts.successes, counts.prompts, strict=True)
    prompts = [(n, s) for n, s, many in cells for _ in range(many)]
    found = split_ratio(make("ebpo"), counts, 2, folds=5)
    return _gap(float("nan") if found is None else found.ratio, plain.split_ratio(prompts, 2, 5))


def _adamw() -> float:
    start, gradients = (0.3, -0.2), ((0.5, 1.0), (-0.25, 2.0), (0.125, -1.0), (1.0, 0.0))
    settings = adam.Adam(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)
    state = adam.init(start)
    for gradient in gradients:
        state = adam.update(settings, state, gradient)
    return _gap(state.theta, plain.adamw(start, gradients, *settings))


def _adam_direction() -> float:
    pairs = ((np.ravel(adam_directions(TABLE, p, 3)), plain.adam_rates(TABLE.tolist(), p, 3)) for p in RATES)
    return max(_gap(*pair) for pair in pairs)
