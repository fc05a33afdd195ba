"""Rollout counts: unbiased variance components, deconvolution, and the shipped pass rates."""

from __future__ import annotations

import csv
import math
from importlib import resources
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.worlds import (
    SOURCES,
    Counts,
    deconvolve,
    observed_counts,
    observed_names,
    observed_source,
    parse_world,
    ratio_world,
    variance_components,
)


def test_variance_components_are_unbiased() -> None:
    """Guards mean, w and T2 exactly: their expectation over all outcomes of 4 prompts with 2, 3, 2 and 5 rollouts."""
    prior, rollouts = {0.1: 0.25, 0.55: 0.35, 1.0: 0.4}, (2, 3, 2, 5)
    law = [
        [math.comb(n, s) * math.fsum(w * p**s * (1 - p) ** (n - s) for p, w in prior.items()) for s in range(n + 1)]
        for n in rollouts
    ]
    expected = np.zeros(3)
    for outcome in product(*(range(n + 1) for n in rollouts)):
        chance = math.prod(one[s] for one, s in zip(law, outcome, strict=True))
        expected += chance * np.array(variance_components(Counts(rollouts, outcome, (1, 1, 1, 1)))[:3])
    mean = math.fsum(w * p for p, w in prior.items())
    within = math.fsum(w * p * (1 - p) for p, w in prior.items())
    assert expected == pytest.approx([mean, within, mean * (1 - mean) - within], rel=1e-12)


def test_a_histogram_is_the_same_as_its_prompts() -> None:
    """Guards `prompts` as a multiplicity, and the standard error of icc against a delete-one jackknife.

    Jackknife and delta method agree to order 1/N; N = 12,500 prompts, so 1 % is ample.
    """
    counts = observed_counts("Qwen2.5-7B/MATH")
    apart = [
        (n, s) for n, s, c in zip(counts.rollouts, counts.successes, counts.prompts, strict=True) for _ in range(c)
    ]
    single = Counts(tuple(n for n, _ in apart), tuple(s for _, s in apart), (1,) * len(apart))
    found = variance_components(counts)
    assert variance_components(single) == pytest.approx(found, rel=1e-9)
    left_out, rows = [], list(zip(counts.rollouts, counts.successes, counts.prompts, strict=True))
    for i, c in enumerate(counts.prompts):
        rest = [row for j, row in enumerate(rows) if j != i] + ([(*rows[i][:2], c - 1)] if c > 1 else [])
        left_out.append(variance_components(Counts(*zip(*rest, strict=True))).icc)
    total, weights = sum(counts.prompts), np.array(counts.prompts)
    centre = weights @ left_out / total
    jackknife = math.sqrt((total - 1) / total * (weights @ (np.array(left_out) - centre) ** 2))
    assert found.icc_se == pytest.approx(jackknife, rel=0.01)


@pytest.mark.parametrize(
    "name",
    ["Qwen2.5-7B", "Qwen2.5-Math-1.5B-Instruct/MATH", "CodeLlama-7b-Base", "Claude-2", "GPT-4-0613/LiveCodeBench/easy"],
)
def test_deconvolution_keeps_mean_and_between_variance(name: str) -> None:
    """Guards the deconvolved world: the counts' unbiased mean and T2, and their w less the variance of the mean.

    w + T2 = mean (1 - mean) holds for the world; for unbiased estimates from N prompts of n rollouts each the left
    side is larger by Var_ddof1(s/n)/N.
    """
    counts = observed_counts(name)
    found, prior = variance_components(counts), parse_world(f"observed:{name}").quadrature(2)
    assert prior.mean == pytest.approx(found.mean, abs=1e-9)
    assert prior.between == pytest.approx(found.between, abs=1e-9)
    assert len(set(counts.rollouts)) == 1
    total = sum(counts.prompts)
    rate = np.array(counts.successes) / counts.rollouts[0]
    variance = np.dot(counts.prompts, (rate - found.mean) ** 2) / (total - 1)
    assert prior.within == pytest.approx(found.within - variance / total, abs=1e-9)
    assert min(prior.weights) >= 0


@pytest.mark.parametrize("name", ["Qwen2.5-7B", "Claude-2/LiveCodeBench", "GPT-4-0613/LiveCodeBench/easy"])
def test_the_world_of_ratios_keeps_both_variances(name: str) -> None:
    """Guards error ratios: both variances are the unbiased ones, so every line's ratio is that of the closed form; the
    mean moves by no more than its standard error. Claude-2 at G = 4 has 3.02 and not 3.10."""
    counts = observed_counts(name)
    found, world = variance_components(counts), ratio_world(f"observed:{name}")
    prior = world.quadrature(2)
    assert (prior.within, prior.between) == pytest.approx((found.within, found.between), abs=1e-9)
    rate, total = np.array(counts.successes) / counts.rollouts[0], sum(counts.prompts)
    error = np.sqrt(np.dot(counts.prompts, (rate - found.mean) ** 2) / (total - 1) / total)
    assert abs(prior.mean - found.mean) <= error
    icc = found.between / (found.within + found.between)
    weight, best = 1 / (2 + 3 * icc), found.within / (found.within + 4 * found.between)
    closed = (1 - weight) ** 2 + weight**2 * 4 * found.between / found.within
    assert limit_risk(make("ebpo"), world, 4).mse / (prior.within / 4) == pytest.approx(closed, rel=1e-7)
    assert limit_risk(make("ebpo_debiased"), world, 4).mse / (prior.within / 4) == pytest.approx(1 - best, rel=1e-7)
    if name.startswith("Claude"):
        assert closed == pytest.approx(3.02, abs=0.005)


@pytest.mark.parametrize("rows", [((8, 0), (8, 8)), ((4, 1), (4, 3)), ((2, 0), (2, 1), (2, 2))])
def test_the_world_of_ratios_of_few_prompts(rows: tuple[tuple[int, int], ...]) -> None:
    """Guards the ends: variances whose sum is above 1/4 give the mean 1/2, and no p leaves [0, 1]."""
    counts = Counts(*zip(*rows, strict=True), (2,) * len(rows))
    found, prior = variance_components(counts), deconvolve(counts, "within")
    whole = min(found.within + found.between, 0.25)
    assert prior.within + prior.between == pytest.approx(whole, abs=1e-9) or found.between <= 1e-9
    assert min(prior.nodes) >= 0 and max(prior.nodes) <= 1 and min(prior.weights) >= 0


def test_deconvolution_without_spread_is_one_point() -> None:
    """Guards a between variance that came out negative: 40 prompts that all had 2 of 4 give the point 1/2."""
    counts = Counts((4,), (2,), (40,))
    assert variance_components(counts).between < 0
    assert deconvolve(counts).nodes == (0.5,)


SIZES = st.one_of(st.integers(2, 16).map(lambda n: st.just(n)), st.just(st.integers(2, 16)))  # one for all, or mixed
TABLES = SIZES.flatmap(
    lambda size: st.lists(
        size.flatmap(lambda n: st.tuples(st.just(n), st.one_of(st.integers(0, n), st.sampled_from([0, n])))),
        min_size=2,
        max_size=8,
    )
)


def has_its_moments(counts: Counts) -> None:
    """The world's mean and between variance are the unbiased ones, the latter cut at 0 and at mean (1 - mean)."""
    found, prior = variance_components(counts), deconvolve(counts)
    between = min(max(found.between, 0.0), found.mean * (1 - found.mean))
    assert prior.mean == pytest.approx(found.mean, abs=1e-11)
    assert prior.between == pytest.approx(between, abs=1e-9 if between <= 1e-9 else 1e-11)
    assert min(prior.weights) >= 0
    if 1e-5 < between < found.mean * (1 - found.mean) - 1e-5:
        assert len(prior.nodes) > 2  # a distribution fitted to the counts, not only to their moments


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_any_small_table_has_a_world(rows: list[tuple[int, int]]) -> None:
    """Guards few prompts: 2 to 8 of them, of 2 to 16 rollouts, often all or nothing, always have a world with their
    moments."""
    has_its_moments(Counts(*zip(*rows, strict=True), (1,) * len(rows)))


@pytest.mark.parametrize(
    "rows",
    [
        [(4, 2, 500), (4, 4, 500)],
        [(4, 2, 10_000), (4, 4, 10_000)],
        [(8, 0, 1000), (8, 8, 1000)],
        [(10**6, 500_000, 10**6), (10**6, 10**6, 1)],
        [(10**6, 500_000, 10**4), (10**6, 10**6, 1)],
        [(10**6, 500_000, 10), (10**6, 502_000, 10)],
        [(2, 0, 10**8), (3, 3, 3), (10**6, 17, 1)],
    ],
)
def test_two_distinct_counts_have_a_world_at_any_size(rows: list[tuple[int, int, int]]) -> None:
    """Guards tables of two or three cells: two thousand prompts, a billion rollouts, or noise below the grid's."""
    has_its_moments(Counts(*zip(*rows, strict=True)))


def test_all_or_nothing_counts_are_two_points() -> None:
    """Guards greedy decoding: p is 0 or 1 in the share of the successes; noise in 2 prompts is cut the same way."""
    prior = deconvolve(Counts((8, 8), (0, 8), (300, 100)))
    assert (prior.nodes, prior.weights) == ((0.0, 1.0), (0.75, 0.25))
    assert deconvolve(Counts((8, 8), (1, 8), (1, 1))).within == pytest.approx(0, abs=1e-15)


def test_every_cluster_has_a_world() -> None:
    """Guards MODEL/BENCHMARK/CLUSTER with little or no noise: its hard problems are a world as well."""
    for name in ("Claude-Instant-1/LiveCodeBench/hard", "OC-DS-6.7B/LiveCodeBench/hard"):
        has_its_moments(observed_counts(name))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(10**6 + 1, 3, 1), (8, 3, 1)], "at most 1,000,000 rollouts a prompt, got 1e.06"),
        ([(10**400, 3, 1), (8, 3, 1)], "got 1e.300"),
        ([(8, 3, 10**9), (8, 4, 1)], "at most 1,000,000,000 prompts"),
        ([(8, 10**400, 1), (8, 3, 1)], "0 <= successes <= rollouts"),
    ],
)
def test_counts_beyond_the_grid_are_refused(rows: list[tuple[int, int, int]], message: str) -> None:
    """Guards the bounds of a table, whatever the size of an integer."""
    with pytest.raises(InputError, match=message):
        Counts(*zip(*rows, strict=True))


def test_more_cells_than_can_be_deconvolved_are_refused() -> None:
    """Guards the cost of the fit."""
    cells = 50_001
    with pytest.raises(InputError, match="different pairs"):
        deconvolve(Counts((60_000,) * cells, tuple(range(cells)), (1,) * cells))


def shipped() -> dict[str, list[tuple[int, int, int]]]:
    """MODEL/BENCHMARK -> (rollouts, successes, prompts) rows, straight from the file."""
    text = resources.files("ebpo_sim.worlds").joinpath("observed.csv").read_text(encoding="utf-8")
    rows: dict[str, list[tuple[int, int, int]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        numbers = int(row["rollouts"]), int(row["successes"]), int(row["prompts"])
        rows.setdefault(f"{row['model']}/{row['benchmark']}", []).append(numbers)
    return rows


def test_every_shipped_world_is_what_the_file_says() -> None:
    """Guards all shipped names: counts, prompts, a source, and an intra-class correlation in [0, 1], from the CSV."""
    files = shipped()
    assert sorted(files) == sorted(observed_names())
    for name, rows in files.items():
        counts = observed_counts(name)
        n, s, c = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        assert sum(counts.prompts) == c.sum()
        own = s * (n - s) / (n * (n - 1))
        rate = s / n
        mean = c @ rate / c.sum()
        between = c @ (rate - mean) ** 2 / (c.sum() - 1) - c @ (own / n) / c.sum()
        icc = between / (between + c @ own / c.sum())
        assert variance_components(counts).icc == pytest.approx(icc, rel=1e-9)
        assert 0 <= icc <= 1
        benchmark = name.split("/")[1]
        assert observed_source(name).startswith(benchmark)
        assert SOURCES[benchmark] in observed_source(name)


def test_clusters_add_up() -> None:
    """Guards MODEL/BENCHMARK/CLUSTER: the three difficulties together are the benchmark's 400 problems."""
    whole = observed_counts("GPT-4-0613")
    parts = [observed_counts(f"GPT-4-0613/LiveCodeBench/{level}") for level in ("easy", "medium", "hard")]
    assert sum(sum(part.prompts) for part in parts) == sum(whole.prompts) == 400
    assert sum(np.dot(part.successes, part.prompts) for part in parts) == np.dot(whole.successes, whole.prompts)
