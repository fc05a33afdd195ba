"""Golden rows of the objectives that look at more than a token: by arithmetic by hand, and by autograd of the printed
loss; their reductions; the corrections; the controller."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ebpo_sim.objectives import (
    BAPO,
    CISPO,
    DPPOKL,
    GBPO,
    GMPO,
    GSPO,
    IPO,
    KL,
    MIS,
    REAL,
    TIS,
    TOPR,
    VESPO,
    Aggregation,
    Clip,
    ClipCov,
    DisCO,
    EntropyTarget,
    IcePop,
    KLCov,
    KLOld,
    MinPRO,
    Objective,
    Tokens,
    total_push,
)
from ebpo_sim.part import Draw
from rollout_tokens import tokens


def answer(ratios: list[float], advantage: float, old: float = 0.1) -> Tokens:
    """One answer of tokens with these ratios, each of probability `old` under the old policy."""
    ratio = np.array([ratios])
    shape = np.ones(ratio.shape)
    return Tokens(np.log(ratio * old), np.log(old) * shape, shape > 0, advantage * shape[:, :1], np.zeros(1, int))


def push(objective: Objective, t: Tokens) -> np.ndarray:
    return np.asarray(objective.push(objective.init(), t).log_prob_NT)


TWO = [2.0, 0.5]  # the mean log-ratio is 0, the product 1
FOUR = [1.0, 0.5, 2.0, 1.5]
HAND: dict[str, tuple[Objective, Tokens, list[float]]] = {
    "gspo": (GSPO(), answer([2.0, 2.0], 1.0), [0, 0]),  # s = 2 > 1.0004
    "gspo inside": (GSPO(), answer(TWO, -3.0), [-3, -3]),  # s = 1
    "gspo other side": (GSPO(), answer([2.0, 2.0], -1.0), [-2, -2]),
    "gmpo": (GMPO(0.4, 0.4), answer([1.0, np.e], 2.0), [2 * np.exp(0.2), 0]),  # log r held at 0.4: s = exp(0.4/2)
    "gmpo down": (GMPO(0.4, 0.4), answer([1.0, np.e], -2.0), [-2 * np.exp(0.5)] * 2),
    "vespo": (VESPO(), answer([2.0, 1.0], 1.0), [4 * np.exp(-3)] * 2),  # w = 2: 2^2 exp(3 (1 - 2))
    "vespo down": (VESPO(), answer([0.5, 1.0], -1.0), [-np.exp(1) / 8] * 2),  # 0.5^3 exp(2 (1 - 0.5))
    "topr": (TOPR(), answer([0.5, 0.5], 1.0), [1, 1]),
    "topr down": (TOPR(), answer([0.5, 0.5], -1.0), [-0.25, -0.25]),
    "topr capped": (TOPR(), answer([2.0, 2.0], -1.0), [-1, -1]),
    "minpro": (MinPRO(None, None), answer(FOUR, 1.0), [1, 0.5, 1, 0.75]),
    "minpro clipped": (MinPRO(0.2, 0.2), answer([3.0, 0.5, 2.0], 1.0), [1.2, 1.2, 1.0]),  # 3, 3 * .5, .5 * 2
    "kl_old": (KLOld(0.5), answer([np.e, 1.0], 7.0), [-0.5 * np.e, 0]),
    "dppo_kl far": (DPPOKL(), answer([0.5], -1.0, 0.9), [0]),  # .9 log 2 + .1 log(.1/.55) = 0.453
    "dppo_kl near": (DPPOKL(), answer([2.0], 1.0, 0.01), [2]),  # .01 log .5 + .99 log(.99/.98) = 0.0031
    "dppo_kl back": (DPPOKL(), answer([0.5], 1.0, 0.9), [0.5]),
    "ipo back": (IPO(), answer([0.5], 1.0, 0.9), [0]),
    "bapo": (BAPO(0.0), answer([1.3, 1.1], 1.0), [0, 1.1]),  # the share is met at once: [0.6, 1.2]
}  # fmt: skip


@pytest.mark.parametrize("name", HAND)
def test_by_hand(name: str) -> None:
    objective, t, expected = HAND[name]
    np.testing.assert_allclose(push(objective, t)[0], expected, rtol=1e-12, atol=1e-12)


def group(scores: list[float], advantages: list[float]) -> Tokens:
    """One group, an answer a score, each of one token of that log-ratio."""
    now = np.array(scores)[:, None] - 3.0
    return Tokens(now, np.full_like(now, -3.0), now < 0, np.array(advantages)[:, None], np.zeros(len(scores), int))


def test_groups_by_hand() -> None:
    """REAL on-policy gives rows/(tau (1 + rights)) to a right answer; off-policy exp(-s/tau) counts. DisCO: 1/rights
    against the wrong ones' softmax. GBPO: with one right answer of four, it goes to 1 + high, the others to 1."""
    first = group([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, -1.0, -1.0])
    np.testing.assert_allclose(push(REAL(0.5), first)[:, 0], [4 / (0.5 * 2), *[-4 / (0.5 * 4)] * 3], rtol=1e-14)
    moved = group([np.log(2), 0.0, np.log(3)], [1.0, -1.0, -1.0])
    expected = [3 * 0.5 / 1.5, -3 / (1 + 1 + 3), -3 * 3 / (1 + 1 + 3)]
    np.testing.assert_allclose(push(REAL(1.0), moved)[:, 0], expected, rtol=1e-13)
    plain = DisCO(1.0, beta=0.0)
    np.testing.assert_allclose(push(plain, moved)[:, 0], [3, -3 / 4, -9 / 4], rtol=1e-13)
    assert np.all(push(plain, group([0.0, 1.0], [1.0, 1.0])) == 0)  # nothing wrong to tell apart
    np.testing.assert_allclose(push(DisCO(1e9, beta=0.0), moved)[:, 0], [3, -1.5, -1.5], rtol=1e-8)
    held = DisCO(beta=10.0, delta=0.1)
    behind = group([-0.3, -0.3], [1.0, 1.0])  # K = 0.3, 0.2 above the bound
    np.testing.assert_allclose(push(held, behind)[:, 0], [2.0, 2.0], rtol=1e-13)
    assert np.all(push(held, group([0.3, 0.3], [1.0, 1.0])) == 0)
    spread = group([np.log(1.2), np.log(1.1), 0.0, np.log(0.9)], [1.5, -0.5, -0.5, -0.5])
    np.testing.assert_allclose(push(GBPO(tau=1e-4), spread)[:, 0], [1.5 * 1.2, -0.5 * 1.1, 0, 0.5 * 0.9], atol=1e-13)
    even = group([0.0] * 4, [1.0, 1.0, -1.0, -1.0])  # the median lies between: up to 1.3 and down to 0.7
    np.testing.assert_allclose(push(GBPO(tau=1e-4), even)[:, 0], [1, 1, -1, -1], rtol=1e-14)


def printed(name: str, log_prob: torch.Tensor, t: Tokens) -> torch.Tensor:
    """The objectives as their papers print them, a loop over groups and answers; the mean over groups or answers."""
    rows, worth = [torch.from_numpy(m) for m in t.mask_NT], []
    now = [log_prob[i][m] for i, m in enumerate(rows)]
    old = [torch.from_numpy(np.array(t.old_NT))[i][m] for i, m in enumerate(rows)]
    advantage = torch.from_numpy(np.array(t.advantage_NT))[:, 0]
    if name in ("gspo", "gmpo"):
        for n, o, a in zip(now, old, advantage, strict=True):
            if name == "gspo":
                s = ((n.sum() - o.sum()) / len(n)).exp()
                worth.append(torch.minimum(s * a, s.clip(0.8, 1.28) * a))
            else:
                ratio = (n - o).exp()
                bounded = torch.minimum(ratio * a.sign(), ratio.clip(np.exp(-0.4), np.exp(0.4)) * a.sign()).abs()
                worth.append(bounded.prod() ** (1 / len(n)) * a)
        return torch.stack(worth).mean()
    for g in np.unique(t.group_N):
        inside = [i for i in range(len(now)) if t.group_N[i] == g]
        right, wrong = ([i for i in inside if sign * advantage[i] > 0] for sign in (1, -1))
        if name == "real":
            s = {i: (now[i] - old[i]).mean() / 0.5 for i in inside}
            one = torch.ones((), dtype=torch.float64)
            worth.append(-sum(((-s[i]).exp() for i in right), one).log() - sum((s[i].exp() for i in wrong), one).log())
        elif right and wrong:
            s = {i: now[i].mean() if name == "disco" else (now[i] - old[i]).exp().mean() for i in inside}
            hard = torch.stack([s[i] / 0.7 for i in wrong]).exp().mean().log()
            worth.append(sum(s[i] for i in right) / len(right) - 0.7 * hard)
        else:
            worth.append(torch.zeros((), dtype=torch.float64))
    found = torch.stack(worth).mean()
    if name != "real":
        k = torch.stack([(o - n).mean() for n, o in zip(now, old, strict=True)]).mean()
        found = found - 2.0 * (k - 0.01).clip(min=0) ** 2 / 2
    return found


PRINTED: dict[str, Objective] = {
    "gspo": GSPO(0.2, 0.28),
    "gmpo": GMPO(),
    "real": REAL(),
    "disco": DisCO(0.7, delta=0.01, beta=2.0),
    "disco ratios": DisCO(0.7, "ratio", delta=0.01, beta=2.0),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PRINTED)
def test_the_gradient_is_that_of_the_printed_loss(name: str, seed: int) -> None:
    """Guards pushes of whole answers and groups: weighed by sequence_mean they are the derivative of the paper's own
    objective, in every log-probability, with all that its sums and products couple."""
    t = tokens(seed, far=0.6)
    log_prob = torch.from_numpy(np.array(t.log_prob_NT)).requires_grad_()
    (wanted,) = torch.autograd.grad(printed(name, log_prob, t), log_prob)
    found = push(PRINTED[name], t) * Aggregation("sequence_mean").tokens(t.mask_NT)
    assert np.max(np.abs(found)) > 1e-2
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-10, atol=1e-13)


def test_reductions() -> None:
    """One token: GSPO is Clip, GMPO a clip in logarithms, MinPRO CISPO, TOPR and VESPO functions of the one ratio.
    On-policy: REINFORCE. Restraints off: one another."""
    short = tokens(3, width=1)
    for whole, single in (
        (GSPO(0.2, 0.28), Clip(0.2, 0.28)),
        (GMPO(float(-np.log(0.8)), float(np.log(1.2))), Clip(0.2, 0.2)),
        (MinPRO(0.1, 0.3), CISPO(0.1, 0.3)),
        (GSPO(None, None), Clip(None, None)),
    ):
        np.testing.assert_allclose(push(whole, short), push(single, short), rtol=1e-13)
    t = tokens(4)
    on_policy = t._replace(old_NT=t.log_prob_NT)
    plain = np.where(t.mask_NT, t.advantage_NT, 0.0)
    for objective in (GSPO(), GMPO(), VESPO(), TOPR(), MinPRO(), DPPOKL(), IPO(), BAPO(), KLCov(1.0, 5.0)):
        np.testing.assert_array_equal(push(objective, on_policy), plain)
    np.testing.assert_array_equal(push(ClipCov(1.0, 1e9, 1e9), t), push(Clip(None, 1.0), t))  # no candidate
    np.testing.assert_array_equal(push(KLCov(1.0, 0.0), t), push(Clip(None, None), t))
    np.testing.assert_array_equal(push(GMPO(20.0, 20.0), t), push(GSPO(None, None), t))
    assert np.all(push(KLOld(), on_policy) == 0)


def test_the_old_policys_divergence_and_its_gradient() -> None:
    """KLOld over a softmax: E_old of minus its value is KL(pi, old), E_old push score the gradient of minus it; with
    the unclipped ratio nothing moves at pi = old exp(A/coef)/its sum."""
    rng = np.random.default_rng(1)
    old = rng.normal(size=6)
    log_old = old - np.logaddexp.reduce(old)
    advantage = rng.normal(size=6)
    tilted = log_old + advantage / 0.7
    for log_pi in (rng.normal(size=6), tilted):
        log_pi = log_pi - np.logaddexp.reduce(log_pi)
        pi, q = np.exp(log_pi), np.exp(log_old)
        rows = Tokens(log_pi[:, None], log_old[:, None], np.ones((6, 1), bool), advantage[:, None])
        kl = float(pi @ (log_pi - log_old))
        assert -q @ KLOld(0.7).value((), rows, rows)[:, 0] == pytest.approx(0.7 * kl, abs=1e-14)
        score = np.eye(6) - pi
        exact = -0.7 * pi * (log_pi - log_old - kl)
        np.testing.assert_allclose((q * push(KLOld(0.7), rows)[:, 0]) @ score, exact, atol=1e-14)
    step = total_push((Clip(None, None), KLOld(0.7)), [(), ()], rows).log_prob_NT[:, 0]
    np.testing.assert_allclose((q * step) @ score, 0, atol=1e-14)


def test_bapos_bounds() -> None:
    """Guards the search: the published order raises high first; a share that is out of reach ends at both ends; what
    the docstring says of low: it lowers the share measured, and raises that of the gradient."""
    t = tokens(8)
    found = BAPO().bounds(t)
    assert BAPO(0.0).bounds(t) == (0.6, 1.2) and BAPO(1.0).bounds(t) == (0.9, 3.0)
    middle = Tokens(*(np.array([[x], [y]]) for x, y in ((np.log(0.35), np.log(0.5)), (np.log(0.2), np.log(0.5)))),
                    np.ones((2, 1), bool), np.array([[1.0], [-1.0]]))  # fmt: skip
    # unweighted: good is min(1.75, high), bad 1, so half is met at once and 0.6 of the sum at high = 1.5
    assert BAPO(0.5, weighted=False).bounds(middle) == (0.6, 1.2)
    assert BAPO(0.6, weighted=False).bounds(middle) == pytest.approx((0.6, 1.5))
    assert BAPO(0.6, weighted=False, order="low_first").bounds(middle) == pytest.approx((0.9, 1.5))
    down = Tokens(*(np.log(np.array([[x], [y]])) for x, y in ((0.11, 0.07), (0.1, 0.1))),
                  np.ones((2, 1), bool), np.array([[1.0], [-1.0]]))  # fmt: skip
    low, high = (Clip(1 - bound, 1.0) for bound in (0.6, 0.9))
    values = [np.abs(c.value((), down, down)[:, 0]) for c in (low, high)]
    pushes = [np.abs(push(c, down)[:, 0]) for c in (low, high)]
    assert values[1][0] / values[1].sum() < values[0][0] / values[0].sum()
    assert pushes[1][0] / pushes[1].sum() > pushes[0][0] / pushes[0].sum()
    assert len(found) == 2


def test_covariances() -> None:
    """KL-Cov takes the tokens of the largest product of deviations, Clip-Cov some of those in range, by the draw."""
    t = tokens(9, rows=160)
    flat = t.mask_NT
    log_prob, a = t.log_prob_NT[flat], np.broadcast_to(t.advantage_NT, flat.shape)[flat]
    cov = (log_prob - log_prob.mean()) * (a - a.mean())
    difference = push(KLCov(0.1, 1.0), t) - push(Clip(None, None), t)
    assert set(np.flatnonzero(difference[flat])) == set(np.argsort(-cov)[: int(0.1 * len(cov))])
    np.testing.assert_allclose(np.abs(difference[difference != 0]), 1.0, rtol=1e-9)
    wide = ClipCov(0.03, 0.2, 1.0, 0.2, 0.2)
    plain = push(Clip(0.2, 0.2), t)
    taken = []
    for step in range(2):
        pushed = wide.push((), t, Draw(0, "objective", step))
        left = (pushed.log_prob_NT != plain)[flat]
        assert left.sum() == pushed.counts["held_back"] > 2
        assert left.sum() == min(int(0.03 * len(cov)), np.sum((cov > 0.2) & (cov < 1.0) & (plain[flat] != 0)))
        assert np.all((cov[left] > 0.2) & (cov[left] < 1.0))
        taken.append(left)
    assert not np.array_equal(*taken)


def test_corrections() -> None:
    """Guards what a correction does: the others' pushes times the bounded ratio, no divergence's, and its bounds."""
    t = tokens(11)
    ratio = np.exp(np.where(t.mask_NT, t.old_NT - t.behaviour_NT, 0.0))
    whole = np.exp(np.log(ratio).sum(-1, keepdims=True))
    for correction, weight in (
        (TIS(), np.minimum(ratio, 2)),
        (TIS(1.5, "sequence"), np.minimum(whole, 1.5)),
        (IcePop(), np.where((ratio >= 0.5) & (ratio <= 5), ratio, 0)),
        (MIS(), np.where(whole <= 3, whole, 0)),
    ):
        np.testing.assert_allclose(correction.weight(t)[t.mask_NT[:, :1] & (correction.weight(t) >= 0)],
                                   weight[t.mask_NT[:, :1] & (weight >= 0)], rtol=1e-12)  # fmt: skip
        both = total_push((Clip(), correction, KL(0.3)), [()] * 3, t)
        expected = np.where(t.mask_NT, push(Clip(), t) * weight, 0) + push(KL(0.3), t)
        np.testing.assert_allclose(both.log_prob_NT, expected, rtol=1e-12, atol=1e-15)
        assert 0 < both.counts["corrected"] <= t.mask_NT.sum()
    same = t._replace(behaviour_NT=t.old_NT)
    np.testing.assert_array_equal(total_push((Clip(), IcePop()), [()] * 2, same).log_prob_NT, push(Clip(), t))


def test_the_controller() -> None:
    """EntropyTarget by hand: up a step after each batch below the target, down above it, off while above; parts of a
    batch are the batch."""
    part = EntropyTarget(0.5, 0.01, 0.015)
    state: Any = part.init()
    seen, t = [], tokens(2)
    for mean in (0.3, 0.3, 0.3, 0.7, 0.3):
        batch = t._replace(entropy_NT=np.full(t.mask_NT.shape, mean))
        halves = [Tokens(*(None if x is None else x[rows] for x in batch)) for rows in (slice(0, 5), slice(5, None))]
        state = part.forget(state)
        for half in halves:
            state = part.merge(state, part.observe(half))
        seen.append(part.coefficient(state))
    assert seen == pytest.approx([0.01, 0.015, 0.015, 0.0, 0.015])
    whole = part.merge(part.forget(part.init()), part.observe(batch))
    assert whole.tokens == t.mask_NT.sum() and whole.total == pytest.approx(0.3 * whole.tokens)
    pushed = part.push(state, t)
    assert np.all(pushed.log_prob_NT == 0) and pushed.entropy_NT is not None
    np.testing.assert_array_equal(pushed.entropy_NT, np.where(t.mask_NT, part.coefficient(state), 0.0))


def test_delta_l() -> None:
    """Weights L^-power over their sum: by hand, at power 0 the constant length's, empty rows out of it; the weights of
    an answer's sum of tokens add to 1/length, and at power 1 no others have less variance where a token's is one."""
    length = np.array([1.0, 2.0, 4.0, 0.0])
    found = Aggregation("delta_l", 10, 1.0).rows(length)
    np.testing.assert_allclose(found, np.array([4, 2, 1, 0]) / 7 / 10, rtol=1e-15)
    whole = length[:3]
    np.testing.assert_array_equal(
        Aggregation("delta_l", 10, 0.0).rows(whole), Aggregation("constant_length", 10).rows(whole)
    )
    torch.testing.assert_close(
        Aggregation("delta_l", power=0.75).rows(torch.from_numpy(length)),
        torch.from_numpy(Aggregation("delta_l", power=0.75).rows(length)),
    )
    variances = {p: float((Aggregation("delta_l", power=p).rows(whole) ** 2 * whole).sum()) for p in (0.5, 1.0, 1.5)}
    assert min(variances, key=variances.__getitem__) == 1.0
