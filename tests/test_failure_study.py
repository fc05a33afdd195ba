"""The failure study: what an all-fail group gets and what history changes, the direction of a penalty, the files."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from ebpo_sim.counts.exact import limit_state
from ebpo_sim.counts.streams import Design
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.failure.study import (
    QUICK,
    SETTINGS,
    after_history,
    direction,
    main,
    reference_batch,
    signal_to_noise,
    simulate,
)
from ebpo_sim.worlds import parse_world

MEANS = (0.05, 0.3, 0.7, 0.95)
RHO = 1 / 6  # of every Beta(5 m, 5 (1 - m))
FILES = {"table.csv", "summary.json", "failure.png"}
TINY = ["--prompts", "60", "--steps", "2", "--replicates", "3", "--group-size", "2", "--threads", "1"]
STUDIED = Settings(
    worlds=("beta:1.5,3.5", "points:0.2@0.5,0.7@0.3,0.9@0.2"),
    group_sizes=(2, 5),
    estimators=("grpo", "ebpo", "ebpo_released", "ebpo_debiased", "ebpo_nonparametric"),
    design=Design(prompts=2048, steps=6, burn_in=3, replicates=24, seed=2),
)


@pytest.fixture(scope="module")
def rows():
    return [r for r in simulate(STUDIED) if r["part"] == "signal"]


def penalty(name: str, mean: float, counts: list[float], size: int) -> float:
    world = parse_world(f"beta:{5 * mean:g},{5 * (1 - mean):g}")
    return -after_history(make(name), limit_state(make(name), world, size), counts, size)


@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_ebpos_penalty_ignores_the_histories_mean(size: int) -> None:
    """C1 fails for Algorithm 1: in one batch its penalty is the same after histories of any mean (one S), namely
    S m/std, m the batch mean and std that of r - (1-S) k/G over the batch: 8 failed groups, 8 with j successes."""
    j, s = max(1, size // 2), 1 / (2 + (size - 1) * RHO)
    m, residual = j / (2 * size), [-(1 - s) * j / size, 1 - (1 - s) * j / size]
    raw = np.array([0.0] * (8 * size) + (residual[:1] * (size - j) + residual[1:] * j) * 8)
    expected = s * m / (raw.std(ddof=1) + 1e-6)
    assert raw.mean() == pytest.approx(s * m, rel=1e-12)
    found = [penalty("ebpo", mean, reference_batch(size), size) for mean in MEANS]
    assert found == pytest.approx([expected] * len(MEANS), rel=1e-9)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_the_debiased_penalty_grows_with_the_histories_mean(size: int) -> None:
    """C1 holds for the repair: S mu/sqrt(within (1 - 1/G) + S^2 (between + within/G)), in any batch, so it grows like
    sqrt(mu/(1 - mu)); GRPO's is 0."""
    s = (1 - RHO) / (1 + (size - 1) * RHO)
    variance = (1 - RHO) * (1 - 1 / size) + s**2 * (RHO + (1 - RHO) / size)
    expected = [s * mu / np.sqrt(mu * (1 - mu) * variance) for mu in MEANS]
    for batch in (reference_batch(size), [8.0] + [0.0] * size):
        found = [penalty("ebpo_debiased", mean, batch, size) for mean in MEANS]
        assert found == pytest.approx(expected, rel=1e-5)
        assert found == sorted(found)
        assert {penalty("grpo", mean, batch, size) for mean in MEANS} == {0}


@pytest.mark.parametrize("name", ["grpo", "ebpo", "ebpo_released", "ebpo_within", "ebpo_beta_binomial"])
@pytest.mark.parametrize("size", [1, 4])
def test_a_batch_without_success_is_silent(name: str, size: int) -> None:
    """T1 fails: without one success centring leaves exactly 0, whatever the history; the repairs stay negative."""
    nothing = [8.0] + [0.0] * size
    assert {penalty(name, mean, nothing, size) for mean in MEANS} == {0}
    assert all(penalty("ebpo_debiased", mean, nothing, size) > 0.05 for mean in MEANS)
    assert all(penalty("ebpo_nonparametric", mean, nothing, size) > 0.01 for mean in MEANS)


def test_the_released_code_has_no_history() -> None:
    """Guards the order: trackers of one batch see that batch, so after any history the penalty is a fresh start's."""
    estimator, batch = make("ebpo_released"), [[0.0] * 4] * 8 + [[1.0, 1.0, 0.0, 0.0]] * 8
    advantages, _, _ = estimator.step(estimator.init(), group_rewards(batch))
    found = [penalty("ebpo_released", mean, reference_batch(4), 4) for mean in MEANS]
    assert found == pytest.approx([-np.asarray(advantages)[0, 0]] * len(MEANS), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_reference_batch(size: int) -> None:
    """Guards the fixed batch: 8 groups that fail, and 8 that succeed in part where their size allows it."""
    counts = reference_batch(size)
    assert len(counts) == size + 1
    assert (counts[0], sum(counts)) == (8.0, 16.0)
    assert size == 1 or counts[size] == 0


def test_signal_rows_agree_with_simulation(rows) -> None:
    """All simulated normalised advantages against the exact ones: t with R - 1 degrees of freedom, Bonferroni,
    false-fail rate 1e-3; standard errors are below 2 % of the advantages, so an error of 15 % would show."""
    z = []
    for r in rows:
        if r["estimator"] == "grpo":
            assert r["normalised_exact"] == r["normalised_mc"] == r["normalised_mc_se"] == 0
            continue
        assert 0 < r["normalised_mc_se"] < 0.02 * abs(r["normalised_exact"])
        z.append((r["normalised_mc"] - r["normalised_exact"]) / r["normalised_mc_se"])
    assert len(z) == 4 * 4
    assert np.abs(z).max() < student.isf(1e-3 / 2 / len(z), STUDIED.design.replicates - 1)


def test_raw_advantages_have_their_closed_form(rows) -> None:
    """Guards raw_exact: GRPO 0, Algorithm 1 and its release -S mu with the published S, the repair -S* mu."""
    for r in rows:
        size, rho, mu = r["group_size"], r["icc"], r["mu_glob"]
        published = -mu / (2 + (size - 1) * rho)
        best = -mu * (1 - rho) / (1 + (size - 1) * rho)
        expected = {"grpo": 0.0, "ebpo": published, "ebpo_released": published, "ebpo_debiased": best}
        if r["estimator"] in expected:
            assert r["raw_exact"] == pytest.approx(expected[r["estimator"]], rel=1e-5)
        assert (r["raw_exact"] < 0) == (r["estimator"] != "grpo")


@pytest.mark.parametrize("arms", [3, 4, 6])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_signal_to_noise_by_enumeration(arms: int, size: int) -> None:
    """Guards p sqrt(K/(K-2)) sqrt(G): mean and covariance of the penalty's update over all sequences of wrong arms."""
    for p, c in ((0.05, 1.0), (0.6, 0.3)):
        pi = np.array([p] + [(1 - p) / (arms - 1)] * (arms - 1))
        drawn = product(range(1, arms), repeat=size)
        moves = [-c * np.mean([np.eye(arms)[a] - pi for a in sequence], axis=0) for sequence in drawn]
        expected = np.linalg.norm(np.mean(moves, axis=0)) / np.sqrt(np.var(moves, axis=0).sum())
        assert signal_to_noise(p, size, arms) == pytest.approx(expected, rel=1e-12)


def test_simulated_direction_is_unbiased() -> None:
    """Guards the product of two independent halves: at p = 0.01 squaring one mean would add 1/8000 to the square of
    4/18000, over 10 standard errors. 5 standard errors (t, 199 degrees of freedom: false-fail rate 1e-6)."""
    design = Design(prompts=1, steps=2, burn_in=0, replicates=200, seed=9)
    row = direction(0.01, 2, 20, design)
    square, se = row["snr_mc"] ** 2, 2 * row["snr_mc"] * row["snr_mc_se"]
    exact = 0.01**2 * 2 * 20 / 18
    assert row["snr_exact"] ** 2 == pytest.approx(exact, rel=1e-12)
    assert abs(square - exact) < 5 * se
    assert 10 * se < 1 / 8000
    assert row == direction(0.01, 2, 20, design) != direction(0.01, 2, 20, design._replace(seed=8))


def run_study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ebpo_sim.failure_study", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_summary_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards what the study says: the spans of EBPO's penalty are 0, a row of signal and six of direction; the text."""
    arguments = ["--world", "beta:2,3", "--estimator", "ebpo", *TINY, "--out", str(tmp_path)]
    main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["settings", "comparisons", "max_abs_z", "estimators", "rows"]
    assert {path.name for path in tmp_path.iterdir()} == FILES
    (spans,) = found["estimators"].values()
    assert spans == {
        "all-fail advantage, batch without a success, closest to 0": 0,
        "range over histories, same batch": 0,
    }
    assert [r["part"] for r in found["rows"]] == ["signal"] + ["direction"] * 6
    main(arguments)
    assert "Advantage of an all-fail group, G = 2" in capsys.readouterr().out


def test_settings_name_real_worlds() -> None:
    """Guards the defaults: full and quick settings can be studied."""
    assert all(parse_world(text) for settings in (SETTINGS, QUICK) for text in settings.worlds)
