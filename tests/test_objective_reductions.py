"""Objectives with their restraints off, and at points that their papers or arithmetic by hand give."""

from __future__ import annotations

import numpy as np
import pytest

from ebpo_sim.objectives import CISPO, DPPO, MHPO, SAPO, Clip, R2VPOFixed, Tokens
from rollout_tokens import tokens


def test_reductions_of_the_gates() -> None:
    """Each with its own restraint off is the unclipped ratio; CISPO held at 1 is REINFORCE without one."""
    t = tokens(3)
    free = Clip(None, None).push((), t).log_prob_NT
    assert np.max(np.abs(t.log_prob_NT - t.old_NT)[t.mask_NT]) > np.log(3)
    np.testing.assert_array_equal(CISPO(None, None).push((), t).log_prob_NT, free)
    np.testing.assert_array_equal(DPPO(1.0).push((), t).log_prob_NT, free)
    np.testing.assert_array_equal(DPPO(1.0, cap=1e6).push((), t).log_prob_NT, free)
    np.testing.assert_array_equal(R2VPOFixed(0.0).push((), t).log_prob_NT, free)
    np.testing.assert_allclose(SAPO(1e-6, 1e-6).push((), t).log_prob_NT, free, rtol=1e-9)
    np.testing.assert_allclose(MHPO(1e9, 2.0, 1e9, 2.0, 1e9).push((), t).log_prob_NT, free, rtol=1e-14)
    plain = np.where(t.mask_NT, t.advantage_NT, 0.0)
    np.testing.assert_array_equal(CISPO(0.0, 0.0).push((), t).log_prob_NT, plain)
    on_policy = t._replace(old_NT=t.log_prob_NT)
    for objective in (CISPO(), CISPO(0.2, 0.2), DPPO(0.0), SAPO(3.0, 0.1), R2VPOFixed(2.5)):
        np.testing.assert_array_equal(objective.push((), on_policy).log_prob_NT, plain)
    np.testing.assert_allclose(
        MHPO().push((), on_policy).log_prob_NT, plain * np.exp(-(np.log(2) ** 1.5) - (np.log(2) / 0.8) ** 2), rtol=1e-14
    )


def one(ratio: float, old: float, advantage: float) -> Tokens:
    """One token."""
    cell = np.ones((1, 1))
    return Tokens(np.log(ratio * old) * cell, np.log(old) * cell, cell > 0, advantage * cell)


def test_published_points() -> None:
    """MHPO's multiplier at 1 and its top; DPPO where PPO differs, both ways; R2VPO's fixed point; CISPO keeps all."""
    multiplier = {s: float(MHPO().push((), one(s, 0.1, 1.0)).log_prob_NT[0, 0]) for s in (1.0, 1.78, 1.7, 1.86)}
    assert multiplier[1.0] == pytest.approx(0.26506, abs=5e-6)
    assert multiplier[1.78] == pytest.approx(0.3958, abs=5e-5)
    assert multiplier[1.78] > max(multiplier[1.7], multiplier[1.86])
    no_hazard = MHPO(up_scale=1e9, down_scale=1e9)
    assert float(no_hazard.push((), one(2.45, 0.1, 1.0)).log_prob_NT[0, 0]) == pytest.approx(1.5925, abs=5e-5)
    rare, common = one(100.0, 1e-5, 1.0), one(0.8 / 0.99, 0.99, -1.0)
    assert Clip().push((), rare).log_prob_NT[0, 0] == 0 < DPPO().push((), rare).log_prob_NT[0, 0]
    assert DPPO().push((), common).log_prob_NT[0, 0] == 0 > Clip().push((), common).log_prob_NT[0, 0]
    assert DPPO().push((), common).counts["clipped"] == 1
    back = one(0.5, 0.9, 1.0)  # far, but on its way back to the old policy
    assert DPPO().push((), back).log_prob_NT[0, 0] == pytest.approx(0.5)
    for advantage, penalty in ((1.0, 2.5), (-1.0, 2.5), (0.0, 1.0)):
        fixed = 1 + advantage / (2 * penalty)
        below, at, above = (
            float(R2VPOFixed(penalty).push((), one(fixed + d, 0.2, advantage)).log_prob_NT[0, 0])
            for d in (-0.01, 0.0, 0.01)
        )
        assert below > 1e-3 > 1e-12 > abs(at)
        assert above < -1e-3
    assert float(CISPO().push((), one(5.0, 0.1, -2.0)).log_prob_NT[0, 0]) == pytest.approx(-2.4)
    assert CISPO().push((), one(5.0, 0.1, -2.0)).counts["clipped"] == 1
    sapo = [float(SAPO(2.0, 4.0).push((), one(1.5, 0.1, a)).log_prob_NT[0, 0]) for a in (1.0, -1.0)]
    assert sapo == pytest.approx([1.5 / np.cosh(0.5) ** 2, -1.5 / np.cosh(1.0) ** 2])
