"""The skill-chain world against enumeration, automatic differentiation, central differences and its own promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import exact_forms
from ebpo_sim.chains.policy import (
    Prompts,
    right_probabilities,
    step_distributions,
    step_log_probabilities,
)
from ebpo_sim.chains.population import (
    EDGE,
    SkillChain,
    bandit,
    from_observed,
    parse_population,
    per_token,
    skill_chain,
    success,
    success_gradient,
    token_entropy,
)
from ebpo_sim.errors import InputError
from ebpo_sim.worlds import parse_world, quantiles


@pytest.fixture(scope="module")
def small() -> SkillChain:
    return skill_chain(2, 3, 12, (1, 2, 3), seed=3, shared_skills=2, actions=3, validation=5)


def other_parameters(small: SkillChain) -> np.ndarray:
    return small.start_SK + np.random.default_rng(7).normal(0, 0.7, small.start_SK.shape)


def enumerate_prompt(log_LK: np.ndarray, length: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Every action sequence of a prompt and its log-probability."""
    answers = list(itertools.product(range(log_LK.shape[1]), repeat=length))
    return answers, np.array([sum(log_LK[s, a] for s, a in enumerate(answer)) for answer in answers])


def test_success_entropy_and_divergence_match_enumeration(small: SkillChain) -> None:
    """Guards p, entropy and KL: sums over all K^L action sequences."""
    other = other_parameters(small)
    log_PLK, other_PLK = (step_log_probabilities(t, small.prompts) for t in (small.start_SK, other))
    p_P, h_P = success(small.start_SK, small.prompts), token_entropy(small.start_SK, small.prompts).sum(axis=1)
    kl_P = exact_forms.token_kl(small.start_SK, other, small.prompts).sum(axis=1)
    for i, length in enumerate(small.prompts.length_P):
        answers, log_p = enumerate_prompt(log_PLK[i], length)
        _, log_q = enumerate_prompt(other_PLK[i], length)
        truth = tuple(small.prompts.right_PL[i, :length].tolist())
        p = np.exp(log_p)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert p_P[i] == pytest.approx(p[answers.index(truth)], abs=1e-14)
        assert h_P[i] == pytest.approx(-(p @ log_p), abs=1e-12)
        assert kl_P[i] == pytest.approx(p @ (log_p - log_q), abs=1e-12)


def test_gradient_matches_autograd(small: SkillChain) -> None:
    """Guards the exact gradient: torch's automatic differentiation of the mean success, to 1e-12."""
    prompts, theta = small.prompts, torch.tensor(other_parameters(small), requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for i, length in enumerate(prompts.length_P):
        p = torch.ones((), dtype=torch.float64)
        for s in range(length):
            boost = torch.zeros(small.actions, dtype=torch.float64)
            boost[prompts.right_PL[i, s]] = prompts.offset_PL[i, s]
            p = p * torch.softmax(theta[prompts.skills_PL[i, s]] + boost, dim=0)[prompts.right_PL[i, s]]
        total = total + p / len(prompts.length_P)
    total.backward()
    assert theta.grad is not None
    np.testing.assert_allclose(
        success_gradient(other_parameters(small), prompts), theta.grad.numpy(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("world", ["chain", "observed:Qwen2.5-7B", "bandit:beta:2,3"])
def test_gradient_matches_central_differences(world: str) -> None:
    """Guards the exact gradient in every kind of world: central differences, to 1e-8."""
    population = parse_population(world, 20, 1, 5)
    theta, gradient = population.start_SK, success_gradient(population.start_SK, population.prompts)
    step = 1e-5
    for s, a in itertools.product(range(0, len(theta), 3), range(0, theta.shape[1], 2)):
        nudge = np.zeros_like(theta)
        nudge[s, a] = step
        slope = success(theta + nudge, population.prompts).mean() - success(theta - nudge, population.prompts).mean()
        assert gradient[s, a] == pytest.approx(slope / (2 * step), abs=1e-8)


def test_weighted_gradient_is_the_sum_over_prompts(small: SkillChain) -> None:
    """Guards weights: one prompt at a time adds up."""
    weight_P = np.linspace(-1, 1, 12)
    parts = [success_gradient(small.start_SK, small.prompts, np.eye(12)[i]) for i in range(12)]
    found = success_gradient(small.start_SK, small.prompts, weight_P)
    np.testing.assert_allclose(found, np.tensordot(weight_P, parts, 1), atol=1e-15)


def test_padding_counts_for_nothing(small: SkillChain) -> None:
    """Guards padded chains: wider padding changes no quantity."""
    p = small.prompts
    wide = Prompts(
        p.topic_P, p.length_P, *(np.pad(x, ((0, 0), (0, 2))) for x in (p.skills_PL, p.offset_PL, p.right_PL))
    )
    for f in (success, success_gradient):
        np.testing.assert_array_equal(f(small.start_SK, wide), f(small.start_SK, p))
    assert token_entropy(small.start_SK, wide).sum() == pytest.approx(token_entropy(small.start_SK, p).sum(), rel=1e-14)
    uniform = np.full((1, 4), 0.0)
    one = Prompts(*(np.zeros(1, dtype=np.int64),) * 1, np.array([2]), np.array([[0, 0, 0]]), np.zeros((1, 3)),
                  np.zeros((1, 3), dtype=np.int64))  # fmt: skip
    assert per_token(token_entropy(uniform, one), one) == pytest.approx(np.log(4))


def test_log_probabilities_are_those_of_the_steps(small: SkillChain) -> None:
    """Guards token log-probabilities: gathered from the distributions, 0 on padding."""
    rng = np.random.default_rng(0)
    actions = np.where(small.prompts.live_PL[:, None], rng.integers(3, size=(12, 4, 3)), 0)
    found = exact_forms.log_probabilities(small.start_SK, small.prompts, actions)
    pi = step_distributions(small.start_SK, small.prompts)
    for p, g, s in np.ndindex(found.shape):
        assert found[p, g, s] == pytest.approx(np.log(pi[p, s, actions[p, g, s]]), abs=1e-13)
    assert np.all(right_probabilities(small.start_SK, small.prompts)[~small.prompts.live_PL] == 1)


@pytest.mark.parametrize("name", ["observed:Qwen2.5-7B", "Qwen2.5-Math-1.5B-Instruct/MATH", "beta:2,3"])
def test_observed_start_has_the_worlds_quantiles(name: str) -> None:
    """Guards from_observed: sorted starting success probabilities are the deconvolved world's quantiles."""
    population = from_observed(name, 200, seed=5)
    world = parse_world(name if ":" in name else f"observed:{name}")
    np.testing.assert_allclose(
        success(population.start_SK, population.prompts), quantiles(world, 200, EDGE), rtol=1e-10
    )
    assert len(set(population.prompts.length_P.tolist())) == 4
    p = quantiles(world, 4000, EDGE)
    rule = world.quadrature(256)
    inside = np.clip(rule.nodes, EDGE, 1 - EDGE)
    assert p.mean() == pytest.approx(np.dot(rule.weights, inside), abs=1e-3)


def test_bandit_is_the_one_step_case() -> None:
    """Guards the bandit: its success is p, its gradient policy_gradient's, prompt by prompt."""
    from ebpo_sim.counts.updates import policies
    from ebpo_sim.counts.updates import success_gradient as of_one

    p = np.array([0.01, 0.3, 0.5, 0.97])
    population = bandit(p, actions=5)
    np.testing.assert_allclose(success(population.start_SK, population.prompts), p, rtol=1e-13)
    found = success_gradient(population.start_SK, population.prompts, np.ones(4))
    np.testing.assert_allclose(found, of_one(policies(p, 5)), atol=1e-15)


def test_chains_share_entries_and_skills(small: SkillChain) -> None:
    """Guards the structure: a topic's chains begin alike, stay with their own and the common skills, held-out too."""
    for prompts in (small.prompts, small.validation):
        np.testing.assert_array_equal(prompts.skills_PL[:, 0], prompts.topic_P * 3)
        own = (prompts.skills_PL // 3 == prompts.topic_P[:, None]) | (prompts.skills_PL >= 6)
        assert np.all(own | ~prompts.live_PL)
    assert (small.skills, small.actions) == (8, 3)


def test_same_seed_same_population() -> None:
    """Guards reproducibility, and that another seed is another population."""
    first, again, other = (skill_chain(prompts=30, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.prompts, again.prompts, strict=True))
    assert not np.array_equal(first.prompts.offset_PL, other.prompts.offset_PL)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: bandit([0.0, 0.5]), "strictly between 0 and 1"),
        (lambda: skill_chain(prompts=0), "prompts must be at least 1"),
        (lambda: skill_chain(actions=1), "actions must be at least 2"),
        (lambda: skill_chain(lengths=()), "lengths must be at least 1"),
        (lambda: skill_chain(exceptions=1.5), "exceptions must lie in"),
        (lambda: parse_population("nothing:1", 5, 0), "unknown world"),
        (lambda: parse_population("chain", 0, 0), "prompts must be at least 1"),
        (lambda: from_observed("NoSuchModel"), "unknown observed world"),
        (lambda: SkillChain("x", bandit([0.5]).prompts, bandit([0.5]).prompts, np.zeros((1, 1))), "K at least 2"),
        (lambda: SkillChain("x", bandit([0.5, 0.4]).prompts, bandit([0.5]).prompts, np.zeros((1, 3))), "skills must"),
    ],
)
def test_bad_input_is_refused(make, says: str) -> None:
    """Guards refusals: one line that names the argument and the remedy."""
    with pytest.raises(InputError, match=says):
        make()
