"""Allocation and selection: every registered one through one battery; orders, dynamic sampling, ragged batches."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from battery import assert_same
from ebpo_sim import rungs
from ebpo_sim.chains.answers import groups_of
from ebpo_sim.chains.collect import collect, flat
from ebpo_sim.chains.population import SkillChain, bandit, skill_chain
from ebpo_sim.chains.rung import TrainingConfig, ask_of, build_method, pool_of, train
from ebpo_sim.chains.update import Learner, sample, update
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards, masked
from ebpo_sim.methods.method import Method, parse_method
from ebpo_sim.methods.step import decide, start
from ebpo_sim.objectives import Aggregation, Clip
from ebpo_sim.part import Draw
from ebpo_sim.sampling import (
    ALLOCATIONS,
    CPPO,
    ORDERS,
    PODS,
    SELECTIONS,
    Ask,
    Dynamic,
    MaxVariance,
    Order,
    Plan,
    Pool,
    VarianceAware,
    check_plan,
    make_allocation,
    make_selection,
    widest,
)
from strategies import Batch, batches

POOL = Pool(30, np.arange(30) % 3, np.linspace(0, 1, 30))
ASK = Ask(2, 5, 6, 4)


@pytest.mark.parametrize("name", ALLOCATIONS.names())
def test_allocations(name: str) -> None:
    """The battery: a legal plan of the rollouts asked for, pure, picklable, hashable, the same from the same draw."""
    part = make_allocation(name)
    state = part.init()
    before = copy.deepcopy(state)
    plans = [part.plan(state, POOL, ASK, Draw(3, "allocation", 2)) for _ in range(2)]
    for plan in plans:
        assert check_plan(plan, POOL, name).size_P.sum() == ASK.prompts * ASK.group_size
    assert np.array_equal(plans[0].prompt_P, plans[1].prompt_P)
    assert_same(state, before)
    assert pickle.loads(pickle.dumps(part)) == part and hash(part) == hash(make_allocation(name))
    other = part.plan(state, POOL, ASK._replace(attempt=1), Draw(3, "allocation", 2))
    assert not np.array_equal(other.prompt_P, plans[0].prompt_P)
    groups = group_rewards([[1.0, 0.0]], prompt_ids=[4])
    once = part.merge(part.forget(state), part.observe(groups))
    assert_same(part.merge(part.init(), once), once)


@pytest.mark.parametrize("name", SELECTIONS.names())
@given(batch=batches())
def test_selections(name: str, batch: Batch) -> None:
    """The battery: only valid rollouts stay, whatever the order of prompts; weights are finite and not negative."""
    part = make_selection(name)
    groups = group_rewards(*batch)
    kept = part.weigh(part.init(), groups, np.zeros(groups.rewards_PG.shape), Draw(0, "selection", 0))
    assert not np.any(kept.keep_PG & ~groups.mask_PG)
    if kept.weight_PG is not None:
        assert np.all(np.isfinite(kept.weight_PG)) and np.all(kept.weight_PG >= 0)
    turned = group_rewards(batch[0][::-1], batch[1][::-1])
    again = part.weigh(part.init(), turned, np.zeros(turned.rewards_PG.shape), Draw(0, "selection", 0))
    assert again.keep_PG.sum() == kept.keep_PG.sum()
    assert pickle.loads(pickle.dumps(part)) == part


def test_orders_by_hand() -> None:
    """Guards the orders: what each says, on a pool of three topics of ten prompts."""
    ask = Ask(0, 6, 5, 2)
    rows = {o: np.stack([Order(o).plan((), POOL, ask._replace(step=t), Draw(1, "allocation", t)).prompt_P
                         for t in range(6)]) for o in ORDERS}  # fmt: skip
    epoch = sorted(range(30))
    assert all(sorted(rows[o].ravel().tolist()) == epoch for o in ORDERS if o != "uniform")
    topic = {o: [set(row.tolist()) for row in rows[o] % 3] for o in ORDERS}
    assert [len(t) for t in topic["blocked"]] == [1] * 6 and topic["blocked"][0] == topic["blocked"][1]
    assert [len(t) for t in topic["alternating"]] == [1] * 6
    assert topic["alternating"][:3] == topic["alternating"][3:] and len({*map(tuple, topic["alternating"][:3])}) == 3
    bands = np.rint(16 * POOL.rate_P[rows["easy_to_hard"]])
    assert np.all(np.diff(bands.ravel()) <= 0)
    assert np.all(np.diff(np.rint(16 * POOL.rate_P[rows["hard_to_easy"]]).ravel()) >= 0)
    assert all(len(set(row.tolist())) == 5 for row in rows["uniform"])


def test_an_order_by_difficulty_needs_pass_rates() -> None:
    with pytest.raises(InputError, match="easy_to_hard needs the prompts' pass rates"):
        Order("easy_to_hard").plan((), Pool(4), Ask(0, 1, 2, 2), Draw(0, "", 0))


@pytest.mark.parametrize(("prompts", "sizes"), [([], []), ([0, 1], [2]), ([4], [2]), ([-1], [2]), ([0], [0])], ids=str)
def test_plans_that_cannot_be_carried_out(prompts: list[int], sizes: list[int]) -> None:
    with pytest.raises(InputError, match="mine must plan"):
        check_plan(Plan(np.array(prompts), np.array(sizes)), Pool(4), "mine")


@given(batch=batches(), learn=st.sampled_from(["kept", "all"]))
def test_dynamic_sampling_is_leaving_out(batch: Batch, learn: str) -> None:
    """Guards what an estimator sees: with learn=kept exactly the batch without its uniform groups, with learn=all the
    whole of it; dropped rollouts have advantage 0 either way."""
    groups = group_rewards(*batch)
    estimator = make("ebpo_debiased:memory=0.9")
    method = Method("m", estimator, selection=Dynamic(1, "uniform", learn))  # type: ignore[arg-type]
    ids = np.array(batch[1])
    alive = [i for i in dict.fromkeys(ids) if len(set(batch.rewards[ids == i])) > 1]
    stays = np.isin(ids, alive)
    decision = decide(method, start(method), groups, Ask(0, 1, 4, 2), 0)
    assert decision.groups == len(alive)
    assert groups.flat_index is not None
    keep_N, advantage_N = (x.reshape(-1)[groups.flat_index] for x in (decision.keep_PG, decision.advantage_PG))
    assert np.array_equal(keep_N, stays) and not np.any(advantage_N[~stays])
    if not alive and learn == "kept":
        assert decision.info is None and decision.state == start(method)
        return
    shown = groups if learn == "all" else group_rewards(np.array(batch[0])[stays], ids[stays])
    expected, _, state = estimator.step(estimator.init(), shown)
    np.testing.assert_allclose(advantage_N[stays], expected[stays] if learn == "all" else expected, rtol=1e-12)
    assert estimator.score(decision.state.estimator, groups)[0] == pytest.approx(estimator.score(state, groups)[0])


@given(batch=batches())
def test_masking_is_never_having_drawn(batch: Batch) -> None:
    """Guards `masked`: mean, spread and size of the kept are those of a batch of them alone."""
    groups = group_rewards(*batch)
    keep_PG = groups.mask_PG & (np.arange(groups.mask_PG.shape[1]) < 2)
    some = masked(groups, keep_PG)
    for row in range(len(groups.size_P)):
        alone = group_rewards([groups.rewards_PG[row][keep_PG[row]]])
        for name in ("size_P", "mean_P", "within_ss_P", "degenerate_P"):
            assert getattr(some, name)[row] == getattr(alone, name)[0]


@pytest.mark.parametrize(("drop", "left"), [("uniform", [1, 2]), ("passed", [0, 1, 2]), ("failed", [1, 2, 3])])
def test_which_groups_are_dropped(drop: str, left: list[int]) -> None:
    groups = group_rewards([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    kept = Dynamic(1, drop).weigh((), groups, None, Draw(0, "", 0)).keep_PG  # type: ignore[arg-type]
    assert np.flatnonzero(kept.all(axis=1)).tolist() == left


@pytest.fixture(scope="module")
def chain() -> SkillChain:
    return skill_chain(prompts=64, seed=2, validation=8)


def test_dynamic_sampling_fills_the_batch(chain: SkillChain) -> None:
    """Guards the refill: exactly the prompts asked for, no group uniform, and a mean cost of 1/(share kept).

    The bandit's share kept is 1 - p^2 - (1-p)^2 = 0.32; a kept batch of 16 costs at least 16/0.32 = 50 groups on
    average, at most a generation batch of 16 more.
    """
    population = bandit(np.full(40, 0.2), 4)
    theta, prompts = population.start_SK, population.prompts
    config = TrainingConfig("grpo + dynamic:batches=60", group_size=2, prompts=16, steps=30)
    method, pool, rng = build_method(population, config), pool_of(population), np.random.default_rng(0)
    drawn = []
    for step in range(30):
        batch = collect(theta, prompts, pool, method, start(method), ask_of(config, step), 0, rng)
        assert batch.rolled is not None and batch.rolled.reward_PG.shape == (16, 2)
        assert np.all(np.ptp(batch.rolled.reward_PG, axis=1) == 1)
        drawn.append(batch.drawn / 2)
    # a step's groups have a standard deviation of about sqrt(16 * 0.68)/0.32 = 10.3, so the mean's se is 1.9;
    # 4 se fail falsely at a rate of 6e-5
    assert 50 - 4 * 1.9 < np.mean(drawn) < 50 + 16 + 4 * 1.9


def test_a_step_of_which_nothing_is_kept_changes_no_policy() -> None:
    """Guards the empty batch: certain prompts under dynamic sampling; the run ends, and nothing has moved."""
    population = bandit(np.full(4, 1 - 1e-12), 4)
    found = train(population, TrainingConfig("ebpo + dynamic:batches=2", prompts=4, minibatches=2, steps=3, seed=1))
    assert np.ptp(found.values["pass1"]) == 0
    assert found.values["grad_norm"][-1] == found.values["trained_rows"][-1] == 0
    assert found.values["rollouts"][-1] == 2 * 4 * 4


class Ragged:
    """An allocation of unequal groups: 1 + (number mod 3) rollouts each."""

    needs = frozenset({"prompt_choice"})
    __slots__ = ()

    def init(self) -> tuple[()]:
        return ()

    def plan(self, state: object, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        prompt_P = np.arange(ask.prompts)
        return Plan(prompt_P, 1 + prompt_P % 3)


def test_groups_of_unequal_size_on_the_chains(chain: SkillChain) -> None:
    """Guards flat rows: sizes as planned, each row its own prompt's; and a rectangular batch laid flat gives the same
    groups and, to rounding, the same update."""
    method = Method("m", make("rloo"), allocation=Ragged())  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    batch = collect(chain.start_SK, chain.prompts, pool_of(chain), method, start(method), Ask(0, 1, 9, 2), 0, rng)
    assert batch.rolled is not None and batch.groups.size_P.tolist() == [1, 2, 3] * 3
    assert batch.rolled.number_P is not None
    assert batch.rolled.number_P.tolist() == [n for n in range(9) for _ in range(1 + n % 3)]
    expected = make("rloo").step(make("rloo").init(), batch.groups)[0]
    np.testing.assert_array_equal(batch.advantage_PG[:, 0], expected)

    rolled = sample(chain.start_SK, chain.prompts, 3, rng)
    learner = Learner((Clip(),), Aggregation(), adam=False, learning_rate=1.0, minibatches=4)
    thetas = []
    for laid in (rolled, flat(rolled)):
        groups = groups_of(laid, frozenset({"lengths", "clusters"}))
        advantage = make("grpo").step(make("grpo").init(), groups)[0]
        theta, first, second = chain.start_SK.copy(), *np.zeros((2, *chain.start_SK.shape))
        update(theta, first, second, 0, laid, advantage.reshape(laid.reward_PG.shape), learner)
        thetas.append(theta)
    assert np.abs(thetas[0] - chain.start_SK).max() > 1e-3
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grpo + dynamo", "did you mean 'dynamic'"),
        ("grpo + dynamic:batches=0", "batches must be at least 1"),
        ("grpo + dynamic + dynamic:batches=2", "names 'dynamic' twice"),
        ("grpo + blocked + shuffled", "names a second allocation, 'shuffled'"),
        ("grpo + dynamic:drop=none", "uniform, passed or failed"),
    ],
)
def test_methods_that_are_none(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_method(text, None, rungs.CHAINS)


def test_what_cannot_stand_on_a_rung() -> None:
    """Guards refusals: streams of counts have no prompts to choose; the adapters' trainers choose for themselves."""
    with pytest.raises(InputError, match="dynamic needs prompt_choice, which counts"):
        parse_method("grpo + dynamic", None, rungs.COUNTS)
    assert parse_method("grpo + dynamic:batches=1", None, rungs.COUNTS).selection == Dynamic(1)
    for rung in (rungs.TRL, rungs.VERL):
        with pytest.raises(InputError, match="dynamic:batches=1 needs batch_choice"):
            parse_method("grpo + dynamic:batches=1", None, rung)
        with pytest.raises(InputError, match="blocked needs prompt_choice"):
            parse_method("grpo + blocked", None, rung)


def test_a_resumed_run_is_the_uninterrupted_one(chain: SkillChain, tmp_path) -> None:
    """Guards state: dynamic sampling and an order named by the method, cut in the middle."""
    config = TrainingConfig("ebpo + alternating + dynamic:learn=all", prompts=8, steps=6, minibatches=2, record_every=2)
    whole = train(chain, config)
    pieces = train(chain, config, tmp_path / "state.json", save_every=2)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(values, pieces.values[name])
    plain = train(chain, replace(config, estimator="ebpo + dynamic:learn=all", order="alternating"))
    np.testing.assert_array_equal(whole.values["pass1"], plain.values["pass1"])


def variances(values: list[float], keep: int) -> list[float]:
    """Of all choices of `keep` values."""
    return [float(np.var(some)) for some in itertools.combinations(values, keep)]


@given(values=st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0, 7.0]), min_size=1, max_size=8), keep=st.integers(1, 8))
def test_the_widest_choice(values: list[float], keep: int) -> None:
    """Guards the search over splits: of all choices none has a larger variance, and it has as many as asked for."""
    chosen = widest(np.array(values), keep)
    assert chosen.sum() == min(keep, len(values))
    best = max(variances(values, min(keep, len(values))))
    assert np.var(np.array(values)[chosen]) == pytest.approx(best, abs=1e-9)


def test_down_sampling_by_hand() -> None:
    """PODS: as many right as wrong where there are enough of both; MaxVariance: the tails of all advantages; CPPO: the
    lone success and a failure; padding is never chosen."""
    groups = group_rewards([1.0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1], [0] * 6 + [1] * 2 + [2] * 5)
    kept = PODS(4).weigh((), groups, None, Draw(0, "", 0)).keep_PG
    assert kept.sum(axis=1).tolist() == [4, 2, 4] and not np.any(kept & ~groups.mask_PG)
    assert [int(r[k].sum()) for r, k in zip(groups.rewards_PG, kept, strict=True)] == [1, 2, 3]
    advantage_PG, _, _ = make("dr_grpo").step((), replace(groups, flat_index=None))
    wide = MaxVariance(4 / 13).weigh((), groups, advantage_PG, Draw(0, "", 0)).keep_PG
    assert wide.sum() == 4 and wide[0, 0]
    assert np.var(advantage_PG[wide]) == pytest.approx(max(variances(advantage_PG[groups.mask_PG].tolist(), 4)))
    large = CPPO(0.4).weigh((), groups, advantage_PG, Draw(0, "", 0)).keep_PG
    assert large.sum(axis=1).tolist() == [2, 1, 2]
    assert large[0, 0] and large[2, 0] and not np.any(large & ~groups.mask_PG)


def test_down_sampling_on_the_chains(chain: SkillChain) -> None:
    """Guards the rung: rows of parts of groups are trained on, those of the share."""
    for text, rows in (("grpo + pods:keep=2", 2 * 16), ("dr_grpo + cppo:share=0.25", 2 * 16)):
        config = TrainingConfig(text, group_size=8, prompts=16, steps=3, minibatches=2)
        method, rng = build_method(chain, config), np.random.default_rng(0)
        state, ask = start(method), ask_of(config, 0)
        batch = collect(chain.start_SK, chain.prompts, pool_of(chain), method, state, ask, 0, rng)
        assert batch.rolled is not None and batch.rolled.reward_PG.size == rows
        assert np.isfinite(train(chain, config).values["pass1"]).all()


def test_variance_aware_sampling() -> None:
    """Half of a batch never meets a prompt of pass rate 0 or 1, and meets those of 1/2 in proportion: 4,000 draws of
    9 prompts, within 5 standard errors (false-fail 6e-7); without any variance, and without rates."""
    rate_P = np.array([0.0, 0.5, 1.0, 0.1])
    part, ask = VarianceAware(1.0), Ask(0, 1, 9, 2)
    drawn = np.concatenate([part.plan((), Pool(4, None, rate_P), ask, Draw(0, "a", t)).prompt_P for t in range(4000)])
    share = 0.25 / (0.25 + 0.09)
    assert set(drawn.tolist()) == {1, 3}
    assert abs(np.mean(drawn == 1) - share) < 5 * np.sqrt(share * (1 - share) / len(drawn))
    half = VarianceAware().plan((), Pool(4, None, rate_P), ask, Draw(0, "a", 0)).prompt_P
    assert set(half[:4].tolist()) <= {1, 3} and len(half) == 9
    certain = part.plan((), Pool(4, None, np.ones(4)), ask._replace(prompts=99), Draw(0, "a", 0)).prompt_P
    assert set(certain.tolist()) == {0, 1, 2, 3}
    with pytest.raises(InputError, match="variance_aware needs the prompts' pass rates"):
        part.plan((), Pool(4), ask, Draw(0, "a", 0))
    with pytest.raises(InputError, match="variance_aware share must"):
        make_allocation("variance_aware:share=2")


@pytest.mark.parametrize("text", ["pods:keep=0", "max_variance:share=0", "cppo:share=1.5"])
def test_down_sampling_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match=f"{text.partition(':')[0]} (keep|share) must"):
        make_selection(text)
