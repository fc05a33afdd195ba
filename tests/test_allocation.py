"""Allocations that recall every prompt: what they plan, by hand; what objective they climb."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc

from battery import assert_same
from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.population import bandit
from ebpo_sim.chains.rung import TrainingConfig, ask_of, build_method, pool_of, train
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards
from ebpo_sim.methods.checkpoint import dump_state, load_state
from ebpo_sim.methods.method import Method
from ebpo_sim.methods.step import decide, start
from ebpo_sim.part import Draw
from ebpo_sim.sampling import (
    Ask,
    Knapsack,
    LeastVariance,
    MoPPS,
    Plan,
    Pool,
    SkipSilent,
    VarianceProportional,
    check_plan,
    dealt,
    make_allocation,
    make_selection,
    weights_of,
)
from ebpo_sim.sampling.ranked import Ranked
from ebpo_sim.sampling.recall import keys_of

RECALLING = ("variance_proportional", "mopps", "skip_silent", "knapsack", "least_variance")
POOL = Pool(5)


def learnt(part: Any, *batches: dict[int, list[float]]) -> Any:
    """The memory after batches of {prompt: its rewards}."""
    state = part.init()
    for batch in batches:
        rows = [(prompt, reward) for prompt, rewards in batch.items() for reward in rewards]
        groups = group_rewards([r for _, r in rows], [p for p, _ in rows])
        state = part.merge(part.forget(state), part.observe(groups))
    return state


SEEN = ({0: [1, 1, 1, 1], 1: [0, 0, 0, 0], 2: [1, 0, 1, 0]}, {0: [1, 1, 0, 1], 1: [0, 0, 0, 0], 3: [0, 0, 0, 1]})


def test_what_is_known_of_a_prompt() -> None:
    """alpha <- r alpha + (1 - r) prior + successes, beta alike; new ones at the prior; ids as batches name them."""
    part = MoPPS(retention=0.5)
    alpha_P, beta_P = part.beta(learnt(part, *SEEN), POOL)
    np.testing.assert_allclose(alpha_P, [1 + 0.5 * 4 + 3, 1, 1 + 2, 1 + 1, 1], rtol=1e-15)
    np.testing.assert_allclose(beta_P, [1 + 1, 1 + 0.5 * 4 + 4, 1 + 2, 1 + 3, 1], rtol=1e-15)
    named = Pool(2, ids=("b", "a"))
    groups = group_rewards([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    assert part.rates(part.observe(groups), named).tolist() == [0.25, 0.75]
    assert keys_of(named) is keys_of(named)
    with pytest.raises(InputError, match="ids must have one entry for each of 3 prompts, got 1"):
        Pool(3, ids=("a",))
    with pytest.raises(InputError, match=r"MoPPS learns pass rates: rewards must lie in \[0, 1\]"):
        part.observe(group_rewards([[2.0, 0.0]], prompt_ids=[0]))


@given(live=st.lists(st.lists(st.booleans(), min_size=1, max_size=3), max_size=40))
def test_silent_visits_are_counted(live: list[list[bool]]) -> None:
    """z from the memory is the run of silent visits at the end, whatever came before; several groups are one visit."""
    part, state = SkipSilent(), SkipSilent().init()
    expected = 0
    for groups in live:
        batch = group_rewards([[1.0, 0.0] if x else [1.0, 1.0] for x in groups], prompt_ids=[3] * len(groups))
        state = part.merge(part.forget(state), part.observe(batch))
        expected = 0 if any(groups) else expected + 1
    assert part.silent_visits(state, POOL).tolist() == [0, 0, 0, expected, 0]


@pytest.mark.parametrize("part", [Knapsack(most=7), LeastVariance(most=7)], ids=lambda p: type(p).__name__)
@settings(max_examples=25)
@given(rates=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4), group_size=st.integers(2, 6))
def test_dealing_one_by_one_is_optimal(part: Any, rates: list[float], group_size: int) -> None:
    """Of all sizes with the same sum none is worth more (every one is tried), by the value itself, not its gains."""

    def worth(p: float, n: int) -> float:
        if isinstance(part, Knapsack):
            return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2
        return -p * (1 - p) / (n - 1)

    size_P, total = part.sizes(np.array(rates), group_size), group_size * len(rates)
    assert size_P.sum() == total and size_P.min() >= 2 and size_P.max() <= 7
    choices = itertools.product(range(2, 8), repeat=len(rates))
    best = max(sum(map(worth, rates, sizes)) for sizes in choices if sum(sizes) == total)
    assert sum(map(worth, rates, size_P.tolist())) == pytest.approx(best, abs=1e-12)


def test_sizes_by_hand() -> None:
    """Knapsack: of p = 1/3 and p = 0 all goes to the first; what no prompt is worth goes to those that always fail, in
    turn. LeastVariance: n - 1 about proportional to sqrt(p (1 - p)); weights G/n."""
    assert Knapsack(most=10).sizes(np.array([1 / 3, 0.0]), 6).tolist() == [10, 2]
    assert Knapsack(most=10).sizes(np.array([1.0, 0.0, 0.0]), 4).tolist() == [2, 5, 5]
    assert dealt(np.zeros((2, 4)), np.array([0.5, 0.5]), 7, 2).tolist() == [4, 3]
    sizes = LeastVariance(most=1000).sizes(np.array([0.5, 0.1]), 401)
    assert (sizes[0] - 1) / (sizes[1] - 1) == pytest.approx(0.5 / 0.3, rel=0.01)
    part = LeastVariance()
    plan = part.plan(learnt(part, *SEEN), POOL, Ask(0, 1, 5, 4), Draw(0, "allocation", 0))
    assert plan.weight_P is not None and np.ptp(plan.size_P) > 0
    np.testing.assert_allclose(plan.weight_P * plan.size_P, 4)
    assert Knapsack().plan(part.init(), POOL, Ask(0, 1, 5, 4), Draw(0, "", 0)).weight_P is None


def climbed(part: Any, state: Any, pool: Pool, ask: Ask, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard error) over plans of omega, the sums of size x weight x P/N."""
    sums = np.zeros((draws, pool.count))
    for step in range(draws):
        plan = part.plan(state, pool, ask._replace(step=step, steps=draws), Draw(7, "allocation", step))
        weight_P = np.ones(len(plan.size_P)) if plan.weight_P is None else plan.weight_P
        np.add.at(sums[step], plan.prompt_P, plan.size_P * weight_P)
    sums *= pool.count / (ask.prompts * ask.group_size)
    return sums.mean(axis=0), sums.std(axis=0, ddof=1) / np.sqrt(draws)


@pytest.mark.parametrize("name", RECALLING)
def test_unbiased_weights_climb_the_mean(name: str) -> None:
    """All omega are 1, on average over plans, where a weight is asked for: 4,000 plans of 2 of 5 prompts, |z| below 5
    for each (false-fail rate 6e-7 a prompt), where without weights they are not."""
    ask = Ask(0, 1, 2, 4)
    for weights, biased in (("unbiased", False), ("none", True)):
        part = make_allocation(f"{name}:weights={weights}")
        mean, se = climbed(part, learnt(part, *SEEN), POOL, ask, 4000)
        assert np.all(np.abs(mean - 1) < 5 * se + 1e-9) is not biased, (weights, mean)
        if not biased:
            assert part.objective(learnt(part, *SEEN), POOL, ask).tolist() == [1.0] * 5


class Levels(Ranked):
    """Ranks of a few levels, given one after the other, that never meet those of another prompt."""

    weights, highest = "unbiased", 99.0
    mass_PK = np.array([[0.1, 0.4, 0.2, 0.3], [0.6, 0.1, 0.1, 0.2], [0.25, 0.25, 0.25, 0.25]])
    rank_PK = np.arange(4) + np.array([[0.1], [0.2], [0.3]])

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.given = self.rank_PK[range(3), levels]

    def knowledge(self, state: Any, pool: Pool) -> Any:
        return None

    def ranks(self, known: Any, rng: np.random.Generator) -> Any:
        return self.given

    def below(self, known: Any, tau: float) -> Any:
        return np.sum(self.mass_PK * (self.rank_PK < tau), axis=1)


@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_inverse_probability_of_ranks_is_exact(prompts: int) -> None:
    """All outcomes of ranks, no sampling: E[weight x P/M of prompt i, 0 where it is not drawn] is 1, less the chance
    that no rank of its own could have been low enough, for every i."""
    weighed, possible = np.zeros(3), np.zeros(3)
    for levels in itertools.product(range(4), repeat=3):
        part = Levels(levels)
        chance = float(np.prod(part.mass_PK[range(3), levels]))
        plan = part.plan((), Pool(3), Ask(0, 1, prompts, 4), Draw(0, "", 0))
        assert plan.weight_P is not None
        weighed[plan.prompt_P] += chance * plan.weight_P * 3 / prompts
        for i in range(3):
            others = np.sort(np.delete(part.given, i))
            tau = others[prompts - 1] if prompts < 3 else 99.0
            possible[i] += chance * (part.below(None, tau)[i] > 0)
    np.testing.assert_allclose(weighed, possible, rtol=1e-12)
    assert possible.min() > 0.3


def test_distributions_of_ranks() -> None:
    """F is 0 at 0, 1 at the highest, rises, and is that of the ranks: 2,000 draws within 5 standard errors (6e-7)."""
    for part in (MoPPS(), SkipSilent()):
        known = part.knowledge(learnt(part, *SEEN), POOL)
        F_T = np.array([part.below(known, t) for t in np.linspace(0, part.highest, 201)])
        assert np.all(np.diff(F_T, axis=0) >= 0) and np.allclose(F_T[0], 0) and np.allclose(F_T[-1], 1)
        drawn = np.array([part.ranks(known, np.random.default_rng(seed)) for seed in range(2000)])
        for t in (0.1, 0.4, 0.8, 1.0, 1.5):
            F = part.below(known, min(t, part.highest))
            assert np.all(np.abs((drawn < t).mean(axis=0) - F) <= 5 * np.sqrt(F * (1 - F) / 2000) + 1e-9)


def test_what_objective_each_climbs() -> None:
    """omega without weights: P q exactly for independent draws, size/G for the whole pool; by ranks the limit of large
    pools, here of 600 prompts of five kinds within 4 standard errors and 3 % of a batch of 150."""
    part = VarianceProportional(power=1.0, floor=0.0)
    state, ask = learnt(part, *SEEN), Ask(0, 1, 2, 4)
    q = (rate := part.rates(state, POOL)) * (1 - rate)
    np.testing.assert_allclose(part.objective(state, POOL, ask), 5 * q / q.sum(), rtol=1e-12)
    dealer = Knapsack()
    state = learnt(dealer, *SEEN)
    whole = dealer.plan(state, POOL, ask._replace(prompts=5), Draw(0, "", 0))
    omega = dealer.objective(state, POOL, ask)
    assert omega[whole.prompt_P].tolist() == (whole.size_P / 4).tolist() and omega.mean() == 1
    for ranked in (MoPPS(), SkipSilent()):
        pool, many = Pool(600), {}
        for prompt in range(600):
            many[prompt] = SEEN[0].get(prompt % 5, SEEN[1].get(prompt % 5, [0.0, 1.0]))
        state, ask = learnt(ranked, many, many), Ask(0, 1, 150, 4)
        mean, se = climbed(ranked, state, pool, ask, 400)
        kinds = mean.reshape(-1, 5).mean(axis=0)
        limit = ranked.objective(state, pool, ask).reshape(-1, 5).mean(axis=0)
        assert np.all(np.abs(kinds - limit) < 4 * se.reshape(-1, 5).mean(axis=0) / np.sqrt(120) + 0.03), (kinds, limit)
        assert limit.mean() == pytest.approx(1) and np.ptp(limit) > 0.3
        assert ranked.objective(state, pool, ask._replace(prompts=600)).tolist() == [1.0] * 600


def test_thompson_draws_are_the_posteriors() -> None:
    """The chance of the batch of one of two prompts is the integral of f_0 (1 - F_1): 4,000 plans within 5 standard
    errors (6e-7)."""
    part, pool = MoPPS(target=0.3), Pool(2)
    state = learnt(part, {0: [1, 0, 0, 0], 1: [1, 1, 1, 0]})
    (a, b), t = part.knowledge(state, pool), np.linspace(0, 1, 20_001)
    F = [betainc(a[i], b[i], np.clip(0.3 + t, 0, 1)) - betainc(a[i], b[i], np.clip(0.3 - t, 0, 1)) for i in (0, 1)]
    chance = float(np.sum(np.diff(F[0]) * (1 - (F[1][1:] + F[1][:-1]) / 2)))
    mean, _ = climbed(part, state, pool, Ask(0, 1, 1, 4), 4000)
    assert abs(mean[0] / 2 - chance) < 5 * np.sqrt(chance * (1 - chance) / 4000) and 0.6 < chance < 0.95


def test_weights_reach_the_advantages() -> None:
    """Guards `decide`: a plan's weights multiply the advantages of its groups, of all generation batches and under a
    selection, and nothing else; what the estimator learns is the same."""
    groups = group_rewards([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], prompt_ids=[1, 2, 3])
    weight_P = np.array([2.0, 3.0, 0.5])
    for text in ("", "dynamic:batches=1", "keep_rows:share=1"):
        method = Method("m", make("ebpo_debiased"))
        if text:
            method = method._replace(selection=make_selection(text))
        plain, weighed = (decide(method, start(method), groups, Ask(0, 1, 3, 2), 0, w) for w in (None, weight_P))
        np.testing.assert_allclose(weighed.advantage_PG, plain.advantage_PG * weight_P[:, None], rtol=1e-15)
        assert np.any(plain.advantage_PG) and repr(weighed.state) == repr(plain.state)
    ones = Plan(np.array([0, 1]), np.array([2, 2]))
    assert weights_of([ones, ones]) is None
    assert weights_of([ones, ones._replace(weight_P=np.array([0.5, 2.0]))]).tolist() == [1, 1, 0.5, 2]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="mine must plan weight_P finite and at least 0"):
        check_plan(ones._replace(weight_P=np.array([1.0, -1.0])), Pool(4), "mine")


@pytest.mark.parametrize("name", RECALLING)
def test_on_the_chains(name: str, tmp_path: Any) -> None:
    """Guards the rung: the memory learns from every group drawn, weights arrive, and a run that was cut in the middle
    ends in the same bits; the state survives its checkpoint."""
    population = bandit(np.linspace(0.05, 0.95, 12), 4)
    config = TrainingConfig(
        f"rloo + {name}:weights=unbiased", group_size=4, prompts=6, steps=6, minibatches=2, record_every=3,
        gradient_redraws=0,
    )  # fmt: skip
    whole = train(population, config)
    pieces = train(population, config, tmp_path / "state.json", save_every=2)
    assert np.array_equal(whole.values["pass1"], pieces.values["pass1"]) and whole.values["rollouts"][-1] == 24
    method, pool, rng = build_method(population, config), pool_of(population), np.random.default_rng(0)
    state, visits = start(method), 0
    for step in range(3):
        batch = collect(population.start_SK, population.prompts, pool, method, state, ask_of(config, step), 0, rng)
        state, visits = batch.state, visits + len(set(batch.planned_P.tolist()))
    part: Any = method.allocation
    assert part.of_pool(state.allocation, pool).visits_P.sum() == visits
    again = load_state(method, dump_state(method, state))
    assert_same(again.allocation, state.allocation)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("knapsack:most=1", "most must be at least 2"),
        ("knapsack:retention=0", "retention must be above 0"),
        ("mopps:target=1", r"mopps target must lie in \(0, 1\)"),
        ("mopps:prior=0", "prior must be above 0"),
        ("mopps:weights=inverse", "none or unbiased"),
        ("skip_silent:explore=0", "skip_silent explore must"),
        ("variance_proportional:floor=-1", "variance_proportional needs power"),
    ],
)
def test_settings_that_are_none(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_allocation(text)


def test_batches_that_cannot_be_planned() -> None:
    for part in (MoPPS(), SkipSilent()):
        with pytest.raises(InputError, match="draws distinct prompts: 5 of them give no batch of 6"):
            part.plan(part.init(), POOL, Ask(0, 1, 6, 4), Draw(0, "", 0))
    for size in (1, 129):
        with pytest.raises(InputError, match=f"Knapsack deals 2 to 128 rollouts: .* got {size}"):
            Knapsack().plan(Knapsack().init(), POOL, Ask(0, 1, 2, size), Draw(0, "", 0))
