"""The bootstrap intervals of the diagnosis: acceleration and bias correction against SciPy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from ebpo_sim.diagnose.intervals import bca


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([-1.0, 1.0]), st.integers(12, 60))
def test_bca_equals_scipys(seed: int, sign: float, size: int) -> None:
    """Guards z0 and the acceleration with its sign: for a mean, on SciPy's replicates, the ends are SciPy's to 1e-9.

    SciPy takes the acceleration from the jackknife; for a mean that is the influence x - mean itself.
    """
    x = sign * np.random.default_rng(seed).gamma(0.5, size=size)
    theirs = bootstrap((x,), np.mean, n_resamples=400, method="BCa", random_state=np.random.default_rng(seed))
    ours = bca(float(x.mean()), theirs.bootstrap_distribution, x - x.mean(), np.ones(size))
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def test_the_acceleration_points_along_the_skew() -> None:
    """Guards the sign by itself: replicates symmetric about the value, influences skewed to the right, so the interval
    reaches further above than below; turned round, further below; without skew it is symmetric."""
    replicates = np.linspace(-4.0, 4.0, 8001)
    skewed = np.array([-1.0] * 8 + [2.0] * 4)
    for sign in (1.0, -1.0):
        found = bca(0.0, replicates, sign * skewed, np.ones(12))
        assert found.low is not None and found.high is not None
        assert sign * (found.high + found.low) > 0.01
    even = bca(0.0, replicates, np.array([-1.0, 1.0] * 6), np.ones(12))
    assert even.low is not None and even.high is not None
    assert even.high + even.low == pytest.approx(0, abs=1e-9)
