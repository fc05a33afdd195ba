"""The clipped surrogate of llm/ against a plain-Python twin, and the exactness of skipping rows."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed
import torch

from ebpo_sim import InputError
from ebpo_sim.objectives import KL, Aggregation, Clip, EntropyBonus, estimate
from llm.objectives import AGGREGATIONS, Loss


def batch(n: int = 12, width: int = 5, seed: int = 0):
    """New and old log-probabilities, a reference, a mask of ragged lengths, advantages with zeros."""
    g = torch.Generator().manual_seed(seed)
    new, old, reference = (-torch.rand((n, width), generator=g) * 2 for _ in range(3))
    length = torch.randint(1, width + 1, (n,), generator=g)
    mask = torch.arange(width)[None] < length[:, None]
    advantage = torch.randn(n, generator=g)
    advantage[::3] = 0.0
    return new, old, reference, mask, advantage


def objective(low: float = 0.2, high: float = 0.2, aggregation="token_mean", length: int = 9, kl: float = 0.0) -> Loss:
    """The objective of llm's settings."""
    return Loss((Clip(low, high), KL(kl)) if kl else (Clip(low, high),), Aggregation(aggregation, length))


def twin(loss: Loss, new, old, reference, mask, advantage) -> float:
    """The loss in plain Python, written from its formula."""
    total_tokens = sum(map(sum, mask.tolist()))
    total = 0.0
    for i in range(len(new)):
        tokens = [t for t in range(new.shape[1]) if mask[i, t]]
        weight = {
            "token_mean": 1 / total_tokens,
            "sequence_mean": 1 / (len(tokens) * len(new)),
            "constant_length": 1 / (loss.aggregation.length * len(new)),
        }[loss.aggregation.rule]
        clip, coef = loss.objectives[0], sum(part.coef for part in loss.objectives[1:])
        for t in tokens:
            ratio, a = math.exp(new[i, t] - old[i, t]), float(advantage[i])
            clipped = min(max(ratio, 1 - clip.low), 1 + clip.high)
            d = float(reference[i, t] - new[i, t])
            total += weight * (-min(ratio * a, clipped * a) + coef * (math.exp(d) - 1 - d))
    return total


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_the_loss_has_the_twins_gradient(aggregation, kl: float) -> None:
    """Central differences of the loss written out in plain Python, in every log-probability, float64."""
    loss = objective(0.1, 0.28, aggregation, 7, kl)
    new, old, reference, mask, advantage = (x.double() if x.is_floating_point() else x for x in batch(5, 3))
    leaf = new.clone().requires_grad_()
    loss.loss(leaf, old, advantage, loss.weights(mask), reference)[0].backward()
    for i, t in itertools.product(range(5), range(3)):
        ends = []
        for step in (1e-6, -1e-6):
            moved = new.clone()
            moved[i, t] += step
            ends.append(twin(loss, moved, old, reference, mask, advantage))
        assert float(leaf.grad[i, t]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_skipping_rows_of_no_advantage_changes_nothing(aggregation) -> None:
    """Guards exact skipping: the same loss, the same gradient and the same clip count as the whole batch."""
    whole = objective(aggregation=aggregation)
    new, old, _, mask, advantage = batch()
    needed, weight = whole.needed_rows(advantage), whole.weights(mask)
    assert len(needed) == 8
    gradients, losses, clipped = [], [], []
    for rows in (torch.arange(len(new)), needed):
        leaf = new.clone().requires_grad_()
        loss, stopped = whole.loss(leaf[rows], old[rows], advantage[rows], weight[rows])
        loss.backward()
        gradients.append(leaf.grad)
        losses.append(float(loss.detach()))
        clipped.append(stopped)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-7
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and clipped[0] == clipped[1] > 0


def test_a_kl_term_needs_every_row() -> None:
    """Guards skipping with KL: rows without advantage have a gradient then."""
    loss = objective(kl=0.1)
    new, old, reference, mask, advantage = batch()
    assert loss.has_reference and len(loss.needed_rows(advantage)) == len(new)
    leaf = new.clone().requires_grad_()
    loss.loss(leaf, old, advantage, loss.weights(mask), reference)[0].backward()
    assert leaf.grad[0, 0] != 0
    with pytest.raises(InputError, match="reference"):
        loss.loss(new, old, advantage, loss.weights(mask))
    assert len(Loss(every_row=True).needed_rows(advantage)) == len(new)


def test_gradient_on_policy_is_reinforce_and_stops_past_the_clip() -> None:
    """Guards the surrogate: at ratio 1 the gradient is -w A; beyond the clip on the side of A it is 0, else not."""
    clipped = objective(0.2, 0.3)
    _, old, _, mask, advantage = batch()
    weight = clipped.weights(mask)
    leaf = old.clone().requires_grad_()
    clipped.loss(leaf, old, advantage, weight)[0].backward()
    assert torch.allclose(leaf.grad, -weight * advantage[:, None], atol=1e-7)
    for a, log_ratio, moves in [(1, 0.25, True), (1, 0.28, False), (1, -9, True), (-1, -0.2, True), (-1, -0.3, False),
                                (-1, 0.9, True)]:  # fmt: skip
        leaf = torch.tensor([[float(log_ratio)]], requires_grad=True)
        loss, stopped = clipped.loss(leaf, torch.zeros(1, 1), torch.tensor([float(a)]), torch.ones(1, 1))
        loss.backward()
        assert (float(leaf.grad) != 0) == moves == (stopped == 0)


def test_k3_is_never_negative_and_unbiased() -> None:
    """Guards the KL estimate: its expectation under q, by enumeration, is KL(q, p)."""
    p, q = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([0.6, 0.1, 0.3]).double()
    values = estimate(p.log() - q.log(), "k3")
    assert values.min() >= 0
    assert float((q * values).sum()) == pytest.approx(float((q * (q / p).log()).sum()))


def test_what_this_loop_cannot_compute_is_refused() -> None:
    with pytest.raises(InputError, match="needs entropy"):
        Loss((EntropyBonus(),))
