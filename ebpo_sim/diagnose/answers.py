"""Answers in rollouts: gradient noise of each method and G, batches of dynamic sampling, what history would save.

Error is of the baseline; what decides is how much a batch of rollouts knows about the direction of the gradient. That
needs the norm of a rollout's score, which rewards do not tell: where the log has it (`norms`) it is used, else three
models of it (see `counts.noise`) give a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from ebpo_sim.counts.noise import MODELS, Model, noise
from ebpo_sim.counts.updates import limit_advantages
from ebpo_sim.diagnose.intervals import LEVEL, Estimate, spread
from ebpo_sim.diagnose.norms import fitted
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.shape import Shape, refitted
from ebpo_sim.estimators import make, needs_prior
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.studies.recorded import replay
from ebpo_sim.worlds import Points, Recorded

METHODS = ("dr_grpo", "ebpo", "ebpo_debiased", "ebpo_nonparametric", "global_mean")
LOGGED = "logged"  # name of the model of score norms that the log itself gives
BUDGET = 512  # rollouts a step where the log does not show them
RESAMPLES = 20  # of the prior: every rule learns anew from each
WIDER = (
    1.2  # noise varies more from log to log than over these: by 1.0 to 1.3 in worlds of `diagnose.coverage --answers`
)
REMEMBERING = ("ebpo_debiased", "spo:retention=0.5", "spo")
VISITS, PROMPTS, LEAST = 16, 2000, 20  # a replay's visits and prompts at most, and prompts at least


class Noise(NamedTuple):
    """One method at one G. By score model: effective, GRPO's noise at this G over the method's, so what one of its
    rollouts is worth; scale, its noise at equal rollouts over GRPO's at the current G."""

    group_size: int
    method: str
    effective: dict[str, Estimate]
    scale: dict[str, Estimate]


class Batches(NamedTuple):
    """At this G: prompts of a step, and generation batches until as many groups with a signal are there."""

    group_size: int
    prompts: int
    expected: float
    worst: int


class History(NamedTuple):
    """Baseline error over the group mean's on the log met again, by rule."""

    group_size: int
    prompts: int
    visits: int
    ratio: dict[str, Estimate]


class Answers(NamedTuple):
    """budget: rollouts a step; logged: whether the log shows it. norms_of: the role of the column that noise rests on,
    "" where it rests on models."""

    budget: int
    logged: bool
    noise: tuple[Noise, ...]
    batches: tuple[Batches, ...]
    history: History | None
    norms_of: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """Score models of the noise."""
        return tuple(dict.fromkeys(m for n in self.noise for m in n.effective))

    def at(self, group_size: int, method: str) -> Noise | None:
        """The cell, or None."""
        return next((n for n in self.noise if (n.group_size, n.method) == (group_size, method)), None)


def answers(
    population: Population, shape: Shape, sizes: Sequence[int], current: int, methods: Sequence[str], draws: int,
    seed: int,
) -> Answers:  # fmt: skip
    """All answers for binary rewards."""
    budget, logged = _budget(population)
    here = [g for g in sizes if 1 < g <= budget]
    silent = {g: float(np.dot(shape.prior.weights, _silent(np.array(shape.prior.nodes), g))) for g in here}
    dynamic = tuple(Batches(g, budget // g, *batches(silent[g], budget // g)) for g in here if silent[g] < 0.99)
    draws = min(draws, RESAMPLES)
    norms = fitted(population, shape.prior, draws, seed)
    models = [MODELS] * (1 + draws) if norms is None else [{LOGGED: m} for m in (norms.model, *norms.drawn)]
    assert population.counts is not None  # what the shape was made of
    priors = [shape.prior, *refitted(population.counts, shape, draws, seed, population.independent)]
    found = _noise(priors, here, current, methods, models) if current in here else ()
    return Answers(budget, logged, found, dynamic, history(population, current, seed), norms.of if norms else "")


def _silent(p: Array, group_size: int) -> Array:
    return np.asarray(p**group_size + (1 - p) ** group_size)


def _budget(population: Population) -> tuple[int, bool]:
    """The median step's rollouts."""
    if population.step is None:
        return BUDGET, False
    _, inverse = np.unique(population.step, return_inverse=True)
    return int(np.median(np.bincount(inverse, population.n * population.weight))), True


def batches(silent: float, prompts: int) -> tuple[float, int]:
    """(mean, 95 % worst) number of generation batches of `prompts` until as many groups are kept.

    After m batches Binomial(m prompts, 1 - silent) groups are kept, so P(N > m) = P(fewer than `prompts` of them), and
    E N is the sum of these over m >= 0. Exact for prompts drawn independently.
    """
    later, mean, worst, m = 1.0, 0.0, 0, 0
    while later > 1e-12:
        mean, m = mean + later, m + 1
        later = float(binom.cdf(prompts - 1, m * prompts, 1 - silent))
        worst = worst or (m if later <= 1 - LEVEL else 0)
    return mean, worst


def scales(method: str, prior: Prior, group_size: int, models: Mapping[str, Model] = MODELS) -> Array:
    """The method's noise scale by score model in its long run, prompts drawn anew for every batch (`nu_drawn`)."""
    table = limit_advantages(make(method), Points("deconvolved", prior), group_size)
    return np.array([noise(table, prior, model).nu_drawn for model in models.values()])


def _noise(
    priors: Sequence[Prior], sizes: Sequence[int], current: int, methods: Sequence[str],
    models: Sequence[Mapping[str, Model]],
) -> tuple[Noise, ...]:  # fmt: skip
    names = [REFERENCE, *(m for m in dict.fromkeys(methods) if m != REFERENCE and not needs_prior(m))]
    found = {
        (name, g): np.stack([scales(name, prior, g, known) for prior, known in zip(priors, models, strict=False)])
        for name in names
        for g in sizes
    }
    base = found[REFERENCE, current]
    return tuple(
        Noise(g, name, _ratio(found[REFERENCE, g], found[name, g], models[0]), _ratio(found[name, g], base, models[0]))
        for name in names
        for g in sizes
    )


def _ratio(above: Array, below: Array, models: Iterable[str]) -> dict[str, Estimate]:
    """By model; the first row is the estimate, the others are replicates."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = above / below
    known = {name: x for name, x in zip(models, value.T, strict=True) if np.isfinite(x).all() and x.min() > 0}
    return {name: spread(float(x[0]), x[1:], WIDER) for name, x in known.items()}


def history(population: Population, current: int, seed: int) -> History | None:
    """What memories of a prompt's own past leave of the error, its visits met in order; None where too few recur.

    Prompts with at least the median number of visits. A part of each visit's rollouts is trained on, the rest stands
    for the truth (see `studies.recorded.replay`).
    """
    n = population.n
    if population.step is None or population.successes is None or len(np.unique(n)) > 1 or n[0] < 4:
        return None
    order = np.lexsort((population.step, population.prompt))
    _, start, many = np.unique(population.prompt[order], return_index=True, return_counts=True)
    visits = min(int(np.median(many)), VISITS)
    start = start[many >= visits][:PROMPTS]
    if visits < 2 or len(start) < LEAST:
        return None
    right_PV = population.successes[order][start[:, None] + np.arange(visits)].astype(np.int64)
    run = Recorded("log", tuple(map(str, range(len(start)))), int(n[0]), right_PV, visits)
    size = min(current, run.rollouts // 2)
    parts = replay.split(run, size, visits, 2, seed)
    weights_BP = replay.resampled(len(start), seed)
    plain_P, *mine = (
        replay.errors(replay.bound(name), parts, 128)[:, 1:].sum(axis=1) for name in (REFERENCE, *REMEMBERING)
    )
    if not plain_P.sum() > 0:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = {r: Estimate(*replay.ratio(weights_BP, m, plain_P)) for r, m in zip(REMEMBERING, mine, strict=True)}
    return History(size, len(start), visits, ratio)
