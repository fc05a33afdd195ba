"""One objective, three rungs: NumPy by hand, torch's autograd through llm's loss, and the compiled chains.

The same tokens give the same gradient in the parameters of the chains' policy, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from ebpo_sim.chains.policy import step_distributions
from ebpo_sim.chains.population import skill_chain
from ebpo_sim.chains.update import Learner, Rollouts, gradient, layout_of, sample, tokens_of, update
from ebpo_sim.objectives import (
    CISPO,
    DPPO,
    KL,
    MHPO,
    SAPO,
    Aggregation,
    Clip,
    EntropyBonus,
    Objective,
    Push,
    R2VPOFixed,
    Tokens,
)
from ebpo_sim.objectives.aggregation import Rule
from ebpo_sim.objectives.base import Scope
from ebpo_sim.part import Draw, Need, Stateless
from llm.objectives import Loss

OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "clip": (Clip(),),
    "clip higher": (Clip(0.2, 0.28),),
    "no clip": (Clip(None, None),),
    "dual clip": (Clip(dual=1.5),),
    "k1": (KL(0.3, "k1"),),
    "k2": (KL(0.3, "k2"),),
    "k3": (KL(0.3, "k3", clamp=0.5),),
    "clip and k3": (Clip(), KL(0.3, "k3")),
    "cispo": (CISPO(),),
    "dppo": (DPPO(0.05),),
    "dppo capped": (DPPO(0.05, cap=1.5),),
    "sapo": (SAPO(),),
    "mhpo": (MHPO(),),
    "r2vpo, fixed": (R2VPOFixed(0.4),),
}
GROUP = 6


class Scene(NamedTuple):
    """Answers drawn at start_SK, the policy now, the reference policy, and the answers' advantages."""

    rolled: Rollouts
    rolled_at: np.ndarray
    theta_SK: np.ndarray
    reference_PLK: np.ndarray
    advantage_PG: np.ndarray


@pytest.fixture(scope="module")
def scene() -> Scene:
    """40 prompts of 1 to 4 steps, 6 answers each, far enough off-policy that every bound holds some tokens."""
    population = skill_chain(prompts=40, actions=5, seed=3)
    rng = np.random.default_rng(3)
    rolled = sample(population.start_SK, population.prompts, GROUP, rng)
    advantage_PG = rng.normal(size=(40, GROUP)) * (rng.random((40, GROUP)) < 0.8)
    moved, reference = (population.start_SK + 0.7 * rng.normal(size=population.start_SK.shape) for _ in range(2))
    return Scene(rolled, population.start_SK, moved, step_distributions(reference, population.prompts), advantage_PG)


def log_policy(theta_SK: torch.Tensor, rolled: Rollouts) -> torch.Tensor:
    """(N, T, K) log pi of every step, from its definition."""
    prompts = rolled.prompts
    right = torch.arange(theta_SK.shape[1]) == torch.from_numpy(prompts.right_PL)[..., None]
    logits = theta_SK[torch.from_numpy(prompts.skills_PL)] + torch.from_numpy(prompts.offset_PL)[..., None] * right
    return torch.log_softmax(logits, -1).repeat_interleave(GROUP, 0)


def log_probs(theta_SK: torch.Tensor, rolled: Rollouts) -> torch.Tensor:
    """(N, T) of the answers."""
    actions = torch.from_numpy(rolled.actions_PGL.reshape(-1, rolled.actions_PGL.shape[-1]))
    return log_policy(theta_SK, rolled).gather(-1, actions[..., None])[..., 0]


def rows(scene: Scene, objectives: tuple[Objective, ...]) -> Tokens:
    """The tokens as the chains build them, a rollout a row, at the policy now."""
    layout = layout_of(scene.rolled, objectives, rollouts=True)
    tokens = tokens_of(scene.rolled, layout, scene.advantage_PG, objectives, scene.reference_PLK)
    return tokens._replace(log_prob_NT=log_probs(torch.from_numpy(scene.theta_SK), scene.rolled).numpy())


def by_hand(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    """sum over tokens of alpha push (e_action - pi), in a loop; alpha by its formula."""
    tokens, prompts = rows(scene, objectives), scene.rolled.prompts
    pushes = [o.push((), tokens) for o in objectives]
    push_NT = sum(p.log_prob_NT for p in pushes)
    pi_NTK = np.exp(log_policy(torch.from_numpy(scene.theta_SK), scene.rolled).numpy())
    total, count, found = int(tokens.mask_NT.sum()), len(tokens.mask_NT), np.zeros_like(scene.theta_SK)
    for n in range(count):
        p, g = divmod(n, GROUP)
        length = int(prompts.length_P[p])
        alpha = 1 / total if rule == "token_mean" else 1 / (count * length)
        for step in range(length):
            score = -pi_NTK[n, step]
            score[scene.rolled.actions_PGL[p, g, step]] += 1
            found[prompts.skills_PL[p, step]] += alpha * push_NT[n, step] * score
    return found, sum(int(p.counts.get("clipped", 0)) for p in pushes)


def by_autograd(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    """Minus the gradient of llm's loss, the policy a torch program."""
    loss, tokens = Loss(objectives, Aggregation(rule)), rows(scene, objectives)
    theta = torch.from_numpy(scene.theta_SK.copy()).requires_grad_()
    weight_NT = loss.weights(torch.from_numpy(tokens.mask_NT).double())
    old, advantage, reference = (torch.from_numpy(np.array(x)) for x in (tokens.old_NT, tokens.advantage_NT[:, 0],
                                                                         tokens.reference_NT))  # fmt: skip
    worth, clipped = loss.loss(log_probs(theta, scene.rolled), old, advantage, weight_NT, reference)
    worth.backward()
    return -theta.grad.numpy(), clipped


def by_chains(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    learner = Learner(objectives, Aggregation(rule), True, 0.1)
    return gradient(scene.theta_SK, scene.rolled, scene.advantage_PG, learner, scene.reference_PLK)


@pytest.mark.parametrize("rule", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_tokens_give_the_same_gradient(scene: Scene, name: str, rule: Rule) -> None:
    """Guards every host of objectives against the others: 1e-12 of the largest component, and equal counts."""
    expected, held = by_hand(scene, OBJECTIVES[name], rule)
    scale = np.max(np.abs(expected))
    assert scale > 1e-3
    for found, count in (by_autograd(scene, OBJECTIVES[name], rule), by_chains(scene, OBJECTIVES[name], rule)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
        assert count == held


def test_the_scene_tries_every_bound(scene: Scene) -> None:
    """Guards the test above: each objective differs from the unclipped one here, by bounds that hold tokens."""
    free, none_held = by_hand(scene, OBJECTIVES["no clip"], "token_mean")
    assert none_held == 0
    gradients = {name: by_hand(scene, objectives, "token_mean") for name, objectives in OBJECTIVES.items()}
    for name, (found, held) in gradients.items():
        if name != "no clip":
            assert np.max(np.abs(found - free)) > 1e-4, name
        if name in ("clip", "clip higher", "dual clip", "cispo", "dppo", "dppo capped"):
            assert held > 20, name
    assert gradients["dual clip"][1] > gradients["clip"][1]
    assert not np.array_equal(gradients["dppo"][0], gradients["dppo capped"][0])
    sums = by_hand(scene, OBJECTIVES["clip"], "sequence_mean")[0]
    assert np.max(np.abs(sums - gradients["clip"][0])) > 1e-4


@dataclass(frozen=True)
class AsRows(Stateless):
    """Another objective, declared to look at whole sequences: the chains then hand it rollouts as padded rows."""

    inner: Objective
    scope: ClassVar[Scope] = "sequence"
    zero_at_zero: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return self.inner.needs

    def __post_init__(self) -> None:
        """Nothing to check: the inner objective has checked its own settings."""

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        assert tokens.mask_NT.shape == tokens.advantage_NT.shape
        assert not tokens.mask_NT.all()
        assert len(tokens.group_N) == len(tokens.mask_NT)
        return self.inner.push(state, tokens, draw)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_arrangements_of_tokens_give_the_same_bits(scene: Scene, name: str) -> None:
    """Guards where tokens stand: steps as rows without padding, and rollouts as padded rows; over two epochs of three
    mini-batches of unequal size the policy reached, the gradients' norm and the tokens held are equal."""
    reached = []
    for objectives in (OBJECTIVES[name], tuple(AsRows(o) for o in OBJECTIVES[name])):
        learner = Learner((*objectives, EntropyBonus(0.1)), Aggregation("sequence_mean"), False, 30.0, 3, 2)
        theta = scene.rolled_at.copy()
        zero = np.zeros_like(theta)
        made = update(theta, zero, zero.copy(), 0, scene.rolled, scene.advantage_PG, learner, scene.reference_PLK)
        reached.append((theta, made))
    (plain, one), (padded, other) = reached
    np.testing.assert_array_equal(plain, padded)
    assert one == other
    assert one.updates == 6
    assert np.max(np.abs(plain - scene.rolled_at)) > 0.1
