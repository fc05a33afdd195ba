"""Intervals of the answers: their coverage on simulated logs, and what few replicates can carry."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from ebpo_sim.diagnose import coverage_answers
from ebpo_sim.diagnose.intervals import LEVEL, spread
from ebpo_sim.worlds import parse_world


def test_few_replicates_make_a_t_interval() -> None:
    """Guards the ends: value times exp(-+ t s), s the replicates' standard deviation in logarithms."""
    logs = np.array([-0.1, 0.0, 0.1, 0.2])
    found = spread(2.0, np.exp(logs))
    assert found.low is not None and found.high is not None
    half = t.ppf(0.975, 3) * np.std(logs, ddof=1)
    assert (found.low, found.high) == pytest.approx((2 * np.exp(-half), 2 * np.exp(half)))
    assert spread(2.0, np.full(5, 2.0)) == (2.0, 2.0, 2.0)


def test_intervals_of_answers_cover() -> None:
    """Guards noise, history and windows on 16 logs of a known world: 95 % nominal.

    Were coverage 0.95, 11 or fewer of 16 would be seen with probability 1.1e-3: over 14 quantities false fails stay
    below 1.6 % for a new seed. Stated batches are enough in 95 % of the steps on average over the logs.
    """
    assert binom.cdf(11, 16, LEVEL) < 1.2e-3
    design = coverage_answers.Design(sets=16, prompts=128, draws=200)
    rows = {row["quantity"]: row for row in coverage_answers.study("beta:0.5,0.7", design)}
    assert {"window: ICC", "history: spo", "worth of a rollout, logged", "noise at G = 4, equal"} < rows.keys()
    assert len(rows) == 15 and rows["worst batches"]["coverage"] > 0.9
    for name, row in rows.items():
        assert row["sets"] == 16, row
        assert name == "worst batches" or row["coverage"] > 11 / 16, row


def test_true_norms_average_over_the_world() -> None:
    """Guards the truth: what is common to answers is a share of E W = p (2 - p) + (1 - p)(1 + 2p) over the world."""
    world = parse_world("points:0.2,0.7")
    mean = np.mean([p * (2 - p) + (1 - p) * (1 + 2 * p) for p in (0.2, 0.7)])
    scores = coverage_answers.true_norms(world)([0.2, 0.7])
    np.testing.assert_allclose(scores.apart_J, 0.01 * mean)
    np.testing.assert_allclose(scores.right_J, [1.8, 1.3])
    np.testing.assert_allclose(scores.wrong_J, [1.4, 2.4])
