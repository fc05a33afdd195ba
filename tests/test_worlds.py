"""Worlds: the grammar with its refusals, and exact sampling."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, kstest

from ebpo_sim.errors import InputError
from ebpo_sim.worlds import (
    Beta,
    Counts,
    LogitNormal,
    Points,
    intra_class_correlation,
    parse_world,
    read_counts,
    world_counts,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beta:0,1", "between 0.01 and 1e6"),
        ("beta:-1,1", "between 0.01 and 1e6"),
        ("beta:1", "needs two numbers"),
        ("beta:1,2,3", "needs two numbers"),
        ("beta:nan,1", "not a finite number"),
        ("beta:1,inf", "not a finite number"),
        ("beta:one,1", "'one' is not a finite number"),
        ("beta", "not complete"),
        ("betta:1,2", "did you mean 'beta:'"),
        ("nonsense", "known: beta:, counts:, logitnormal:, mix:, observed:, points:"),
        ("", "unknown world"),
        ("points:1.2@1", r"lie in \[0, 1\]"),
        ("points:-0.1", r"lie in \[0, 1\]"),
        ("points:", "not a finite number"),
        ("points:0.5@", "not a finite number"),
        ("points:0.5@-1,0.2@3", "weights must be >= 0"),
        ("points:0.5@0", "sum above 0"),
        ("logitnormal:0,0", "spread above 0"),
        ("logitnormal:0,-1", "spread above 0"),
        ("logitnormal:0", "needs two numbers"),
        ("mix:0.5*beta:1,1+0.4*beta:2,2", "sum to 1"),
        ("mix:1.5*beta:1,1+-0.5*beta:2,2", "needs two numbers"),
        ("mix:0*beta:1,1+1*beta:2,2", "weights above 0"),
        ("mix:beta:1,1", r"each part is WEIGHT\*WORLD"),
        ("mix:", r"each part is WEIGHT\*WORLD"),
        ("mix:x*beta:1,1", "not a finite number"),
        ("mix:1*gamma:1,1", "unknown world 'gamma'"),
        ("observed:Qwen2.5-Math-1.5B-Instruct", "ambiguous: .*MATH' or|ambiguous: .*/MATH or .*/MATH-2000"),
        ("observed:Qwen2.5-8B", "did you mean .*Qwen2.5-7B"),
        ("observed:Qwen2.5-7B/MATHS", "did you mean 'Qwen2.5-7B/MATH'"),
        ("observed:GPT-4-0613/LiveCodeBench/easy/more", "unknown observed world"),
        ("observed:", "unknown observed world"),
        ("points:1e-320", "too small to compute with"),
        ("points:0,1,1e-200", "too small to compute with"),
        ("logitnormal:-700,1", "too small to compute with"),
        ("points:0.1@1e308,0.2@1e308", "finite sum"),
        ("logitnormal:0,1e9", "at most 100"),
        ("logitnormal:0,1e300", "at most 100"),
        ("logitnormal:1e9,1", "between -1000 and 1000"),
        ("mix:" + "1*mix:" * 3000 + "1*points:1", "more than 8 deep"),
        ("points:0.5,\n0.2", "cannot be printed"),
        ("counts:\udc80.csv", "cannot be printed"),
        ("counts:/dev/null", "a pipe or a device"),
        ("counts:" + "x" * 300, "cannot be read"),
    ],
)
def test_worlds_that_are_refused(text: str, message: str) -> None:
    """Guards every refusal of the grammar: an InputError of one line that names the value and the remedy."""
    with pytest.raises(InputError, match=message) as refusal:
        parse_world(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 3000  # all names of a registry, but not all of a long text


def test_worlds_that_are_accepted() -> None:
    """Guards the grammar's meaning: parameters, normalised and equal weights, shares, names with a plus sign."""
    assert parse_world("beta:0.5,0.7") == Beta(0.5, 0.7)
    assert parse_world("logitnormal:-1,2") == LogitNormal(-1, 2)
    assert parse_world("points:0.2@1,0.9@3").quadrature(2).weights == (0.25, 0.75)
    assert parse_world("points:0.2,0.9").quadrature(2).weights == (0.5, 0.5)
    mixture = parse_world("mix:0.25*points:0.5+0.75*beta:2,3")
    assert mixture.weights == (0.25, 0.75)
    assert mixture.parts[1] == Beta(2, 3)
    assert mixture.quadrature(4).mean == pytest.approx(0.25 * 0.5 + 0.75 * 0.4, rel=1e-12)
    plus = parse_world("mix:0.5*observed:Command-R++0.5*beta:1e+1,1")
    assert plus.parts == (parse_world("observed:Command-R+"), Beta(10, 1))
    assert parse_world("observed:qwen2.5-7b").prior == parse_world("observed:Qwen2.5-7B/MATH").prior


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-5, 5))
def test_a_name_is_the_text_of_the_same_world(a: float, b: float, m: float) -> None:
    """Guards `name`, which seeds the simulation: parsed again, it is the same world."""
    for world in (Beta(a, b), LogitNormal(m, a)):
        assert parse_world(world.name) == world


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "no column 'rollouts'"),
        ("rollouts,successes\n", "holds no row"),
        ("rollouts,prompts\n4,1\n", "no column 'successes'"),
        ("rollouts,successes\n4,nan\n4,1\n", "line 2: successes must be a whole number, got 'nan'"),
        ("rollouts,successes\n4,1\n4,inf\n", "line 3: successes must be a whole number, got 'inf'"),
        ("rollouts,successes\n4,5\n4,1\n", "line 2: successes must lie between 0 and rollouts, got 5 of 4"),
        ("rollouts,successes\n4,-1\n4,1\n", "got -1 of 4"),
        ("rollouts,successes\n4,1.5\n4,1\n", "must be a whole number, got '1.5'"),
        ("rollouts,successes\n4,two\n4,1\n", "must be a whole number, got 'two'"),
        ("rollouts,successes\n4\n4,1\n", "line 2 has 1 of 2 columns"),
        ("rollouts,successes\n1,1\n4,1\n", "at least 2 rollouts"),
        ("rollouts,successes\n4,1\n", "at least 2 are needed"),
        ("rollouts,successes,prompts\n4,1,0\n", "prompts must be at least 1, got 0"),
        ("rollouts,successes\n1e8,1\n4,1\n", "at most 1,000,000 rollouts"),
        ("rollouts,successes\n1e30,1\n4,1\n", "line 2: rollouts must be at most"),
        ("rollouts,successes\n1e308,1\n4,1\n", "line 2: rollouts must be at most"),
        ("rollouts,successes\n" + "9" * 6000 + ",1\n4,1\n", "line 2: rollouts must be a whole number, got '9{77}...'"),
        ("rollouts,successes,prompts\n4,1,1e25\n", "prompts must be at most"),
        ("rollouts,successes\n4,\0\n", "must be a whole number"),
    ],
)
def test_counts_files_that_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    """Guards every refusal of a counts file, line number included; the world and its counts refuse alike."""
    path = tmp_path / "counts.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    for call in (parse_world, world_counts):
        with pytest.raises(InputError, match=message):
            call(f"counts:{path}")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Guards the reader: a pipe is not waited for; a folder, a loop and bytes that are no text are refused."""
    (tmp_path / "bytes").write_bytes(b"rollouts,successes\n\xff,1\n")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("bytes", "loop", "pipe", "", "absent"):
        with pytest.raises(InputError, match="cannot be read"):
            read_counts(str(tmp_path / name))
    with pytest.raises(InputError, match="null"):
        read_counts("a\0b")


@pytest.mark.parametrize("a", [0.01, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("b", [0.01, 1.0, 1e3, 1e6])
def test_every_legal_beta_has_its_moments(a: float, b: float) -> None:
    """Guards the whole documented range: mean and variance of both rules, at low and high degrees."""
    world = parse_world(f"beta:{a},{b}")
    mean = a / (a + b)
    for prior in (world.quadrature(4), world.quadrature(300), world.fine()):
        assert prior.mean == pytest.approx(mean, rel=1e-7)
        assert prior.between == pytest.approx(mean * (1 - mean) / (a + b + 1), rel=1e-7)


def test_counts_files_that_are_accepted(tmp_path: Path) -> None:
    """Guards optional columns, merging of equal rows, and whole numbers written as decimals."""
    path = tmp_path / "counts.csv"
    path.write_text("model,successes,rollouts,prompts\na,1,4,2\nb,3,4,\na,1,4.0,1\n", encoding="utf-8")
    assert read_counts(str(path)) == Counts((4, 4), (1, 3), (3, 1))
    assert world_counts("beta:1,1") is None


@pytest.mark.parametrize(
    "text",
    [
        "beta:0.1,0.1",
        "beta:5,2",
        "logitnormal:-1,2",
        "points:0.1@1,0.5@2,1@1",
        "mix:0.3*points:0+0.7*beta:2,2",
        "observed:Claude-2",
    ],
)
def test_samples_have_the_worlds_mean_and_variance(text: str) -> None:
    """Guards sampling: mean and variance of 200,000 draws within 5 standard errors of the quadrature's.

    se of the mean sqrt(m2/N), of the variance sqrt((m4 - m2^2)/N): false-fail rate 6e-7 each, 7e-6 for all 12.
    """
    world, size = parse_world(text), 200_000
    prior = world.quadrature(8)
    nodes, weights = np.array(prior.nodes), np.array(prior.weights)
    m2, m4 = (weights @ (nodes - prior.mean) ** j for j in (2, 4))
    p = world.sample(np.random.default_rng(11), size)
    assert p.shape == (size,)
    assert np.all((p >= 0) & (p <= 1))
    assert abs(np.mean(p) - prior.mean) < 5 * math.sqrt(m2 / size)
    assert abs(np.mean((p - prior.mean) ** 2) - m2) < 5 * math.sqrt((m4 - m2**2) / size)


def test_samples_have_the_worlds_law() -> None:
    """Guards the whole distribution: Kolmogorov-Smirnov for Beta, chi-square for points; false-fail rate 1e-6 each."""
    assert kstest(Beta(0.5, 2).sample(np.random.default_rng(1), 50_000), "beta", (0.5, 2)).pvalue > 1e-6
    z = np.log(LogitNormal(1, 2).sample(np.random.default_rng(2), 50_000))
    logit = z - np.log1p(-np.exp(z))
    assert kstest((logit - 1) / 2, "norm").pvalue > 1e-6
    world = parse_world("points:0.1@1,0.5@2,1@1")
    found = Counter(world.sample(np.random.default_rng(3), 40_000).tolist())
    expected = {0.1: 10_000, 0.5: 20_000, 1.0: 10_000}
    assert found.keys() == expected.keys()
    assert sum((found[p] - e) ** 2 / e for p, e in expected.items()) < chi2.isf(1e-6, 2)


def test_a_world_without_any_chance_has_no_correlation() -> None:
    """Guards icc: 0/0 where every reward is equal, 1 where prompts are certain but differ, 0 where they are alike."""
    assert math.isnan(intra_class_correlation(parse_world("points:0")))
    assert intra_class_correlation(parse_world("points:0,1")) == 1
    assert intra_class_correlation(Points("alike", parse_world("points:0.3").prior)) == 0
    assert intra_class_correlation(Beta(2, 3)) == pytest.approx(1 / 6, rel=1e-12)
