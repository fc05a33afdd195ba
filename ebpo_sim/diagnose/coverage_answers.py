"""Coverage of the answers' intervals: noise by method and G, what history saves, windows of steps, dynamic sampling.

Truths are exact on the world, but for history: there it is the mean of all data sets' estimates, which are unbiased
(`studies.recorded.replay`) but for a term of order 1/prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.noise import MODELS, SHARE, Model, Scores
from ebpo_sim.diagnose import answers
from ebpo_sim.diagnose.columns import Columns
from ebpo_sim.diagnose.gathering import gather
from ebpo_sim.diagnose.intervals import LEVEL, Estimate, components
from ebpo_sim.diagnose.population import Population, populations
from ebpo_sim.diagnose.shape import shape, zero_signal
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.formulas import degenerate_probability
from ebpo_sim.tables import Chunk
from ebpo_sim.worlds import World, intra_class_correlation, parse_world

WORLDS = ("beta:2,3", "beta:0.5,0.7", "points:0.2,0.7")
METHOD = "ebpo_debiased"
Case = tuple[str, Estimate, float]


class Design(NamedTuple):
    """Data sets a world; prompts, their visits and the rollouts of each; prompts of a window of steps; G and another;
    bootstrap draws."""

    sets: int = 100
    prompts: int = 256
    visits: int = 4
    rollouts: int = 8
    window: int = 64
    group_size: int = 8
    other: int = 4
    draws: int = 400
    seed: int = 0


def right(p: ArrayLike) -> Array:
    return np.asarray(2.0 - np.asarray(p, dtype=np.float64))


def wrong(p: ArrayLike) -> Array:
    return np.asarray(1.0 + 2 * np.asarray(p, dtype=np.float64))


def true_norms(world: World) -> Model:
    """Norms that depend on the pass rate, wrong answers' the more."""
    prior = world.quadrature(4)
    p, share = np.asarray(prior.nodes), np.asarray(prior.weights)
    mean = float(share @ (p * right(p) + (1 - p) * wrong(p)))

    def model(p: ArrayLike) -> Scores:
        return Scores(right(p), wrong(p), np.full_like(right(p), SHARE * mean))

    return model


def simulate(world: World, design: Design, rng: np.random.Generator) -> Population:
    """A log of rollouts: every prompt at every visit, with exponentially distributed norms."""
    p = rng.permutation(world.sample(rng, design.prompts))  # of points they come sorted
    p_NR = np.repeat(np.repeat(p, design.visits), design.rollouts)
    reward = (rng.random(p_NR.size) < p_NR).astype(np.float64)
    norm = np.where(reward == 1, right(p_NR), wrong(p_NR)) * rng.exponential(1.0, p_NR.size)
    prompt = np.repeat(np.arange(design.prompts), design.visits * design.rollouts)
    step = np.tile(np.repeat(np.arange(design.visits), design.rollouts), design.prompts)
    columns = {"prompt_id": prompt, "step": step, "reward": reward, "score_norm": norm}
    roles = {"prompt": "prompt_id", "step": "step", "score_norm": "score_norm"}
    chunk = Chunk("simulated", 1, columns, len(reward))
    return populations(gather(iter([chunk]), Columns("rollouts", roles, ("reward",))))[0]


def study(text: str, design: Design) -> list[dict[str, Any]]:
    """Rows of world, quantity, truth, data sets, coverage and its standard error.

    All but history see one visit of each prompt. worst batches: the share of steps that take at most the stated number,
    exact for each data set; a whole number, so at least 95 % where the prior is known.
    """
    world = parse_world(text)
    rng, size = np.random.default_rng([design.seed, *text.encode()]), design.group_size
    prior, sizes = rule(world, 32), (design.other, size)
    silent = float(np.asarray(prior.weights) @ degenerate_probability(np.asarray(prior.nodes), size))
    true = {
        (name, g, model): float(scale)
        for name in (REFERENCE, METHOD)
        for g in sizes
        for models in (MODELS, {answers.LOGGED: true_norms(world)})
        for model, scale in zip(models, answers.scales(name, prior, g, models), strict=True)
    }
    seen: dict[str, list[tuple[Estimate, float]]] = {}
    worst: list[float] = []
    for i in range(design.sets):
        log = simulate(world, design, rng)
        first = log.select(np.asarray(log.step) == 0)
        window = first.select(first.prompt < design.window)
        found, quiet = components(window, design.draws, i), zero_signal(window.counts, None, size)
        cases = [("window: ICC", found.icc, intra_class_correlation(world)), ("window: mean", found.mean, prior.mean)]
        cases += [("window: silent groups", quiet[0], silent)] if quiet is not None else []
        past = answers.history(log, size, i)
        cases += [(f"history: {name}", e, np.nan) for name, e in past.ratio.items()] if past is not None else []
        shaped = None if first.counts is None else shape(first.counts, answers.RESAMPLES, i)
        if shaped is not None:
            for log_of in (first, replace(first, norms_P2=None)):
                told = answers.answers(log_of, shaped, sizes, size, (METHOD,), answers.RESAMPLES, i)
                cases += _noise(told, true, design)
            worst += [_within(b, silent) for b in told.batches if b.group_size == size]
        for name, estimate, truth in cases:
            seen.setdefault(name, []).append((estimate, truth))
    rows = [_row(text, name, pairs) for name, pairs in seen.items()]
    spread = float(np.std(worst) / np.sqrt(len(worst)))
    return [*rows, {"world": text, "quantity": "worst batches", "truth": None, "sets": len(worst),
                    "coverage": float(np.mean(worst)), "coverage_se": spread}]  # fmt: skip


def _noise(told: answers.Answers, true: Mapping[tuple[str, int, str], float], design: Design) -> list[Case]:
    """Worth of the method at G, and GRPO's noise at the other G over that at G."""
    size, other, cases = design.group_size, design.other, []
    mine, plain = told.at(size, METHOD), told.at(other, REFERENCE)
    assert mine is not None and plain is not None
    for model, estimate in mine.effective.items():
        worth = true[REFERENCE, size, model] / true[METHOD, size, model]
        cases.append((f"worth of a rollout, {model}", estimate, worth))
        ratio = true[REFERENCE, other, model] / true[REFERENCE, size, model]
        cases.append((f"noise at G = {other}, {model}", plain.scale[model], ratio))
    return cases


def _within(stated: answers.Batches, silent: float) -> float:
    """P(a step takes at most the stated batches), given the true share of silent groups."""
    return 1 - float(binom.cdf(stated.prompts - 1, stated.worst * stated.prompts, 1 - silent))


def _row(world: str, quantity: str, pairs: Sequence[tuple[Estimate, float]]) -> dict[str, Any]:
    mean = float(np.mean([e.value for e, _ in pairs]))
    true = [mean if np.isnan(truth) else truth for _, truth in pairs]
    held = [
        e.low <= t <= e.high for (e, _), t in zip(pairs, true, strict=True) if e.low is not None and e.high is not None
    ]
    share = float(np.mean(held))
    return {
        "world": world, "quantity": quantity, "truth": true[0], "sets": len(held), "coverage": share,
        "coverage_se": float(np.sqrt(LEVEL * (1 - LEVEL) / len(held))),
    }  # fmt: skip
