"""Rollout counts: unbiased variance components, deconvolution, and the shipped pass rates."""

from __future__ import annotations

import csv
import math
from importlib import resources
from itertools import product

import numpy as np
import pytest

from ebpo_sim.worlds import (
    SOURCES,
    Counts,
    deconvolve,
    observed_counts,
    observed_names,
    observed_source,
    parse_world,
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


def test_deconvolution_without_spread_is_one_point() -> None:
    """Guards a between variance that came out negative: 40 prompts that all had 2 of 4 give the point 1/2."""
    counts = Counts((4,), (2,), (40,))
    assert variance_components(counts).between < 0
    assert deconvolve(counts).nodes == (0.5,)


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
