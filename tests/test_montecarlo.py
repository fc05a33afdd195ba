"""The simulation: reproducible, paired, equal to a loop over written-out groups, in agreement with exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2
from scipy.stats import t as student

import naive
from ebpo_sim.counts.kernels import STATE_WORDS
from ebpo_sim.counts.streams import (
    CHUNK,
    Design,
    batch_sums,
    mean_with_error,
    paired_ratio,
    simulate_errors,
    simulate_stream,
    stream_errors,
    stream_seed,
)
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.studies.base import FAMILY_WISE, agreement
from ebpo_sim.studies.mse.study import QUICK, simulate
from ebpo_sim.worlds import Beta, parse_world

SMALL = Design(prompts=300, steps=3, burn_in=1, replicates=4)
PRIOR = Prior((0.2, 0.9), (0.6, 0.4))


def test_same_seed_same_bytes_for_any_number_of_threads() -> None:
    """Guards reproducibility: one and two threads agree to the last bit, another seed does not."""
    world = Beta(0.5, 0.7)
    first = simulate_stream(world, 4, SMALL, threads=1)
    assert first.tobytes() == simulate_stream(world, 4, SMALL, threads=2).tobytes()
    assert first.tobytes() == simulate_stream(world, 4, SMALL, threads=1).tobytes()
    assert first.tobytes() != simulate_stream(world, 4, SMALL._replace(seed=1)).tobytes()


def test_cells_and_replicates_differ() -> None:
    """Guards seeding: worlds, group sizes and replicates have their own streams, replicates the same one when fewer."""
    stream = simulate_stream(Beta(2, 3), 4, SMALL)
    assert len({row.tobytes() for row in stream.reshape(12, -1)}) == 12
    fewer = simulate_stream(Beta(2, 3), 4, SMALL._replace(replicates=2, steps=2))
    assert np.array_equal(fewer, stream[:2, :2])
    cells = [("beta:2,3", 4), ("beta:2,3", 5), ("beta:3,2", 4), ("beta:2,34", 4)]
    assert len({tuple(stream_seed(0, *cell).generate_state(4)) for cell in cells}) == 4
    assert not np.array_equal(
        stream_seed(0, "beta:2,3", 4).generate_state(4), stream_seed(1, "beta:2,3", 4).generate_state(4)
    )


def test_adding_worlds_and_estimators_does_not_change_a_cell() -> None:
    """Guards independence of cells: the same row alone and in company, to the last bit."""
    design = SMALL
    alone = QUICK.__class__(("beta:5,5",), (4,), ("ebpo",), design)
    company = QUICK.__class__(("beta:0.1,0.1", "beta:5,5"), (2, 4), ("rloo", "ebpo", "global_mean"), design)
    (row,) = simulate(alone)
    assert [
        r for r in simulate(company) if (r["world"], r["group_size"], r["estimator"]) == ("beta:5,5", 4, "ebpo")
    ] == [row]
    pair = simulate_errors(Beta(5, 5), 4, [make("rloo"), make("ebpo")], design)
    assert np.array_equal(pair[1], simulate_errors(Beta(5, 5), 4, [make("ebpo")], design)[0])


def test_a_batch_has_all_its_prompts() -> None:
    """Guards the sums over several chunks: every prompt counted once, p summed over the prompts that were drawn.

    Given p, sum k/G has standard error sqrt(sum p(1-p)/G): 5 of them, false-fail rate 6e-7.
    """
    prompts, group_size = CHUNK + 17, 4
    words = np.random.default_rng(6).integers(1, 2**64, STATE_WORDS, dtype=np.uint64)
    sums = batch_sums(Beta(2, 3), group_size, prompts, np.random.default_rng(5), words)
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.beta(2, 3, CHUNK), rng.beta(2, 3, 17)])
    assert sums[0].sum() == prompts
    assert sums[1].sum() == pytest.approx(p.sum(), rel=1e-12)
    assert sums[2].sum() == pytest.approx((p**2).sum(), rel=1e-12)
    share = sums[0] @ np.arange(group_size + 1) / group_size
    assert abs(share - p.sum()) < 5 * math.sqrt(np.sum(p * (1 - p)) / group_size)


def written_out(estimator: Estimator, p: np.ndarray, k: np.ndarray, group_size: int, burn_in: int) -> list[list[float]]:
    """Every group as a row of rewards, through the public `update` and `score`, one replicate after another."""
    errors: list[list[float]] = []
    for p_TM, k_TM in zip(p, k, strict=True):
        state: Any = estimator.init()
        row = []
        for step, (p_M, k_M) in enumerate(zip(p_TM, k_TM, strict=True)):
            groups = group_rewards([[1.0] * s + [0.0] * (group_size - s) for s in k_M.tolist()])
            _, info, state = estimator.step(state, groups)
            if step >= burn_in:
                baseline = np.broadcast_to(info.baseline_PG, (len(p_M), group_size)).tolist()
                squares = [(b - x) ** 2 for x, group in zip(p_M.tolist(), baseline, strict=True) for b in group]
                row.append(math.fsum(squares) / len(squares))
        errors.append(row)
    return errors


@pytest.mark.parametrize("group_size", [1, 2, 5])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {}),
        ("rloo", {}),
        ("james_stein", {}),
        ("ebpo", {}),
        ("ebpo", {"order": "score_then_update", "memory": 0.5}),
        ("ebpo_released", {}),
        ("ebpo_within", {"memory": "batch"}),
        ("ebpo_beta_binomial", {}),
        ("ebpo_debiased", {}),
        ("ebpo_debiased", {"leave_one_out": True, "order": "update_then_score"}),
        ("ebpo_nonparametric", {"memory": 0.8}),
        ("global_mean", {}),
        ("oracle_linear", {"prior": PRIOR}),
        ("oracle_bayes", {"prior": PRIOR}),
    ],
)
def test_stream_errors_equal_a_loop_over_written_out_groups(
    name: str, options: dict[str, Any], group_size: int
) -> None:
    """Guards tables, sums, order and replicate axes together: 3 replicates of 4 batches of 12 prompts, to 1e-12."""
    rng = np.random.default_rng(group_size)
    p = rng.beta(0.6, 0.9, (3, 4, 12))
    k = rng.binomial(group_size, p)
    stream = np.array(
        [
            [naive.tally([a.tolist()], [b.tolist()], group_size, 1) for a, b in zip(x, y, strict=True)]
            for x, y in zip(p, k, strict=True)
        ]
    )
    estimator = make(name, **options)
    found = stream_errors(estimator, stream, group_size, burn_in=1)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found, written_out(estimator, p, k, group_size, 1), rtol=1e-12, atol=1e-12)


def test_ratio_and_mean_have_the_errors_of_the_textbook() -> None:
    """Guards both standard errors: s/sqrt(R), and sqrt((s_x^2 - 2 q s_xy + q^2 s_y^2)/R)/|mean y| with ddof 1."""
    rng = np.random.default_rng(3)
    y = rng.gamma(20, size=11)
    x = 0.7 * y + rng.normal(size=11)
    xs, ys = x.tolist(), y.tolist()
    mx, my = math.fsum(xs) / 11, math.fsum(ys) / 11
    sxx = math.fsum((a - mx) ** 2 for a in xs) / 10
    syy = math.fsum((b - my) ** 2 for b in ys) / 10
    sxy = math.fsum((a - mx) * (b - my) for a, b in zip(xs, ys, strict=True)) / 10
    q = mx / my
    se = math.sqrt((sxx - 2 * q * sxy + q * q * syy) / 11) / my
    assert paired_ratio(x, y) == pytest.approx((q, se), rel=1e-12)
    assert paired_ratio(x, -y) == pytest.approx((-q, se), rel=1e-12)
    assert mean_with_error(x) == pytest.approx((mx, math.sqrt(sxx / 11)), rel=1e-12)
    assert paired_ratio(y, y) == (1.0, 0.0)
    assert all(map(math.isnan, paired_ratio(x, np.zeros(11))))


def test_simulation_agrees_with_exact_sums() -> None:
    """The QUICK study: every |z| below the Student limit of Bonferroni, joint false-fail rate 1e-3 (fixed seed).

    z = (simulated - exact)/se with 15 degrees of freedom. One percent more error in a single row must be noticed.
    """
    rows = simulate(QUICK, threads=2)
    z = [(r["ratio_mc"] - r["ratio_exact"]) / r["ratio_mc_se"] for r in rows if r["ratio_mc_se"] > 0]
    limit = student.isf(FAMILY_WISE / 2 / len(z), QUICK.design.replicates - 1)
    assert FAMILY_WISE == 1e-3
    assert len(z) >= len(QUICK.worlds) * len(QUICK.group_sizes) * 8
    assert max(map(abs, z)) < limit
    joint = agreement(rows, "ratio_mc", "ratio_exact", QUICK.design.replicates)
    assert joint["comparisons"] == len(z)
    assert joint["limit"] == pytest.approx(limit, rel=1e-6)
    assert joint["max_abs_z"] == max(map(abs, z))
    assert joint["passes"]
    i = next(i for i, r in enumerate(rows) if r["world"] == "beta:5,5" and r["estimator"] == "rloo")
    tampered = [
        *rows[:i],
        {**rows[i], "ratio_mc": rows[i]["ratio_mc"] + 2 * limit * rows[i]["ratio_mc_se"]},
        *rows[i + 1 :],
    ]
    assert not agreement(tampered, "ratio_mc", "ratio_exact", QUICK.design.replicates)["passes"]


def test_standard_errors_hold_the_prompts_variance() -> None:
    """Guards what a replicate is: prompts of p = 0 or 1 leave nothing but the prompts to vary, and the standard error
    over replicates has that variance, p(1-p)/prompts of a batch's mean; every batch has its own.

    A batch mean is Binomial(400, 1/2)/400. Over 500 replicates of 2 batches, squares about 1/2 are chi-square with
    1000 degrees of freedom, those of the standard error with 499, each two-sided at 1e-6; the correlation between
    batches is below 5/sqrt(500), false-fail rate 6e-7.
    """
    design = Design(prompts=400, steps=2, burn_in=0, replicates=500, seed=2)
    stream = simulate_stream(parse_world("points:0,1"), 1, design, threads=2)
    mean_RT = stream[:, :, 0, 1] / design.prompts
    variance = 0.25 / design.prompts
    squares = float(np.sum((mean_RT - 0.5) ** 2)) / variance
    assert chi2.ppf(5e-7, 1000) < squares < chi2.isf(5e-7, 1000)
    squared_se = mean_with_error(mean_RT.mean(axis=1)).se ** 2
    scaled = 499 * squared_se / (variance / 2 / 500)
    assert chi2.ppf(5e-7, 499) < scaled < chi2.isf(5e-7, 499)
    assert abs(np.corrcoef(mean_RT.T)[0, 1]) < 5 / math.sqrt(500)


def test_transient_is_simulated_as_well() -> None:
    """Guards what the limit hides: a running mean of M prompts costs Var(mu_hat) = T2/M + w/(MG) more than T2.

    5 standard errors, false-fail rate 6e-7; the cost, a fifth of the whole, is more than 10 of them. In the first
    batch nothing is known, so the lagged baseline is the group mean's to the last bit.
    """
    design = Design(prompts=5, steps=2, burn_in=0, replicates=3000)
    running, plain = simulate_errors(Beta(2, 3), 4, [make("global_mean"), make("grpo")], design, threads=2)
    assert np.array_equal(running[:, 0], plain[:, 0])
    within, between = 0.2, 0.04  # Beta(2, 3): mean 0.4, variance 6/150
    found = mean_with_error(running[:, 1])
    expected = between + between / 5 + within / 20
    assert abs(found.value - expected) < 5 * found.se
    assert expected - between > 10 * found.se


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": 0}, "prompts must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"replicates": 1}, "replicates must be at least 2, got 1"),
        ({"burn_in": -1}, "burn_in must be at least 0"),
        ({"burn_in": 3}, "burn_in must be below steps, got 3 of 3"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_designs_are_refused(change: dict[str, int], message: str) -> None:
    """Guards each size of a design, and the group size."""
    with pytest.raises(InputError, match=message):
        simulate_stream(parse_world("beta:5,5"), 4, SMALL._replace(**change))
    with pytest.raises(InputError, match="group_size must be at least 1, got 0"):
        simulate_stream(parse_world("beta:5,5"), 0, SMALL)
