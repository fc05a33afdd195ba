"""Exact gradient noise: against enumeration, against redraws on the chains, and the optima that it claims."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.measures import quality, sampled_gradients
from ebpo_sim.chains.population import bandit, success_gradient
from ebpo_sim.counts.exact import rule, table_risk
from ebpo_sim.counts.noise import (
    Model,
    baseline_noise,
    best_baseline,
    equal,
    leave_one_out,
    noise,
    one_logit,
    softmax,
)
from ebpo_sim.counts.updates import advantages_by_count, limit_advantages, raw_table
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import count_groups
from ebpo_sim.methods import step as methods
from ebpo_sim.methods.method import Method
from ebpo_sim.numbers.mixing import Prior, count_pmf
from ebpo_sim.objectives import Aggregation
from ebpo_sim.sampling import Ask, Order, Pool
from ebpo_sim.worlds import parse_world

Array = NDArray[np.float64]
Keep = Callable[[int, int, Array], float]  # of k, r and the score
P = (0.3, 0.85)
WEIGHTS = (0.6, 0.4)
TWO = Prior(P, WEIGHTS)


class Answer(NamedTuple):
    """One possible rollout: its probability, reward and score."""

    chance: float
    reward: int
    score: Array


def arms_of(p: float, arms: int) -> list[Answer]:
    """Every arm of a softmax policy, arm 0 right."""
    pi = np.array([p] + [(1 - p) / (arms - 1)] * (arms - 1))
    return [Answer(float(pi[a]), int(a == 0), np.eye(arms)[a] - pi) for a in range(arms)]


def one_logit_of(p: float) -> list[Answer]:
    return [Answer(p, 1, np.array([1 - p])), Answer(1 - p, 0, np.array([-p]))]


def equal_of(p: float, share: float) -> list[Answer]:
    """|s| = 1: a common part along h, the rest up or down."""
    found = []
    for reward, chance, along in ((1, p, np.sqrt(share) * (1 - p)), (0, 1 - p, -np.sqrt(share) * p)):
        across = np.sqrt(1 - along**2)
        found += [Answer(chance / 2, reward, np.array([along, sign * across])) for sign in (-1, 1)]
    return found


CASES: dict[str, tuple[Model, Callable[[float], list[Answer]], int]] = {
    "one_logit": (one_logit, one_logit_of, 4),
    "softmax 2": (partial(softmax, arms=2), partial(arms_of, arms=2), 3),
    "softmax 3": (partial(softmax, arms=3), partial(arms_of, arms=3), 3),
    "equal": (partial(equal, share=0.4), partial(equal_of, share=0.4), 3),
}


def moments(answers: list[Answer], table: Array, keep: Keep) -> tuple[Array, float, Array]:
    """E g, E|g|^2 and h over all groups; a row is kept with probability keep(k, r, s), then weighed by its inverse."""
    group_size = len(table) - 1
    mean, square = np.zeros_like(answers[0].score), 0.0
    for group in itertools.product(answers, repeat=group_size):
        chance = float(np.prod([x.chance for x in group]))
        k = sum(x.reward for x in group)
        rows = np.array([table[k, x.reward] * x.score for x in group])
        gradient = rows.sum(axis=0) / group_size
        q = np.array([keep(k, x.reward, x.score) for x in group])
        extra = np.sum(np.sum(rows**2, axis=1) * (1 / np.where(q > 0, q, 1) - 1)) / group_size**2
        mean, square = mean + chance * gradient, square + chance * (gradient @ gradient + extra)
    h = sum((x.chance * x.reward * x.score for x in answers), np.zeros_like(mean))
    return mean, square, h


def always(k: int, r: int, score: Array) -> float:
    return 1.0


@pytest.mark.parametrize("name", CASES)
def test_noise_is_that_of_all_groups(name: str) -> None:
    """Guards every field and noise scale: a random table's by enumeration of all answers, two prompts, to rounding."""
    model, answers, group_size = CASES[name]
    table = np.random.default_rng(0).normal(size=(group_size + 1, 2))
    table[1, 0] = table[2, :] = 0.0  # some rows and one group are silent
    found = [moments(answers(p), table, always) for p in P]
    variance = [square - mean @ mean for mean, square, _ in found]
    w = np.array(WEIGHTS)
    got = noise(table, TWO, model)
    h2, signal = [h @ h for *_, h in found], [mean @ h for mean, _, h in found]
    assert got.noise == pytest.approx(group_size * w @ variance, rel=1e-12)
    assert got.square == pytest.approx(w @ h2, rel=1e-12)
    assert got.signal == pytest.approx(w @ signal, rel=1e-12)
    assert got.biased == pytest.approx(w @ [mean @ mean for mean, *_ in found], rel=1e-12)
    # M = 2 prompts of equal weight, G rollouts each, in blocks of their own: g and e are the blocks' halves.
    even = noise(table, Prior(P, (0.5, 0.5)), model)
    e = np.concatenate([h / 2 for *_, h in found])
    mean = np.concatenate([mean / 2 for mean, *_ in found])
    along = mean @ e / np.sqrt(e @ e)
    assert 2 * even.nu == pytest.approx(2 * group_size * sum(v / 4 for v in variance) / along**2, rel=1e-12)
    assert even.cosine == pytest.approx(along / np.sqrt(mean @ mean), rel=1e-12)
    slopes = sum(float(s / np.sqrt(x)) / 2 for s, x in zip(signal, h2, strict=True))
    assert even.nu_together == pytest.approx(group_size * sum(variance) / 2 / slopes**2, rel=1e-12)
    # One group a batch, of a random prompt of the two: the second moment over prompts, less |E g|^2, here (1/M) of it.
    second = sum((v + mean @ mean) / 2 for v, (mean, *_) in zip(variance, found, strict=True))
    assert 2 * even.nu_drawn == pytest.approx(group_size * second / along**2, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_silence_and_rows_are_counted(name: str) -> None:
    """Guards silent and rows: GRPO's are the groups and rollouts of mixed groups; p = 0 and 1 are silent, and noiseless
    where answers have nothing left to learn."""
    model, _, group_size = CASES[name]
    got = noise(limit_advantages(make("grpo"), parse_world("points:0.3,0.85"), group_size), TWO, model)
    silent = sum(w * (p**group_size + (1 - p) ** group_size) for p, w in zip(P, WEIGHTS, strict=True))
    assert got.silent == pytest.approx(silent, rel=1e-12)
    assert got.rows == pytest.approx(1 - silent, rel=1e-12)
    certain = noise(np.ones((group_size + 1, 2)), Prior((1.0,), (1.0,)), model)
    assert (certain.noise, certain.square) == (0 if name != "equal" else 1, 0)
    assert np.isnan(certain.nu)


@pytest.mark.parametrize("name", ["one_logit", "softmax 3", "equal"])
@pytest.mark.parametrize("rows", [0.2, 0.55, 0.9])
def test_skipped_rows(name: str, rows: float) -> None:
    """Guards unbiased skipping: q from bisection on its mean, the noise from all groups and all choices of rows; a
    single answer's |s| is its class's."""
    model, answers, _ = CASES[name]
    group_size, table = 2, np.array([[-0.1, 9.0], [-0.7, 1.3], [9.0, 0.4]])
    cells = [
        (
            w * np.prod([x.chance for x in group]) / group_size,
            abs(table[sum(y.reward for y in group), x.reward]),
            x.score,
        )
        for p, w in zip(P, WEIGHTS, strict=True)
        for group in itertools.product(answers(p), repeat=group_size)
        for x in group
    ]
    mass, size = np.array([c[0] for c in cells]), np.array([c[1] * np.sqrt(c[2] @ c[2]) for c in cells])
    low, high = 1e-9, 1e9
    for _ in range(200):
        tau = np.sqrt(low * high)
        low, high = (tau, high) if mass @ np.minimum(1, size / tau) > rows else (low, tau)
    expected = 0.0
    for p, w in zip(P, WEIGHTS, strict=True):

        def keep(k: int, r: int, score: Array, tau: float = tau) -> float:
            return min(1.0, float(abs(table[k, r]) * np.sqrt(score @ score) / tau))

        mean, square, _ = moments(answers(p), table, keep)
        expected += w * group_size * float(square - mean @ mean)
    got = noise(table, TWO, model, rows)
    assert got.noise == pytest.approx(expected, rel=1e-9)
    assert got.rows == rows
    assert noise(table, TWO, model).noise < got.noise


def test_rows_that_cannot_count_are_skipped_for_nothing() -> None:
    """Guards the edges of skipping: silent rows cost no noise; no rows at all are refused."""
    table = raw_table(make("grpo"), parse_world("points:0.3,0.85"), 4)
    plain = noise(table, TWO, one_logit)
    assert noise(table, TWO, one_logit, plain.rows).noise == pytest.approx(plain.noise, rel=1e-12)
    assert noise(table, TWO, one_logit, 0.9 * plain.rows).noise > plain.noise * 1.001
    for rows in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="rows must lie"):
            noise(table, TWO, one_logit, rows)


def test_the_group_means_closed_form() -> None:
    """Guards RLOO: G Var = ((G-2)(p(1-p)((1-p)a + p c) - |h|^2) + p(1-p)(a + c))/(G-1), in every score model."""
    p = 0.3
    for model in (one_logit, softmax, equal):
        for group_size in (2, 3, 8):
            a, c, apart = (float(x[0]) for x in model(np.array([p])))
            h2 = (p * (1 - p)) ** 2 * apart
            spread = p * (1 - p)
            exact = ((group_size - 2) * (spread * ((1 - p) * a + p * c) - h2) + spread * (a + c)) / (group_size - 1)
            got = noise(raw_table(make("rloo"), parse_world("points:0.3"), group_size), Prior((p,), (1.0,)), model)
            assert got.noise == pytest.approx(exact, rel=1e-12)
            assert got.cosine == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_redraws_on_the_chains_agree(name: str) -> None:
    """Guards the meaning of nu: five prompts of a softmax bandit, and what the chains' own gradients say of them.

    30 estimates of 100 redraws each; their mean lies within 4.5 of its standard errors (false-fail rate 1e-4 each),
    which are below 1.5 % of it. An estimate's own bias is about 3/100 of (noise along e)/signal^2, 0.2 %."""
    p_P, group_size, blocks, redraws = np.array([0.1, 0.3, 0.5, 0.8, 0.9]), 8, 30, 100
    population, estimator, count = bandit(p_P), make(name), len(p_P)
    theta, prompts, pool = population.start_SK, population.prompts, Pool(count)
    method, ask = Method(name, estimator, allocation=Order("uniform")), Ask(0, 1, count, group_size)
    state, rng = methods.start(method), np.random.default_rng(11)
    batches = (collect(theta, prompts, pool, method, state, ask, 0, rng) for _ in range(blocks * redraws))
    gradients = sampled_gradients(theta, batches, Aggregation())
    h = success_gradient(theta, prompts)
    found = count * group_size * np.array([quality(g, h).variance for g in np.split(gradients, blocks)])
    table = advantages_by_count(estimator, estimator.init(), count_groups(group_size), group_size)
    exact = count * noise(table, Prior(tuple(p_P.tolist()), (1 / count,) * count), softmax).nu
    se = float(found.std(ddof=1) / np.sqrt(blocks))
    assert se < 0.015 * exact
    assert abs(found.mean() - exact) < 4.5 * se


@st.composite
def worlds(draw: st.DrawFn) -> Prior:
    """Up to four prompts, certain ones among them."""
    nodes = draw(st.lists(st.sampled_from([i / 20 for i in range(21)]), min_size=1, max_size=4, unique=True))
    weights = np.array([draw(st.integers(1, 9)) for _ in nodes], dtype=np.float64)
    return Prior(tuple(nodes), tuple((weights / weights.sum()).tolist()))


def rule_of(f: Array) -> Array:
    """The advantages of a function of the others' successes."""
    return np.stack([-np.append(f, f[-1]), 1 - np.append(f[0], f)], axis=-1)


models = st.sampled_from([equal, one_logit, softmax, partial(softmax, arms=20)])


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(2, 6), models, st.data())
def test_no_function_of_the_others_beats_the_tables(prior: Prior, group_size: int, model: Model, data: Any) -> None:
    """Guards the theorem, exactly over worlds, models and rules: the table of success counts has the least error of all
    leave-one-out rules, the score-weighted one the least second moment of a row, the whole optimum the least noise."""
    values = st.floats(-1, 2, allow_nan=False)
    f = np.array(data.draw(st.lists(values, min_size=group_size, max_size=group_size)))
    tables = {w: leave_one_out(prior, group_size, model, w) for w in ("none", "score", "constant", "best")}

    def error(table: Array) -> float:
        return table_risk(np.array([0.0, 1.0]) - table, prior, group_size)[0]

    def second(table: Array) -> float:
        """E W A^2 of one row."""
        p, k = np.asarray(prior.nodes), np.arange(group_size)
        pmf, s = count_pmf(prior.nodes, group_size - 1, k), model(p)
        each = pmf @ table[1:, 1] ** 2 * p * s.right_J + pmf @ table[:-1, 0] ** 2 * (1 - p) * s.wrong_J
        return float(np.asarray(prior.weights) @ each)

    for other in (rule_of(f), *tables.values()):
        assert error(tables["none"]) <= error(other) + 1e-12
        assert second(tables["score"]) <= second(other) + 1e-12
        assert noise(tables["best"], prior, model).noise <= noise(other, prior, model).noise + 1e-12
    for number in (0.0, *f):
        assert second(tables["constant"]) <= second(rule_of(np.full(group_size, number))) + 1e-12


@settings(max_examples=100, deadline=None)
@given(worlds(), models, st.lists(st.floats(-1, 2), min_size=4, max_size=4))
def test_no_independent_baseline_beats_the_best(prior: Prior, model: Model, numbers: list[float]) -> None:
    """Guards b*: no baseline of the prompt that is independent of the scored rollout has less noise, exactly."""
    p = np.asarray(prior.nodes)
    least = baseline_noise(best_baseline(p, model), prior, model)
    for b in (np.array(numbers[: len(p)]), p, p * 0, p * 0 + prior.mean):
        assert least <= baseline_noise(b, prior, model) + 1e-12


def test_the_optima_are_strict_and_apart() -> None:
    """Guards the power of both: each optimum beats the others by a margin where the models differ, the best b* is
    p(1-p)/(1+p) for many arms and p for equal norms; a constant's noise is `baseline_noise`."""
    prior, group_size = rule(parse_world("beta:1,2"), 32), 4
    tables = {w: leave_one_out(prior, group_size, one_logit, w) for w in ("none", "score", "constant", "best")}
    noises = {w: noise(table, prior, one_logit).noise for w, table in tables.items()}
    assert noises["best"] < 0.99 * noises["score"] < 0.9 * noises["none"]
    same = [leave_one_out(prior, group_size, partial(equal, share=0.0), w) for w in ("none", "score", "best")]
    assert same[1] == pytest.approx(same[0], abs=1e-10)
    assert same[2] == pytest.approx(same[0], abs=1e-10)
    many, p = partial(softmax, arms=10**7), np.array([0.05, 0.4, 0.9])
    assert best_baseline(p, many) == pytest.approx(p * (1 - p) / (1 + p), abs=1e-6)
    assert best_baseline(p, equal) == pytest.approx(p, abs=1e-15)
    constant = float(tables["constant"][0, 0])
    assert baseline_noise(-constant, prior, one_logit) == pytest.approx(noises["constant"], rel=1e-10)


@pytest.mark.parametrize(("call", "text"), [
    (lambda: equal(0.5, share=1.5), r"share must lie in \[0, 1\], got 1.5"),
    (lambda: softmax(0.5, arms=1), "at least 2 arms, got 1"),
    (lambda: leave_one_out(TWO, 1, equal), "group_size must be at least 2, got 1"),
])  # fmt: skip
def test_impossible_settings_are_refused(call: Callable[[], object], text: str) -> None:
    """Guards the one-line refusals."""
    with pytest.raises(InputError, match=text):
        call()
