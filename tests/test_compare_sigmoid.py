"""The sigmoid of a learning curve: it recovers what made the curve, and says where a curve does not tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpo_sim.compare.sigmoid import fit_sigmoid, value
from ebpo_sim.compare.tables import learning_curves
from ebpo_sim.errors import InputError

STEPS = np.arange(1.0, 33.0) * 10


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(8, 200), st.floats(0.5, 6), st.floats(0, 0.5), st.sampled_from([-1, 1]))
def test_known_parameters_come_back(gain: float, midpoint: float, exponent: float, start: float, sign: int) -> None:
    """Guards the fit: without noise the three parameters that made the curve, rising or falling."""
    made = fit_sigmoid(STEPS, value(STEPS, start, start + sign * gain, midpoint, exponent), start)
    assert made.why == ""
    assert (made.asymptote, made.midpoint, made.exponent) == pytest.approx(
        (start + sign * gain, midpoint, exponent), rel=1e-4, abs=1e-4
    )


@given(st.floats(0.01, 1000))
@settings(max_examples=20, deadline=None)
def test_units_of_compute_do_not_matter(unit: float) -> None:
    """Guards scale: in other units of compute the same asymptote, and the midpoint in those units."""
    rng = np.random.default_rng(0)
    reward = value(STEPS, 0.2, 0.8, 60, 2) + 0.005 * rng.standard_normal(32)
    plain, other = fit_sigmoid(STEPS, reward, 0.2), fit_sigmoid(unit * STEPS, reward, 0.2)
    assert other.asymptote == pytest.approx(plain.asymptote, rel=1e-5)
    assert other.midpoint == pytest.approx(unit * plain.midpoint, rel=1e-4)


def test_errors_are_those_of_repeated_runs() -> None:
    """Guards the standard errors: of 200 noisy curves the asymptote's z has the spread 1; its standard error, with 29
    degrees of freedom, is 0.05, so that a right one is refused here with probability below 1e-4 (fixed seed)."""
    rng = np.random.default_rng(1)
    clean = value(STEPS, 0.2, 0.8, 60, 2)
    fits = [fit_sigmoid(STEPS, clean + 0.01 * rng.standard_normal(32), 0.2) for _ in range(200)]
    z = np.array([(f.asymptote - 0.8) / f.asymptote_se for f in fits])
    z_mid = np.array([np.log(f.midpoint / 60) / f.midpoint_se for f in fits])
    assert abs(z.std() - 1) < 0.2 and abs(z_mid.std() - 1) < 0.2 and abs(z.mean()) < 0.3


@pytest.mark.parametrize(
    ("asymptote", "midpoint", "why"),
    [(0.2, 60, "no gain"), (0.8, 3000, "ends before its midpoint"), (0.8, 320, "ends before its midpoint")],
)
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_what_a_curve_does_not_tell(asymptote: float, midpoint: float, why: str, noise: float) -> None:
    """Guards modesty: a flat curve and one that ends on its way up have no asymptote, and it is said why."""
    rng = np.random.default_rng(3)
    found = fit_sigmoid(STEPS, value(STEPS, 0.2, asymptote, midpoint, 1.5) + noise * rng.standard_normal(32), 0.2)
    assert found[:5] == (None,) * 5
    assert found.why == why or (noise > 0 and found.why != "")


def test_pure_noise_is_rarely_called_a_curve() -> None:
    """Guards against inventing: of 60 curves of noise alone few are given an asymptote (seed fixed; the fit picks the
    best of a family of shapes, so that the share is above the nominal 5 %)."""
    rng = np.random.default_rng(4)
    called = [fit_sigmoid(STEPS, 0.2 + 0.01 * rng.standard_normal(32), 0.2).why == "" for _ in range(60)]
    assert np.mean(called) < 0.2


def test_fits_of_a_long_table() -> None:
    """Guards the results: a row a series, with the fit of its mean curve, or why there is none."""
    rows = [
        {"estimator": arm, "edge": False, "metric": "pass1", "step": int(step), "value": float(at), "se": 0.1,
         "difference": None, "difference_se": None, "seeds": 2}
        for arm, end in (("grpo", 0.8), ("ebpo", 0.2))
        for step, at in zip([0, *STEPS], [0.2, *value(STEPS, 0.2, end, 60, 2)], strict=True)
    ]  # fmt: skip
    known, flat = learning_curves(rows + [r | {"metric": "entropy"} for r in rows], "pass1")
    assert (known["estimator"], known["start"], known["why"], flat["why"]) == ("grpo", 0.2, "", "no gain")
    assert (known["asymptote"], known["midpoint"]) == pytest.approx((0.8, 60)) and flat["asymptote"] is None


def test_too_few_points_and_refusals() -> None:
    """Guards the edges: four points are too few; what is no curve is refused in one line."""
    assert fit_sigmoid([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.35], 0.0).why == "fewer than five points"
    for bad in (([0, 1], [0, 1]), ([1, 2], [0]), ([1, 2], [0, float("nan")])):
        with pytest.raises(InputError, match="leave the record before training out"):
            fit_sigmoid(*bad, 0.0)
