"""Every objective through one battery: the push is the derivative of its value, in NumPy and torch alike."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import InputError
from ebpo_sim.objectives import (
    BAPO,
    CISPO,
    DPPO,
    DPPOKL,
    GBPO,
    GMPO,
    GSPO,
    IPO,
    KL,
    MHPO,
    MIS,
    REAL,
    SAPO,
    TIS,
    TOPR,
    VESPO,
    Aggregation,
    Clip,
    ClipCov,
    DisCO,
    EntropyBonus,
    EntropyTarget,
    IcePop,
    KLCov,
    KLOld,
    MinPRO,
    Objective,
    R2VPOFixed,
    Tokens,
    total_push,
)
from ebpo_sim.objectives import needs as needs_of
from ebpo_sim.objectives.base import LogRatio
from rollout_tokens import tokens

OBJECTIVES: dict[str, Objective] = {
    "clip": Clip(),
    "clip higher": Clip(0.2, 0.28),
    "clip off": Clip(None, None),
    "clip upper only": Clip(None, 0.2),
    "clip dual": Clip(0.2, 0.2, dual=3.0),
    "clip limited": Clip(None, None, limit=0.4),
    "k1": KL(0.3, "k1"),
    "k2": KL(0.3, "k2"),
    "k3": KL(0.3, "k3"),
    "k3 clamped": KL(0.3, "k3", clamp=0.2),
    "k2 limited": KL(0.3, "k2", limit=0.5),
    "entropy": EntropyBonus(0.1),
    "cispo": CISPO(),
    "cispo both sides": CISPO(0.2, 0.28),
    "cispo limited": CISPO(None, None, limit=0.4),
    "dppo": DPPO(0.05),
    "dppo capped": DPPO(0.05, cap=1.5),
    "dppo limited": DPPO(0.05, limit=0.4),
    "dppo capped and limited": DPPO(0.05, cap=1.5, limit=0.4),
    "sapo": SAPO(),
    "sapo steep": SAPO(5.0, 20.0),
    "sapo limited": SAPO(limit=0.4),
    "mhpo": MHPO(),
    "mhpo tight": MHPO(0.05, 1.0, 0.5, 3.0, 2.0),
    "mhpo limited": MHPO(limit=0.4),
    "r2vpo, fixed": R2VPOFixed(),
    "r2vpo, strong": R2VPOFixed(2.5),
    "r2vpo, no penalty": R2VPOFixed(0.0),
    "r2vpo, limited": R2VPOFixed(limit=0.4),
    "dppo kl": DPPOKL(),
    "dppo kl capped": DPPOKL(0.01, cap=1.5),
    "ipo": IPO(0.2),
    "gspo": GSPO(),
    "gspo wide": GSPO(0.2, 0.28),
    "gspo limited": GSPO(None, 0.1, limit=0.4),
    "gmpo": GMPO(),
    "gmpo limited": GMPO(0.5, 0.5, limit=0.4),
    "vespo": VESPO(),
    "vespo limited": VESPO(1.0, 0.5, 2.0, 1.5, limit=0.4),
    "topr": TOPR(),
    "topr capped": TOPR(2.5, limit=0.4),
    "minpro": MinPRO(),
    "minpro both sides": MinPRO(0.2, 0.28, limit=0.4),
    "real": REAL(),
    "real sharp": REAL(0.01, limit=0.4),
    "disco": DisCO(delta=0.0),
    "disco ratios": DisCO(1.0, "ratio", limit=0.4),
    "gbpo": GBPO(),
    "gbpo sharp": GBPO(0.2, 0.28, 1e-4, limit=0.4),
    "bapo": BAPO(),
    "bapo as released": BAPO(0.5, order="low_first", weighted=False, limit=0.4),
    "clip_cov": ClipCov(0.2, 0.1, 2.0, 0.2, 0.2),
    "kl_cov": KLCov(0.3),
    "kl_cov limited": KLCov(0.2, 0.5, limit=0.4),
    "kl_old": KLOld(0.3),
    "kl_old limited": KLOld(limit=0.4),
    "entropy target": EntropyTarget(9.0),
    "tis": TIS(),
    "icepop": IcePop(),
    "mis": MIS(),
}
STATES: dict[str, Any] = {"entropy target": EntropyTarget(9.0).observe(tokens(0))}


def state_of(objective: Objective) -> Any:
    """The memory that an objective is tried with, () for those without."""
    return STATES["entropy target"] if isinstance(objective, EntropyTarget) else ()


every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def in_torch(t: Tokens) -> Tokens:
    """The same numbers as float64 tensors."""
    return Tokens(*(None if x is None else torch.from_numpy(np.array(x)) for x in t))


@every
@pytest.mark.parametrize("on_policy", [False, True])
def test_a_log_ratio_from_the_host_changes_no_bit(objective: Objective, on_policy: bool) -> None:
    """Guards the ratio that a host hands over, within the limit and beyond it, and the one that is 1 everywhere."""
    t = tokens(5)
    t = t._replace(log_prob_NT=t.old_NT) if on_policy else t
    ratio = np.where(t.mask_NT, t.log_prob_NT - t.old_NT, 0.0)
    handed = LogRatio(np.zeros((1, 1)) if on_policy else ratio, float(np.abs(ratio).max()))
    plain, found = (objective.push(state_of(objective), x) for x in (t, t._replace(log_ratio=handed)))
    np.testing.assert_array_equal(found.log_prob_NT, plain.log_prob_NT)
    assert found.counts == plain.counts
    assert on_policy or handed.largest > 0.4  # beyond some of the limits above


@pytest.mark.parametrize(
    ("clip", "bound"),
    [(Clip(), 1.2), (Clip(0.1, 0.3), 0.9), (Clip(None, 0.2), 1.2), (Clip(0.5, None, 1.2), 1.2), (Clip(0.0, 0.0), 1.0),
     (Clip(None, None, limit=0.5), np.exp(0.5))],
)  # fmt: skip
def test_a_clip_that_no_ratio_reaches_is_idle(clip: Clip, bound: float) -> None:
    """Guards the short way: ratios just inside and outside of the nearest bound, and at it, to the bit and the
    count of the long way; ratios well inside every bound do go the short way."""
    far = abs(np.log(bound))
    for size in (0.0, 0.5 * far, far * (1 - 1e-8), far, far * (1 + 1e-12), 2 * far + 1e-15):
        ratio = size * np.array([[1.0, -1.0, 1.0, -1.0]])
        t = Tokens(ratio, np.zeros_like(ratio), np.ones(ratio.shape, bool), np.array([[1.0, 1.0, -1.0, -1.0]]))
        plain, found = (clip.push((), x) for x in (t, t._replace(log_ratio=LogRatio(ratio, size))))
        np.testing.assert_array_equal(plain.log_prob_NT, found.log_prob_NT)
        assert plain.counts == found.counts
    assert clip._idle == pytest.approx(far, rel=1e-8)


@every
@pytest.mark.parametrize("seed", range(4))
def test_push_is_the_derivative_of_the_value(objective: Objective, seed: int) -> None:
    """Five-point differences of value in each log-probability, and in each entropy, at 20 tokens off-policy."""
    t, step = tokens(seed), 1e-4
    push = objective.push(state_of(objective), t)

    def slope(field: str) -> np.ndarray:
        def at(shift: float) -> np.ndarray:
            return np.asarray(objective.value(state_of(objective), t._replace(**{field: getattr(t, field) + shift}), t))

        return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)

    # a difference that straddles a corner of the objective is no derivative: none of these draws has one
    np.testing.assert_allclose(push.log_prob_NT, slope("log_prob_NT"), atol=1e-9, rtol=1e-7)
    wanted = np.zeros_like(t.log_prob_NT) if push.entropy_NT is None else push.entropy_NT
    np.testing.assert_allclose(wanted, slope("entropy_NT"), atol=1e-9)
    assert np.all(push.log_prob_NT[~t.mask_NT] == 0)
    assert np.all(wanted[~t.mask_NT] == 0)


@every
@given(seed=st.integers(0, 10**6), far=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_torch_and_numpy_push_alike(objective: Objective, seed: int, far: float) -> None:
    """The same function in both libraries: to rounding in pushes, exactly in counts."""
    t = tokens(seed, far=far)
    plain, tensors = objective.push(state_of(objective), t), objective.push(state_of(objective), in_torch(t))
    # A gate at exp(-x) has x times the rounding of its ratio: below 1e-60 the last of 13 digits may differ.
    np.testing.assert_allclose(tensors.log_prob_NT.numpy(), plain.log_prob_NT, rtol=1e-13, atol=1e-60)
    assert np.all(np.isfinite(plain.log_prob_NT))
    assert {k: int(v) for k, v in tensors.counts.items()} == {k: int(v) for k, v in plain.counts.items()}


@every
def test_autograd_of_the_host_loss_is_the_gradient_of_the_value(objective: Objective) -> None:
    """-(push.detach() * log_prob).sum() has the gradient that torch finds for -value itself."""
    t = in_torch(tokens(5))
    log_prob = t.log_prob_NT.clone().requires_grad_()
    entropy = t.entropy_NT.clone().requires_grad_()
    live = t._replace(log_prob_NT=log_prob, entropy_NT=entropy)
    wanted = torch.autograd.grad(
        -objective.value(state_of(objective), live, t).sum(), (log_prob, entropy), allow_unused=True
    )
    push = objective.push(state_of(objective), t)
    surrogate = -(push.log_prob_NT * log_prob).sum()
    surrogate = surrogate - (0.0 * entropy if push.entropy_NT is None else push.entropy_NT * entropy).sum()
    found = torch.autograd.grad(surrogate, (log_prob, entropy))
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, torch.zeros_like(f) if w is None else w, rtol=1e-12, atol=1e-14)


@every
def test_zero_at_zero_is_true_where_it_is_claimed(objective: Objective) -> None:
    """Rows of advantage 0 push nothing, or the objective says that they may."""
    t = tokens(2)
    silent = t.advantage_NT[:, 0] == 0
    push = objective.push(state_of(objective), t)
    moved = np.any(push.log_prob_NT[silent] != 0) or push.entropy_NT is not None
    assert silent.any()
    # where rows are looked at together, one that pushes nothing may still count for the others
    assert objective.zero_at_zero != bool(moved) or (objective.scope in ("group", "batch") and not moved)
    if objective.zero_at_zero:
        live = objective.push(state_of(objective), Tokens(*(None if x is None else x[~silent] for x in t)))
        np.testing.assert_allclose(push.log_prob_NT[~silent], live.log_prob_NT, rtol=1e-13, atol=0)


@every
def test_needs_are_declared(objective: Objective) -> None:
    """Without the fields it declares an objective refuses; it works with those alone."""
    bare = tokens(1)._replace(reference_NT=None, entropy_NT=None, behaviour_NT=None)
    fields = {"reference": "reference_NT", "entropy": "entropy_NT", "behaviour": "behaviour_NT"}
    given_fields = {fields[n]: getattr(tokens(1), fields[n]) for n in objective.needs}
    objective.value(state_of(objective), bare._replace(**given_fields), bare)
    for name in given_fields:
        with pytest.raises(InputError, match="needs"):
            objective.value(state_of(objective), bare._replace(**{**given_fields, name: None}), bare)
    assert needs_of([objective]) == objective.needs


def test_reductions() -> None:
    """No clip at ratio 1 is REINFORCE; wide clips are no clips; dual never binds below its bound; k's agree at 0."""
    t = tokens(3)
    on_policy = t._replace(old_NT=t.log_prob_NT)
    plain = np.where(t.mask_NT, t.advantage_NT, 0.0)
    for clip in (Clip(), Clip(None, None), Clip(0.0, 0.0), Clip(0.2, 0.2, dual=3.0)):
        np.testing.assert_array_equal(clip.push((), on_policy).log_prob_NT, plain)
    np.testing.assert_array_equal(Clip(None, 1e9).push((), t).log_prob_NT, Clip(None, None).push((), t).log_prob_NT)
    difference = np.abs(t.log_prob_NT - t.old_NT)
    assert np.max(difference) > np.log(1.5)  # the dual bound is tried
    np.testing.assert_array_equal(Clip(dual=1e6).push((), t).log_prob_NT, Clip().push((), t).log_prob_NT)
    same = t._replace(reference_NT=t.log_prob_NT)
    for kind in ("k2", "k3"):
        assert np.all(KL(1.0, kind).push((), same).log_prob_NT == 0)
    assert np.all(KL(1.0, "k1").push((), same).log_prob_NT == np.where(t.mask_NT, -1.0, 0.0))


@every
@pytest.mark.filterwarnings("error")
def test_what_the_mask_hides_is_never_read(objective: Objective) -> None:
    """Anything finite may stand where no token is: the same pushes and values, and no overflow on the way."""
    t = tokens(6)
    odd = np.where(np.arange(t.mask_NT.size).reshape(t.mask_NT.shape) % 2, 1e300, -1e300)
    hidden = t._replace(**{
        name: np.where(t.mask_NT, getattr(t, name), odd)
        for name in ("log_prob_NT", "old_NT", "reference_NT", "entropy_NT", "behaviour_NT")
    })  # fmt: skip
    assert not t.mask_NT.all()
    np.testing.assert_array_equal(
        objective.push(state_of(objective), hidden).log_prob_NT, objective.push(state_of(objective), t).log_prob_NT
    )
    np.testing.assert_array_equal(
        objective.value(state_of(objective), hidden, hidden), objective.value(state_of(objective), t, t)
    )


EXTREME: tuple[Objective, ...] = (
    Clip(None, None, limit=700.0),
    CISPO(None, None, limit=700.0),
    DPPO(0.0, cap=1e6, limit=700.0),
    SAPO(100.0, 100.0, limit=700.0),
    SAPO(1e-6, 1e-6, limit=700.0),
    MHPO(1e-3, 10.0, 1e-3, 10.0, 1e-3, limit=700.0),
    MHPO(1e300, 0.1, 1e300, 10.0, 1e300, limit=700.0),
    R2VPOFixed(1e6, limit=300.0),
    DPPOKL(0.0, cap=1e6, limit=700.0),
    GSPO(None, None, limit=700.0),
    GMPO(300.0, 300.0, limit=700.0),
    VESPO(100.0, 1e-4, 1e-4, 100.0, limit=700.0),
    TOPR(1e6, limit=700.0),
    MinPRO(None, 1.0, limit=700.0),
    REAL(1e-3, limit=700.0),
    DisCO(1e-3, limit=700.0),
    DisCO(1e-3, "ratio", limit=300.0),
    GBPO(tau=1e-6, limit=700.0),
    BAPO(1.0, limit=700.0),
    ClipCov(1.0, -1e300, 1e300, limit=700.0),
    KLCov(1.0, 1e6, limit=700.0),
    KLOld(1.0, limit=300.0),
    TIS(1e6, "sequence", limit=700.0),
)


@pytest.mark.parametrize("objective", EXTREME, ids=repr)
@pytest.mark.filterwarnings("error")
def test_the_ends_of_every_setting_stay_finite(objective: Objective) -> None:
    """Ratios of e to the thousands: no overflow on the way, finite pushes and values."""
    t = tokens(7, far=2000.0)
    assert np.max(np.abs(t.log_prob_NT - t.old_NT)[t.mask_NT]) > 2000
    assert np.all(np.isfinite(objective.push(state_of(objective), t).log_prob_NT))
    assert np.all(np.isfinite(objective.value(state_of(objective), t, t)))


def test_k_estimates_agree_on_the_divergence_and_k2_on_its_gradient() -> None:
    """Exact expectations over a softmax: E k1 = E k3 = KL; E push_k2 score = -grad KL, E push_k1 score = 0."""
    rng = np.random.default_rng(0)
    theta, other = rng.normal(size=6), rng.normal(size=6)
    log_pi, log_ref = (z - np.logaddexp.reduce(z) for z in (theta, other))
    pi = np.exp(log_pi)
    divergence = float(np.sum(pi * (log_pi - log_ref)))
    rows = Tokens(log_pi[:, None], log_pi[:, None], np.ones((6, 1), bool), np.zeros((6, 1)), None, log_ref[:, None])
    for kind in ("k1", "k3"):
        value = KL(1.0, kind).value((), rows, rows)[:, 0]
        assert -np.sum(pi * value) == pytest.approx(divergence, abs=1e-14)
    score = np.eye(6) - pi  # row a: the gradient of log pi(a)
    exact = pi * (log_pi - log_ref - divergence)  # of KL(pi, reference) in theta
    k2, k1 = (KL(1.0, kind).push((), rows).log_prob_NT[:, 0] for kind in ("k2", "k1"))
    np.testing.assert_allclose((pi * k2) @ score, -exact, atol=1e-14)
    np.testing.assert_allclose((pi * k1) @ score, 0.0, atol=1e-14)


def test_pushes_add() -> None:
    """Of several objectives the pushes add and the counts are kept; order does not matter."""
    t, parts = tokens(4), [Clip(), KL(0.1), EntropyBonus(0.2)]
    expected = sum(p.push((), t).log_prob_NT for p in parts)
    for order in itertools.permutations(parts):
        found = total_push(order, [()] * 3, t)
        np.testing.assert_allclose(found.log_prob_NT, expected, rtol=1e-15, atol=1e-17)
        assert found.counts["clipped"] == Clip().push((), t).counts["clipped"]
        assert found.entropy_NT is not None


BAD: dict[str, Any] = {
    "clip low": lambda: Clip(1.0),
    "clip high": lambda: Clip(0.2, -0.1),
    "dual": lambda: Clip(dual=1.0),
    "limit": lambda: Clip(limit=0.0),
    "cispo low": lambda: CISPO(low=1.0),
    "cispo high": lambda: CISPO(high=-0.1),
    "cispo limit": lambda: CISPO(limit=701.0),
    "dppo divergence": lambda: DPPO(1.5),
    "dppo cap": lambda: DPPO(cap=0.5),
    "dppo limit": lambda: DPPO(limit=0.0),
    "sapo positive": lambda: SAPO(0.0),
    "sapo negative": lambda: SAPO(negative=101.0),
    "sapo limit": lambda: SAPO(limit=-1.0),
    "mhpo bound": lambda: MHPO(0.0),
    "mhpo up_scale": lambda: MHPO(up_scale=0.0),
    "mhpo down_scale": lambda: MHPO(down_scale=-1.0),
    "mhpo up_power": lambda: MHPO(up_power=0.0),
    "mhpo down_power": lambda: MHPO(down_power=11.0),
    "mhpo limit": lambda: MHPO(limit=1e9),
    "r2vpo penalty": lambda: R2VPOFixed(-1.0),
    "r2vpo limit": lambda: R2VPOFixed(limit=301.0),
    "gspo low": lambda: GSPO(1.0),
    "gmpo high": lambda: GMPO(high=-0.1),
    "vespo up_power": lambda: VESPO(0.0),
    "topr cap": lambda: TOPR(0.0),
    "minpro high": lambda: MinPRO(high=-1.0),
    "real tau": lambda: REAL(0.0),
    "disco tau": lambda: DisCO(0.0),
    "disco delta and beta": lambda: DisCO(delta=-1.0),
    "gbpo tau": lambda: GBPO(tau=0.0),
    "bapo share": lambda: BAPO(1.1),
    "bapo needs 0 < low_from": lambda: BAPO(low_from=0.95),
    "bapo steps": lambda: BAPO(low_step=0.0),
    "clip_cov needs share": lambda: ClipCov(0.0),
    "kl_cov needs share": lambda: KLCov(1.1),
    "kl_old coef": lambda: KLOld(-1.0),
    "entropy_target target": lambda: EntropyTarget(-1.0),
    "tis needs low": lambda: TIS(0.5),
    "mis needs low": lambda: MIS(0.5),
    "penalty must be a finite number": lambda: R2VPOFixed(float("nan")),
    "coef": lambda: KL(-1.0),
    "kind": lambda: KL(kind="k4"),  # type: ignore[arg-type]
    "rule": lambda: Aggregation("mean"),  # type: ignore[arg-type]
    "length": lambda: Aggregation("constant_length"),
}


@pytest.mark.parametrize("word", BAD)
def test_impossible_settings_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=word):
        BAD[word]()
