"""The entropy study: rows against the exact rates, simulation against them, long runs at equal reward, the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from ebpo_sim.counts.sampled_updates import entropy_at_reward, train
from ebpo_sim.counts.streams import Design, mean_with_error
from ebpo_sim.counts.updates import rates
from ebpo_sim.estimators import make
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.entropy import study as entropy_study
from ebpo_sim.studies.entropy.study import ARMS, LEVELS, QUICK, SETTINGS, double_ratio, main, score, simulate
from ebpo_sim.worlds import parse_world

LONG = {"arms": 4, "prompts": 12, "steps": 40, "replicates": 3}
RUNS = (("sgd", 2.0), ("adam", 0.3))
FILES = {"table.csv", "summary.json", "entropy.png"}
TINY = ["--prompts", "400", "--steps", "2", "--replicates", "3", "--group-size", "4"]
STUDIED = Settings(
    worlds=("beta:2,3", "points:0.2@0.5,0.7@0.3,0.9@0.2"),
    group_sizes=(2, 5),
    estimators=("ebpo", "dr_grpo", "ebpo_debiased", "oracle_linear"),
    design=Design(prompts=2000, steps=6, burn_in=3, replicates=20, seed=4),
)


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy_study, "LONG", LONG)
    monkeypatch.setattr(entropy_study, "RUNS", RUNS)


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy_study, "LONG", LONG)
        patch.setattr(entropy_study, "RUNS", RUNS)
        return simulate(STUDIED)


def part(rows, name: str):
    return [r for r in rows if r["part"] == name]


def test_step_rows_are_the_exact_rates(rows) -> None:
    """Guards the exact columns: both rates, their ratio to GRPO's, and that ratio per unit of reward."""
    found = part(rows, "step")
    assert len(found) == 2 * 2 * 3 * (1 + len(STUDIED.estimators))
    for r in found:
        world = parse_world(r["world"])
        prior = {"prior": world.quadrature(2 * r["group_size"] + 4)} if r["estimator"] == "oracle_linear" else {}
        mine, plain = (
            rates(e, world, r["group_size"], ARMS, r["optimiser"])
            for e in (make(r["estimator"], **prior), make("grpo"))
        )
        assert (r["reward_exact"], r["entropy_exact"]) == mine
        assert r["loss_ratio_exact"] == pytest.approx(mine.entropy / plain.entropy, rel=1e-12)
        per_reward = (mine.entropy / mine.reward) / (plain.entropy / plain.reward)
        assert r["per_reward_exact"] == pytest.approx(per_reward, rel=1e-12)
        assert (r["loss_ratio_mc"] is None) == (r["optimiser"] == "adam")


def test_simulated_ratios_agree_jointly(rows) -> None:
    """All simulated ratios against the exact ones: t with R - 1 degrees of freedom, Bonferroni, false-fail rate 1e-3;
    standard errors are below 2 % of the ratios, so an error of 15 % would show."""
    z = []
    for r in part(rows, "step"):
        for what in ("loss_ratio", "per_reward"):
            value, se, exact = r[f"{what}_mc"], r[f"{what}_mc_se"], r[f"{what}_exact"]
            if r["optimiser"] == "adam" or r["estimator"] == "grpo":
                assert se in (None, 0.0)
            elif se > 1e-9:  # at G = 2 all gaps are constant, and paired ratios to GRPO have no noise but rounding
                assert se < 0.02 * exact
                z.append((value - exact) / se)
            else:
                assert value == pytest.approx(exact, rel=1e-6)
    assert len(z) > 50
    assert np.abs(z).max() < student.isf(1e-3 / 2 / len(z), STUDIED.design.replicates - 1)


def test_standard_error_of_the_double_ratio() -> None:
    """Guards the delta method: the spread of 4000 double ratios of 50 replicates is the mean standard error. The
    spread has a relative standard error of 1/sqrt(8000) = 1.1 %; 10 % is nine of them."""
    rng = np.random.default_rng(1)
    common = rng.normal(0, 0.2, (4000, 1, 50))
    draws = np.array([2.0, 1.0, 4.0, 3.0])[:, None] + common + rng.normal(0, 0.1, (4000, 4, 50))
    found = np.array([double_ratio(*x) for x in draws])
    assert found[:, 0].mean() == pytest.approx(1.5, rel=0.01)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)


def test_long_runs_are_compared_at_equal_reward(rows) -> None:
    """Guards the long runs: one row a level between the first mean reward and 1, the entropy there that a run of the
    same seed has, paired with GRPO's, at the G nearest 4."""
    found = part(rows, "run")
    assert len(found) == 2 * len(RUNS) * len(LEVELS) * (1 + len(STUDIED.estimators))
    assert {r["group_size"] for r in found} == {5}
    mine = [r for r in found if r["world"] == STUDIED.worlds[1] and r["optimiser"] == "sgd"]
    start = np.repeat([0.2, 0.7, 0.9], [6, 4, 2])  # quantiles 1/24, 3/24, ...: 6 below 0.5, 10 below 0.8
    paths = {
        name: train(
            make(name), start, group_size=5, arms=4, steps=40, learning_rate=2.0, optimiser="sgd", replicates=3, seed=4
        )
        for name in ("grpo", "ebpo")
    }
    for level, row in zip(LEVELS, [r for r in mine if r["estimator"] == "ebpo"], strict=True):
        reward = start.mean() + level * (1 - start.mean())
        assert row["at_reward"] == pytest.approx(reward, rel=1e-12)
        left = {name: entropy_at_reward(path, reward) for name, path in paths.items()}
        assert (row["entropy_left"], row["entropy_left_se"]) == mean_with_error(left["ebpo"])
        assert (row["difference"], row["difference_se"]) == mean_with_error(left["ebpo"] - left["grpo"])
    assert all(r["difference"] == 0 for r in found if r["estimator"] == "grpo" and r["entropy_left"] is not None)


def test_score_counts_and_compares(rows) -> None:
    """Guards the summary: P1 fails in every cell here, and the largest |z| is that of the rows."""
    found = score(STUDIED, rows)
    z = [
        (r[f"{w}_mc"] - r[f"{w}_exact"]) / r[f"{w}_mc_se"]
        for r in rows
        for w in ("loss_ratio", "per_reward")
        if r[f"{w}_mc_se"]
    ]
    assert (found["comparisons"], found["max_abs_z"]) == (len(z), np.abs(z).max())
    assert (found["ebpo_natural"]["cells"], found["ebpo_natural"]["loses_less_entropy"]) == (4, 0)
    better = [{**r, "loss_ratio_exact": 0.9, "per_reward_exact": 0.8} for r in rows if r["part"] == "step"]
    assert score(STUDIED, better)["ebpo_adam"] == {"cells": 4, "loses_less_entropy": 4, "loses_less_per_reward": 4}


def test_summary_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards what the study says: a view for each optimiser, rows of steps and of long runs; and the text."""
    arguments = ["--world", "beta:2,3", "--estimator", "ebpo", *TINY, "--out", str(tmp_path)]
    main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    views = ["ebpo_natural", "ebpo_vanilla", "ebpo_adam"]
    assert list(found) == ["settings", "comparisons", "max_abs_z", *views, "rows"]
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert len(found["rows"]) == 2 * 3 + 2 * 2 * 3
    main(arguments)
    assert "entropy when the mean reward is the same" in capsys.readouterr().out


def test_settings_name_real_worlds() -> None:
    """Guards the defaults: full and quick settings can be studied."""
    assert all(parse_world(text) for settings in (SETTINGS, QUICK) for text in settings.worlds)


def test_a_study_without_ebpo(tmp_path: Path) -> None:
    """Guards --estimator: any registered estimator can be studied without a warning."""
    main(["--world", "beta:2,3", "--estimator", "dr_grpo", *TINY, "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("world", ["points:0", "points:1", "points:0,1", "points:0.001", "beta:0.01,0.01"])
def test_worlds_in_which_groups_are_almost_always_equal(world: str, tmp_path: Path) -> None:
    """Guards the corners: where no sampled group is mixed the simulated ratios do not exist; nothing crashes."""
    tiny = ["--prompts", "5", "--steps", "2", "--replicates", "2", "--group-size", "2"]
    main(["--world", world, "--estimator", "ebpo", *tiny, "--json", "--out", str(tmp_path)])
    assert "NaN" not in (tmp_path / "summary.json").read_text(encoding="utf-8")
