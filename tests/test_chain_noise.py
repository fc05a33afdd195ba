"""The gradient noise scale against exact sums, and what it must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ebpo_sim.chains.noise import estimates, noise
from ebpo_sim.chains.policy import step_distributions
from ebpo_sim.chains.population import (
    SkillChain,
    bandit,
    entropy_gradient,
    parse_population,
    per_token,
    skill_chain,
    success_gradient,
    token_entropy,
)
from ebpo_sim.chains.rung import TrainingConfig
from ebpo_sim.errors import InputError

Z = 4.0  # standard errors; two-sided false-fail rate 6e-5 a comparison for normal errors, fewer than 20 in this file
ONE = TrainingConfig(estimator="dr_grpo", group_size=2, prompts=1, minibatches=1, seed=3)


def exact(population: SkillChain, group_size: int, leave_one_out: bool) -> float:
    """nu of one group of a one-prompt bandit, summed over all answers; e is then parallel to E g."""
    pi = step_distributions(population.start_SK, population.prompts)[0, 0]
    score_KK, mean, square = np.eye(len(pi)) - pi, np.zeros(len(pi)), 0.0
    for actions in product(range(len(pi)), repeat=group_size):
        r = np.array([float(a == 0) for a in actions])
        rest = group_size - 1 if leave_one_out else group_size
        baseline = (r.sum() - r * leave_one_out) / rest
        g = (r - baseline) @ score_KK[list(actions)] / group_size
        weight = math.prod(pi[a] for a in actions)
        mean, square = mean + weight * g, square + weight * g @ g
    return float(group_size * (square - mean @ mean) / (mean @ mean))


@pytest.mark.parametrize(("estimator", "leave_one_out"), [("dr_grpo", False), ("rloo", True)])
@pytest.mark.parametrize("group_size", [2, 3])
def test_one_prompt_one_group_is_the_exact_sum(estimator: str, leave_one_out: bool, group_size: int) -> None:
    """Guards the definition: nu within its standard error of the sum over all answers; an unbiased direction."""
    population = bandit([0.3], actions=4)
    config = replace(ONE, estimator=estimator, group_size=group_size)
    found = noise(population, config, redraws=3000)
    assert abs(found.nu - exact(population, group_size, leave_one_out)) < Z * found.nu_se
    assert abs(found.cosine - 1) < Z * found.cosine_se + 1e-9
    assert found.nu_se < 0.1 * found.nu and found.rollouts == group_size
    p_mixed = 1 - 0.3**group_size - 0.7**group_size
    assert abs(found.rows - p_mixed) < Z * math.sqrt(p_mixed * (1 - p_mixed) / 3000)
    assert_allclose(found.silent, 1 - found.rows)


def test_the_estimates_are_unbiased_and_their_errors_honest() -> None:
    """Guards the jackknife: over 400 Gaussian samples of 12 the mean of both estimates is the truth within 4 standard
    errors, and the stated errors have the size of the spread (within a factor 1.5)."""
    rng, truth = np.random.default_rng(0), np.array([2.0, 1.0, 0.0, 0.0])
    e, sd = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.8, 1.5, 1.0, 0.5])
    drawn = [estimates(truth + sd * rng.standard_normal((12, 4)), e) for _ in range(400)]
    for (value_N, se_N), exact_value in zip(
        np.array(drawn).transpose(1, 2, 0), (float(np.sum(sd**2)) / 4, 2 / math.sqrt(5)), strict=True
    ):
        assert abs(value_N.mean() - exact_value) < Z * value_N.std(ddof=1) / math.sqrt(400)
        assert 1 / 1.5 < np.sqrt(np.mean(se_N**2)) / value_N.std(ddof=1) < 1.5


def test_nu_is_free_of_the_batch_size_and_of_scale() -> None:
    """Guards the unit: rules that score each group by itself have one nu for every N, and twice the advantages are the
    same nu; nu/N falls as 1/N. 2,048 prompts, so that drawing them without return is within 2 %."""
    population = skill_chain(16, 8, 2048, validation=1)
    small, large = (
        noise(population, replace(ONE, estimator="rloo", group_size=4, prompts=m), redraws=240) for m in (4, 32)
    )
    assert abs(small.nu - large.nu) < Z * math.hypot(small.nu_se, large.nu_se)
    assert large.rollouts == 8 * small.rollouts
    g = np.random.default_rng(1).standard_normal((9, 5)) + 1
    assert_allclose(estimates(2 * g, np.ones(5)), estimates(g, 3 * np.ones(5)), rtol=1e-9)


def test_the_gain_of_a_normalised_update_is_bounded_and_free_of_scale() -> None:
    """Guards `adam`: at most |e|_1, which updates without noise gain; ten times the rollouts are nearer to it; the same
    for a multiple of the advantages."""
    population = skill_chain(prompts=512, validation=1)
    most = float(np.abs(success_gradient(population.start_SK, population.prompts)).sum())
    few, many, scaled = (
        noise(population, replace(ONE, estimator=e, group_size=4, prompts=m), redraws=64).adam
        for e, m in (("rloo", 8), ("rloo", 80), ("dr_grpo", 8))
    )
    assert 0 < few < many < most and scaled == pytest.approx(few)


def test_more_shared_skills_are_less_noise() -> None:
    """Guards the sizes in a world's population: the same pass rates over more skills are noisier."""
    config = replace(ONE, estimator="grpo", group_size=4, prompts=16)
    few, many = (
        noise(parse_population("observed:Qwen2.5-7B", 1024, 0, 1, topics=k, skills_per_topic=k), config, redraws=64)
        for k in (4, 16)
    )
    assert many.nu > 2 * few.nu


def test_memories_are_warmed_and_the_same_seed_is_the_same_draw() -> None:
    """Guards pairing and warming: equal seeds give equal rollouts, so equal silent shares under rules of one kind; a
    method with a memory differs from its cold self."""
    population = skill_chain(prompts=256, validation=1)
    config = replace(ONE, group_size=4, prompts=8)
    a, b = (noise(population, replace(config, estimator=e), redraws=16) for e in ("rloo", "dr_grpo"))
    assert a.silent == b.silent and a.nu == pytest.approx(b.nu)
    cold, warm = (noise(population, replace(config, estimator="ebpo_debiased"), redraws=16, warm=w) for w in (0, 30))
    assert cold.nu != warm.nu and warm.error < cold.error


def test_the_entropy_gradient_is_the_slope() -> None:
    """Guards the entropy per reward: central differences of the tokens' mean entropy, to 1e-7."""
    population = skill_chain(2, 2, 12, seed=4, validation=1)
    theta, prompts, h = population.start_SK, population.prompts, 1e-5
    gradient = entropy_gradient(theta, prompts)
    for s, a in ((0, 0), (2, 3), (5, 7)):
        step = np.zeros_like(theta)
        step[s, a] = h
        up, down = (per_token(token_entropy(theta + x, prompts), prompts) for x in (step, -step))
        assert gradient[s, a] == pytest.approx((up - down) / (2 * h), abs=1e-7)


def test_too_few_redraws_are_refused() -> None:
    """Guards the refusal by name."""
    with pytest.raises(InputError, match="redraws must be at least 8, got 7"):
        noise(bandit([0.3]), ONE, redraws=7)
