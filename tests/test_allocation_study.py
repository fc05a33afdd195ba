"""The allocation study: its replay against exact sums, its ratios and words against arithmetic of their own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import comb

from ebpo_sim.chains.rung import start
from ebpo_sim.compare.plan import Job, Series
from ebpo_sim.errors import InputError
from ebpo_sim.sampling import Plan
from ebpo_sim.studies.allocation import outcomes, replay, study
from ebpo_sim.studies.prediction.cells import Cell, config, population
from ebpo_sim.worlds import Recorded

RIGHT_PV = np.array([[0, 1, 2, 3], [8, 8, 7, 8], [4, 5, 4, 3], [0, 0, 0, 0], [1, 0, 2, 6]])
RUN = Recorded("hand", tuple("abcde"), 8, RIGHT_PV, 4)


def test_a_replay_is_unbiased() -> None:
    """Guards the drawn groups: over 3,000 replicates of all five prompts the share of silent groups and the signal are
    the exact hypergeometric ones, (n - 1) k (8 - k)/56 a group, within 5 standard errors (6e-7)."""
    rng, plan = np.random.default_rng(0), Plan(np.arange(5), np.array([2, 3, 4, 2, 8]))
    found = np.array([
        (g.degenerate_P, g.within_ss_P) for g in (replay.recorded_groups(RUN, 2, plan, rng) for _ in range(3000))
    ]).astype(float)  # fmt: skip
    k, n = RIGHT_PV[:, 2], plan.size_P
    exact = np.array([(comb(k, n) + comb(8 - k, n)) / comb(8, n), (n - 1) * k * (8 - k) / 56])
    se = found.std(axis=0, ddof=1) / math.sqrt(3000)
    assert np.all(np.abs(found.mean(axis=0) - exact) <= 5 * se + 1e-12)


def test_what_is_counted() -> None:
    """Guards the sums: all of the pool at each visit, so that nothing is chance but the split; dynamic sampling draws
    on, counts what it drew and keeps no more groups than asked for; weights lower the share of the rollouts."""
    plain = replay.drawn(RUN, "grpo", 8, 5, 4, 1, range(2))
    sums = dict(zip(replay.SUMS, plain.sums_SP, strict=True))
    live_P = np.sum((RIGHT_PV > 0) & (RIGHT_PV < 8), axis=1) - ((RIGHT_PV > 0) & (RIGHT_PV < 8))[:, 0]
    assert sums["rollouts"].tolist() == [2 * 3 * 8] * 5 and sums["groups"].tolist() == [6] * 5
    assert sums["silent"].tolist() == (6 - 2 * live_P).tolist() and sums["rows"].tolist() == (16 * live_P).tolist()
    np.testing.assert_allclose(sums["signal"], 2 * (RIGHT_PV * (8 - RIGHT_PV) / 8)[:, 1:].sum(axis=1))
    assert (plain.effective, plain.left_out, plain.kish) == (None, None, 1.0)  # no visit of every fifth
    more = dict(
        zip(replay.SUMS, replay.drawn(RUN, "grpo + dynamic:batches=3", 8, 3, 4, 0, range(2)).sums_SP, strict=True)
    )
    assert more["rollouts"].sum() > 2 * 4 * 3 * 8 >= more["rows"].sum()
    weighed = replay.drawn(RUN, "grpo + variance_proportional:weights=unbiased,floor=0", 4, 4, 4, 0, range(4))
    assert 0.3 < weighed.kish < 1 and weighed.effective == 1.0
    biased = replay.drawn(RUN, "grpo + variance_proportional:floor=0,power=2", 4, 4, 4, 0, range(4))
    assert biased.kish == 1 and biased.effective is not None and biased.effective <= 1


def test_ratios_of_the_replay_by_hand() -> None:
    """Guards the rows: ratios of sums, seconds as a rollouts + b rows, intervals that hold the value."""
    first, second = (replay.drawn(RUN, name, 8, 5, 4, 0, range(1)) for name in ("grpo", "grpo + dynamic:batches=1"))
    rows = {(r["estimator"], r["quantity"]): r for r in replay.rows_of(RUN, [("grpo", first), ("x", second)], 0)}
    s = dict(zip(replay.SUMS, first.sums_SP.sum(axis=1), strict=True))
    assert rows["grpo", "silent groups"]["value"] == pytest.approx(s["silent"] / s["groups"])
    assert rows["x", "signal per rollout / grpo's"]["value"] == pytest.approx(1)  # left out, but nothing drawn instead
    assert rows["x", "signal per seconds 1:4 / grpo's"]["value"] == pytest.approx(1)
    assert all(r["low"] is None or r["low"] <= r["value"] <= r["high"] for r in rows.values())


def series_of(arm: str, steps: list[float], drawn: float, trained: float) -> Any:
    cell = Cell("w", "noisy", "adam", 4, 32, 0.4, 0.5)
    place = {**cell._asdict(), "tuning": "own"}
    curves = {
        seed: [
            {"step": 0.0, "pass1": 0.3, "rollouts": 0.0, "rows": 0.0, "entropy": 1.0},
            {"step": 2 * s, "pass1": 0.7, "rollouts": 2 * s * drawn, "rows": 2 * s * trained, "entropy": 0.5},
        ]
        for seed, s in enumerate(steps)
    }
    return (arm, cell, "own"), Series(arm, place, 0.1, False, curves)


def test_costs_are_paired_and_corrected() -> None:
    """Guards part 2: at pass@1 0.5 half of each run; ratios of rollouts and seconds by seed, Holm over the methods, a
    method that misses the target has no number and still counts in the family."""
    found = dict((
        series_of("grpo", [10, 12, 11], 32, 12), series_of("cheap", [5, 6.3, 5.4], 32, 16),
        series_of("dear", [10.2, 11.9, 11.1], 32, 12),
    ))  # fmt: skip
    missing = series_of("never", [10, 12, 11], 32, 12)
    for curve in missing[1].curves.values():
        curve[1]["pass1"] = 0.45
    found |= dict([missing])
    rows = {(r["estimator"], r["quantity"], r["target"]): r for r in outcomes.training_rows(found, 3)}
    ratio = rows["cheap", "ratio of rollouts", "far"]
    logs = np.log([5 / 10, 6.3 / 12, 5.4 / 11])
    assert ratio["value"] == pytest.approx(np.exp(logs.mean())) and ratio["se"] == pytest.approx(
        logs.std(ddof=1) / 3**0.5
    )
    seconds = rows["cheap", "ratio of seconds 1:4", "far"]
    assert seconds["value"] == pytest.approx(np.exp(logs.mean()) * (32 + 64) / (32 + 48))
    assert ratio["verdict"] == "appears" and rows["dear", "ratio of rollouts", "far"]["verdict"] == "no difference seen"
    assert rows["never", "ratio of rollouts", "far"]["value"] is None
    plain = outcomes.mean_of(logs).p
    assert plain is not None and ratio["p_holm"] == pytest.approx(3 * plain)  # of three methods, the smallest
    assert rows["never", "steps", "near"]["value"] == pytest.approx(11 * 2 * 0.1 / 0.15)


def test_memories_start_warm() -> None:
    """Guards `Warm`: the allocation has met the prompts, the policy is the start's, nothing is counted; a method
    without a memory starts as ever, and the names of runs differ."""
    settings = replace(study.QUICK.training, population=64, validation=16)
    cell, warm = Cell(settings.worlds[0], "noisy", "adam", 4, 32), outcomes.Warm(settings, 4)
    people = population(settings, *cell[:2], 0)
    for arm in ("grpo + mopps", "grpo"):
        run = config(settings, arm, cell, 0.1)
        state, plain = warm.begin(people, run), start(people, run)
        assert np.array_equal(state.theta_SK, plain.theta_SK) and state.steps == 0 and not state.window.any()
        seen = state.method.allocation
        assert seen == () if arm == "grpo" else sum(t["visits"].sum() for t in seen) == 4 * 64
    job = Job("grpo", cell, 0.1, 0, 10)
    assert len({outcomes.Warm(settings, n).key(job) for n in (0, 4)}) == 2


def test_what_cannot_be_replayed(tmp_path: Any) -> None:
    """Guards the refusals of part 1."""
    short = tmp_path / "short.csv"
    short.write_text("prompt,rollouts,successes\na,8,123\nb,8,456\n", encoding="utf-8")
    with pytest.raises(InputError, match="too few visits: a replay needs more than 4"):
        study.check(replace(study.QUICK, run=str(short)))
    with pytest.raises(InputError, match="unknown recorded world 'none'"):
        study.check(replace(study.QUICK, run="none"))
    assert replay.method_of("grpo + knapsack", 8).allocation.most == 8  # type: ignore[union-attr]
