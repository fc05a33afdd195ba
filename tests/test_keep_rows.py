"""Row skipping: unbiased, of the share or at the optimum that was asked for, indifferent to order, layout and units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import InputError, rungs
from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.population import skill_chain
from ebpo_sim.chains.rung import TrainingConfig, ask_of, build_method, pool_of, train
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.methods.method import parse_method
from ebpo_sim.methods.step import start
from ebpo_sim.part import Draw
from ebpo_sim.sampling import KeepRows, make_selection

ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.7, 1.0, 30.0]) | st.floats(1e-6, 1e6), st.integers(0, 9)),
                min_size=1, max_size=12)  # fmt: skip


def laid(rows: list[tuple[float, int]]) -> tuple[Groups, np.ndarray]:
    """Rows of (advantage, length) as a batch of ragged groups, signs in turn."""
    advantage_N = np.array([(-1) ** i * a for i, (a, _) in enumerate(rows)])
    groups = group_rewards(np.zeros(len(rows)), np.arange(len(rows)) % 5, lengths=[n for _, n in rows])
    advantage_PG = np.full(groups.mask_PG.shape, 7.0)  # what stands on padding is not read
    assert groups.flat_index is not None
    advantage_PG.reshape(-1)[groups.flat_index] = advantage_N
    return groups, advantage_PG


def q_of(part: KeepRows, rows: list[tuple[float, int]]) -> np.ndarray:
    groups, advantage_PG = laid(rows)
    q_PG = part.probabilities(groups, advantage_PG)
    assert not q_PG[~groups.mask_PG].any()
    assert groups.flat_index is not None
    return q_PG.reshape(-1)[groups.flat_index]


@given(ROWS, st.floats(0.01, 1))
def test_the_share_is_met(rows: list[tuple[float, int]], share: float) -> None:
    """The mean of q over all valid rows is the share, or all rows with an advantage where those are fewer; q is
    min(1, size/tau)."""
    size = np.array([a * np.sqrt(n) for a, n in rows])
    q = q_of(KeepRows(share=share, weights="length"), rows)
    assert q.mean() == pytest.approx(min(share, np.mean(size > 0)), rel=1e-12)
    assert np.all((q >= 0) & (q <= 1)) and np.array_equal(q > 0, size > 0)
    below = (q > 0) & (q < 1 - 1e-9)
    if below.any():
        tau = (size / np.where(q > 0, q, 1.0))[below]
        np.testing.assert_allclose(tau, tau[0], rtol=1e-9)
        assert size[q >= 1 - 1e-9].min(initial=np.inf) >= tau[0] * (1 - 1e-9)


@given(ROWS, st.floats(0, 20))
def test_the_cost_is_least(rows: list[tuple[float, int]], ratio: float) -> None:
    """No threshold on a fine grid has less noise times cost."""
    size = np.array([a * np.sqrt(n) for a, n in rows])
    if not size.any():
        return
    live = size > 0

    def product(q: np.ndarray) -> float:
        return float(np.sum(size[live] ** 2 / q[live]) * (1 + ratio * q.mean()))

    found = product(q_of(KeepRows(cost_ratio=ratio, weights="length"), rows))
    grid = np.geomspace(size[live].min() / 2, 2 * size.max(), 300)
    assert found <= min(product(np.minimum(1, size / tau)) for tau in [*grid, *size[live]]) * (1 + 1e-9)


def left(q: np.ndarray, size: np.ndarray) -> float:
    """The sum of size^2/q of what may be kept."""
    live = size > 0
    return float(np.sum(size[live] ** 2 / q[live]))


@given(ROWS, st.floats(1, 20))
def test_the_noise_is_met_with_the_fewest_rows(rows: list[tuple[float, int]], noise: float) -> None:
    """The sum of A^2 W/q is `noise` times that of all rows, as long as one is skipped at all; no other threshold that
    leaves as little keeps fewer rows, nor do single rows moved by a tenth; 1 keeps every row with an advantage."""
    size = np.array([a * np.sqrt(n) for a, n in rows])
    if not size.any():
        return
    q = q_of(KeepRows(noise=noise, weights="length"), rows)
    wanted = noise * np.sum(size**2)
    assert left(q, size) == pytest.approx(wanted, rel=1e-9) and np.array_equal(q > 0, size > 0)
    for tau in [*np.geomspace(size[size > 0].min() / 2, 20 * size.max(), 200), *size[size > 0]]:
        other = np.minimum(1, size / tau)
        assert left(other, size) > wanted * (1 - 1e-9) or other.sum() >= q.sum() * (1 - 1e-9)
    for i in np.flatnonzero((size > 0) & (q < 0.9)):
        for j in np.flatnonzero((size > 0) & (np.arange(len(q)) != i)):
            other = q.copy()  # one row more often, another less, for the same sum of q
            other[i], other[j] = 1.1 * q[i], q[j] - 0.1 * q[i]
            assert other[j] <= 0 or left(other, size) >= wanted * (1 - 1e-9)
    every = q_of(KeepRows(noise=1.0, weights="length"), rows)
    np.testing.assert_allclose(every, (size > 0) * 1.0, rtol=1e-12)


@given(ROWS, st.sampled_from([{"noise": 1.5}, {"share": 0.4}, {"cost_ratio": 2.0}]))
def test_whole_groups_are_never_better(rows: list[tuple[float, int]], how: dict[str, float]) -> None:
    """Rows of a group have one q, of its root mean square; at a bound on the noise it takes more rows on average, at a
    share it leaves more noise, and so more noise times cost, than rows one by one: the latter are the best of all q."""
    groups, advantage_PG = laid(rows)
    size_PG = np.where(groups.mask_PG, np.abs(advantage_PG) * np.sqrt(groups.length_PG), 0.0)  # type: ignore[arg-type]
    single, whole = (
        KeepRows(**how, weights="length", level=level).probabilities(groups, advantage_PG)  # type: ignore[arg-type]
        for level in ("rows", "groups")
    )
    assert np.array_equal(whole > 0, size_PG > 0)
    for q_G, size_G in zip(whole, size_PG, strict=True):
        assert np.ptp(q_G[size_G > 0]) < 1e-12 if size_G.any() else not q_G.any()
    if not size_PG.any():
        return
    count = groups.mask_PG.sum()
    noise = [left(q, size_PG) for q in (single, whole)]
    if "noise" in how:
        assert noise[1] == pytest.approx(1.5 * np.sum(size_PG**2), rel=1e-9)
        assert single.sum() <= whole.sum() * (1 + 1e-9)
    elif "share" in how:
        assert single.sum() == pytest.approx(whole.sum(), rel=1e-9) and noise[0] <= noise[1] * (1 + 1e-9)
    else:
        cost = [x * (1 + 2 * q.sum() / count) for x, q in zip(noise, (single, whole), strict=True)]
        assert cost[0] <= cost[1] * (1 + 1e-9)


@pytest.mark.parametrize("level", ["rows", "groups"])
def test_what_skipping_adds_is_as_stated(level: str) -> None:
    """For orthogonal scores E|g_kept - g|^2 = (noise - 1) sum A^2 W / N^2: the mean over 3,000 draws, within 5 standard
    errors (false-fail 6e-7); groups are drawn as a whole, and rows are not."""
    rng = np.random.default_rng(6)
    rows = [(float(a), int(n)) for a, n in zip(rng.uniform(0.1, 2, 20), rng.integers(1, 5, 20), strict=True)]
    groups, advantage_PG = laid(rows)
    part = KeepRows(noise=1.6, weights="length", level=level)  # type: ignore[arg-type]
    square_PG = advantage_PG**2 * groups.length_PG  # |A s|^2, scores orthogonal
    weights = np.array([
        part.weigh((), groups, advantage_PG, Draw(2, "selection", step)).weight_PG for step in range(3000)
    ])  # fmt: skip
    added = ((weights - 1) ** 2 * square_PG).sum(axis=(1, 2))
    assert abs(added.mean() - 0.6 * square_PG.sum()) < 5 * added.std(ddof=1) / np.sqrt(3000)
    drawn = weights > 0
    assert (drawn.any(axis=2) != drawn.all(axis=2)).any() == (level == "rows")


@given(ROWS, st.randoms(use_true_random=False), st.floats(1e-6, 1e6))
def test_order_and_units_do_not_matter(rows: list[tuple[float, int]], random: object, unit: float) -> None:
    """Permuted rows have permuted probabilities, and the unit of advantages cancels."""
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for how in ({"share": 0.4}, {"cost_ratio": 2.0}, {"noise": 1.3}):
        part = KeepRows(**how, weights="length")  # type: ignore[arg-type]
        plain = q_of(part, rows)
        np.testing.assert_allclose(q_of(part, [rows[i] for i in order]), plain[order], rtol=1e-9)
        np.testing.assert_allclose(q_of(part, [(unit * a, n) for a, n in rows]), plain, rtol=1e-6)


def test_weights_are_unbiased() -> None:
    """Weights are 0 or exactly 1/q, and a row is drawn with probability q: of 4,000 draws each of 19 rows within 5
    standard errors (false-fail 1e-5), so the expected update is that of all rows; nothing leaves the batch."""
    rows = [(0.1 + 0.05 * i, 1 + i % 4) for i in range(19)] + [(0.0, 3)]
    groups, advantage_PG = laid(rows)
    part, draws = KeepRows(share=0.4, weights="length"), 4000
    q_PG = part.probabilities(groups, advantage_PG)
    times_PG = np.zeros(q_PG.shape)
    for step in range(draws):
        kept = part.weigh((), groups, advantage_PG, Draw(1, "selection", step))
        assert np.array_equal(kept.keep_PG, groups.mask_PG) and kept.weight_PG is not None
        drawn = kept.weight_PG > 0
        np.testing.assert_array_equal(kept.weight_PG[drawn], 1 / q_PG[drawn])
        times_PG += drawn
    live = q_PG > 0
    se = np.sqrt(q_PG * (1 - q_PG) / draws)
    assert np.all(np.abs(times_PG / draws - q_PG)[live] <= 5 * se[live]) and not times_PG[~live].any()
    again = [part.weigh((), groups, advantage_PG, Draw(1, "selection", 7)).weight_PG for _ in range(2)]
    np.testing.assert_array_equal(*again)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keep_rows:share=0", "share must lie in"),
        ("keep_rows:share=1.1", "share must lie in"),
        ("keep_rows:cost_ratio=-1", "cost_ratio must be at least 0"),
        ("keep_rows:share=0.5,cost_ratio=1", "exclude each other"),
        ("keep_rows:noise=0.9", "noise must be at least 1"),
        ("keep_rows:share=0.5,noise=2", "share=0.5 and noise=2.0 exclude each other"),
        ("keep_rows:level=tokens", "rows or groups"),
        ("keep_rows:weights=norm", "none, length or score"),
    ],
)
def test_settings_that_are_none(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_selection(text)


def test_where_it_stands() -> None:
    """Guards needs: tokens to train on, a choice of what is trained on, and what its weights are made of."""
    for text, rung, need in (
        ("keep_rows", rungs.COUNTS, "log_probs"),
        ("keep_rows", rungs.TRL, "batch_choice"),
        ("keep_rows:weights=score", rungs.COUNTS, "score_norms|log_probs"),
    ):
        with pytest.raises(InputError, match=need):
            parse_method(f"rloo + {text}", None, rung)
    assert KeepRows() != KeepRows(cost_ratio=2.0) and KeepRows(weights="length").needs >= {"lengths"}
    groups, advantage_PG = laid([(1.0, 2)])
    with pytest.raises(InputError, match="needs score_norms"):
        KeepRows(weights="score").weigh((), groups, advantage_PG, Draw(0, "", 0))


def test_on_the_chains() -> None:
    """Guards the rung: the share is trained on, the batch stays whole, and a ragged batch works as well; it learns."""
    population = skill_chain(prompts=64, seed=2, validation=8)
    text = "loo_table:weights=score,memory=0.9 + keep_rows:share=0.25,weights=score"
    config = TrainingConfig(text, group_size=4, prompts=64, steps=12, learning_rate=0.1, record_every=4)
    found = train(population, config)
    # 256 rows a step, at most a quarter of them on average: se of the mean of 4 steps below sqrt(0.19/1024) = 0.014
    share = found.values["trained_rows"][1:] / found.values["rollouts"][1:]
    assert np.all(share < 0.25 + 5 * 0.014) and share.max() > 0.25 - 5 * 0.014
    assert found.values["pass1"][-1] > found.values["pass1"][0]
    method, state = build_method(population, config), start(build_method(population, config))
    rng = np.random.default_rng(0)
    batch = collect(
        population.start_SK, population.prompts, pool_of(population), method, state, ask_of(config, 0), 0, rng
    )
    assert batch.rolled is not None and batch.rolled.reward_PG.size == 256
