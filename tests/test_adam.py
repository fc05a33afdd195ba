"""The one NumPy Adam and the one softmax: against their twins and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from ebpo_sim import InputError
from ebpo_sim.chains.kernels import ADAM_EPS, BETA1, BETA2, optimiser_step
from ebpo_sim.numbers import adam
from ebpo_sim.numbers.softmax import softmax


@given(seed=st.integers(0, 10**6), size=st.integers(-8, 8), rate=st.sampled_from([1e-6, 0.01, 0.3]))
def test_the_compiled_step_is_its_twin(seed: int, size: int, rate: float) -> None:
    """30 updates of both, gradients of any size and some exactly 0: parameters and moments to the last bit."""
    rng = np.random.default_rng(seed)
    settings = adam.Adam(rate, BETA1, BETA2, ADAM_EPS)
    assert settings == adam.Adam(rate)
    state = adam.init(rng.normal(size=(5, 4)))
    theta, first, second = (np.array(x) for x in state[:3])
    for count in range(1, 31):
        gradient = rng.normal(size=(5, 4)) * 10.0**size * (rng.random((5, 4)) < 0.8)
        state = adam.update(settings, state, gradient)
        norm = optimiser_step(theta, first, second, count, gradient, True, rate)
        assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-14)
        for mine, compiled in zip(state[:3], (theta, first, second), strict=True):
            np.testing.assert_array_equal(mine, compiled)
    assert np.max(np.abs(theta)) > 0


def test_update_leaves_its_arguments_alone() -> None:
    """Pure: the state and the gradient that went in are as they were."""
    state, gradient = adam.init([0.5, -1.0]), np.array([1.0, 2.0])
    before = [np.array(x) for x in state[:3]]
    adam.update(adam.Adam(weight_decay=0.1), state, gradient)
    for x, y in zip(state[:3], before, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(gradient, [1.0, 2.0])
    assert adam.direction(adam.Adam(eps=0.0), adam.init([0.0])._replace(step=1)) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (adam.Adam(lr=0.0), "lr must be positive, got 0.0"),
        (adam.Adam(lr=float("nan")), "lr must be positive, got nan"),
        (adam.Adam(beta2=1.0), r"beta2 must be in \[0, 1\), got 1.0"),
        (adam.Adam(eps=-1.0), "eps must not be negative"),
        (adam.Adam(weight_decay=-0.1), "weight_decay must not be negative"),
    ],
)
def test_impossible_settings_are_refused(settings: adam.Adam, words: str) -> None:
    with pytest.raises(InputError, match=words):
        adam.check(settings)


ANY_LOGITS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e300, 1e300))


@given(ANY_LOGITS)
def test_softmax_is_scipys(logits: np.ndarray) -> None:
    """Any finite logits: SciPy's numbers, each row sums to 1, nothing overflows."""
    pi = softmax(logits)
    np.testing.assert_allclose(pi, special.softmax(logits, axis=-1), rtol=1e-14, atol=0)
    np.testing.assert_allclose(pi.sum(axis=-1), 1, rtol=1e-14)
