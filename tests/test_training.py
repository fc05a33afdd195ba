"""Training: kernels against their twin to the bit, gradients against autograd, one step against exact predictions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2

import exact_forms
import naive_training as naive
from ebpo_sim.chains.answers import groups_of
from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.kernels import distributions, divergence, majority, rollout
from ebpo_sim.chains.measures import maj_at_n, pass_at_k, quality, sampled_gradients
from ebpo_sim.chains.policy import step_distributions
from ebpo_sim.chains.population import SkillChain, bandit, per_token, skill_chain, success, success_gradient
from ebpo_sim.chains.rung import TrainingConfig, advance, build_method, start, stream
from ebpo_sim.chains.update import Learner, gradient, sample
from ebpo_sim.counts.updates import advantage_gap, advantages_by_count
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import count_groups, group_rewards
from ebpo_sim.methods import step as methods
from ebpo_sim.methods.method import Method
from ebpo_sim.objectives import KL, Aggregation, Clip, EntropyBonus
from ebpo_sim.sampling import Ask, Order, Pool

SMALL = TrainingConfig("ebpo", group_size=3, prompts=7, steps=6, learning_rate=0.3, minibatches=3, epochs=2,
                       clip_low=0.1, clip_high=0.15, kl=0.05, record_every=2, gradient_redraws=2, seed=4)  # fmt: skip


@pytest.fixture(scope="module")
def chain() -> SkillChain:
    return skill_chain(2, 3, 20, (1, 2, 3), seed=3, shared_skills=2, actions=4, validation=6)


def naive_run(population: SkillChain, config: TrainingConfig, steps: int) -> list[list[float]]:
    """The parameters after `steps` steps, by the twin with the real estimator."""
    estimator = build_method(population, config).estimator
    state, order = estimator.init(), stream(population, config)
    rng = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence([config.seed, 11])))
    theta = population.start_SK.tolist()
    moments = [[[0.0] * len(row) for row in theta] for _ in range(2)]
    count, width = 0, population.prompts.skills_PL.shape[1]
    reference = step_distributions(population.start_SK, population.prompts)  # an input of both
    for index in order[:steps]:
        batch = population.prompts.take(index)
        old = naive.distributions(theta, batch)
        actions, rewards = naive.rollout(old, batch, rng.random((config.prompts, config.group_size, width)))
        lengths = np.repeat(batch.length_P[:, None], config.group_size, axis=1)
        advantages, _, state = estimator.step(
            state, group_rewards(rewards, clusters=batch.topic_P, lengths=lengths, prompt_ids=index.tolist())
        )
        anchors = [reference[i] for i in index]
        theta, *moments, count, _ = naive.update(
            theta, *moments, count, batch, actions, advantages, old, anchors, config
        )
    return theta


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_training_equals_its_twin(chain: SkillChain, optimiser: str, aggregation: str, kl: float) -> None:
    """Guards the whole loop: rollouts, clipping, KL, minibatches, epochs and optimiser agree to the last bit."""
    config = replace(SMALL, optimiser=optimiser, aggregation=aggregation, kl=kl, clip_high=0.05)
    reached = advance(chain, config, start(chain, config), 4).theta_SK
    np.testing.assert_array_equal(reached, np.array(naive_run(chain, config, 4)))


def drawn(population: SkillChain, group_size: int, seed: int = 0):
    """(batch arrays for kernels, distributions, actions, rewards) of all prompts."""
    prompts = population.prompts
    arrays = (prompts.skills_PL, prompts.length_P, np.exp(prompts.offset_PL), prompts.right_PL)
    pi = np.ones((*prompts.skills_PL.shape, population.actions))
    distributions(population.start_SK, *arrays, np.arange(len(pi)), pi)
    uniform = np.random.default_rng(seed).random((len(pi), group_size, pi.shape[1]))
    actions, rewards = np.zeros(uniform.shape, dtype=np.int64), np.empty(uniform.shape[:2])
    rollout(pi, prompts.length_P, prompts.right_PL, uniform, actions, rewards)
    return arrays, pi, actions, rewards


@pytest.mark.parametrize("rule", ["token_mean", "sequence_mean"])
def test_the_gradient_matches_autograd(chain: SkillChain, rule: str) -> None:
    """Guards the clipped surrogate with k3 and an entropy bonus, off policy, through the compiled kernels: torch's
    gradient of the objective written out, to 1e-12."""
    rng = np.random.default_rng(2)
    rolled = sample(chain.start_SK, chain.prompts, 5, rng)
    old, actions = rolled.pi_PLK, rolled.actions_PGL
    theta = chain.start_SK + rng.normal(0, 0.3, chain.start_SK.shape)
    advantages = rng.normal(size=actions.shape[:2])
    reference = step_distributions(theta + 0.5 * rng.normal(size=theta.shape), chain.prompts)
    low, high, kl, bonus = 0.2, 0.1, 0.3, 0.05
    t = torch.tensor(theta, requires_grad=True)
    prompts, objective, tokens = chain.prompts, torch.zeros((), dtype=torch.float64), 0
    for p, length in enumerate(prompts.length_P):
        for s in range(length):
            boost = torch.zeros(4, dtype=torch.float64)
            boost[prompts.right_PL[p, s]] = prompts.offset_PL[p, s]
            log_pi = torch.log_softmax(t[prompts.skills_PL[p, s]] + boost, 0)
            entropy = -(log_pi.exp() * log_pi).sum()
            for g in range(5):
                a, adv = actions[p, g, s], advantages[p, g]
                ratio = torch.exp(log_pi[a] - np.log(old[p, s, a]))
                gap = np.log(reference[p, s, a]) - log_pi[a]
                term = torch.minimum(ratio * adv, torch.clamp(ratio, 1 - low, 1 + high) * adv)
                term = term - kl * (torch.exp(gap) - gap - 1) + bonus * entropy
                objective = objective + (term if rule == "token_mean" else term / length)
                tokens += 1
    (objective / (tokens if rule == "token_mean" else 5 * len(prompts.length_P))).backward()
    parts = (Clip(low, high), KL(kl), EntropyBonus(bonus))
    learner = Learner(parts, Aggregation(rule), adam=False, learning_rate=0.0)  # type: ignore[arg-type]
    found, clipped = gradient(theta, rolled, advantages, learner, reference)
    assert clipped > 10
    assert t.grad is not None
    np.testing.assert_allclose(found, t.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_expected_step_is_the_predicted_one(name: str) -> None:
    """Guards one step in expectation: E g = sum_p delta(p) grad p / tokens, delta from policy_gradient, exactly.

    z-scores of independent bandits along grad p, and of a chain along its prediction, tested together: chi-square,
    13 degrees of freedom, false-fail rate 1e-3. Smallest effect seen: 2 % of the chain's gradient at 4 se.
    """
    estimator, group_size = make(name), 4
    table = advantages_by_count(estimator, estimator.init(), count_groups(group_size), group_size)
    z = []
    populations = (bandit(np.linspace(0.1, 0.9, 12), 4), skill_chain(2, 3, 64, (1, 2), seed=1, actions=4, validation=4))
    for i, population in enumerate(populations):
        prompts, theta = population.prompts, population.start_SK
        gap_P = advantage_gap(table, success(theta, prompts))
        predicted = success_gradient(theta, prompts, gap_P / prompts.length_P.sum())
        rng = np.random.default_rng([7, i])
        count = len(prompts.length_P)
        method, ask = Method(name, estimator, allocation=Order("uniform")), Ask(0, 1, count, group_size)
        state, pool = methods.start(method), Pool(count)
        batches = (collect(theta, prompts, pool, method, state, ask, 0, rng) for _ in range(2000))
        g = sampled_gradients(theta, batches, Aggregation())
        if i == 0:
            along = np.sum((g - predicted) * predicted, axis=-1)  # (redraws, prompts): a prompt is a row of theta
        else:
            along = np.sum((g - predicted) * predicted, axis=(1, 2))[:, None]
            size = float(np.sum(predicted**2))
            assert along.std(ddof=1) / np.sqrt(2000) < 0.005 * size
        z += (along.mean(axis=0) / (along.std(axis=0, ddof=1) / np.sqrt(2000))).tolist()
    assert len(z) == 13
    assert np.sum(np.square(z)) < chi2.ppf(1 - 1e-3, 13)


def test_the_predictions_differ() -> None:
    """Guards the power of the test above: the three predictions are 25 % and more apart."""
    p = np.array([0.05, 0.5])
    tables = {n: advantages_by_count(make(n), make(n).init(), count_groups(4), 4) for n in ("grpo", "rloo", "dr_grpo")}
    gap = {name: advantage_gap(table, p) for name, table in tables.items()}
    np.testing.assert_allclose(gap["rloo"], 1, rtol=1e-12)
    np.testing.assert_allclose(gap["dr_grpo"], 0.75, rtol=1e-12)
    assert np.all(gap["grpo"] > 1.3)


@pytest.mark.parametrize("redraws", [2, 3])
def test_quality_is_unbiased(redraws: int) -> None:
    """Guards N - 1 and the noise's share by enumeration: over all samples of N from three gradients, the estimated
    noise averages to E|g - E g|^2 and the squared part of E g across the exact gradient to what it is, exactly.

    All three have the same part along the exact gradient, so both are read off cosine and variance, and their parts
    across it lie so close together that no sample's estimate is cut off at 0.
    """
    along, chance = 0.5, np.array([0.5, 0.3, 0.2])
    across = np.array([[1.0, 0.2], [0.8, -0.1], [1.1, 0.4]])
    drawn = np.concatenate([np.full((3, 1), along), across], axis=1).reshape(3, 1, 3)
    exact = np.array([[3.0, 0.0, 0.0]])
    noise = square = 0.0
    for chosen in itertools.product(range(3), repeat=redraws):
        found = quality(drawn[list(chosen)], exact)
        weight = float(np.prod(chance[list(chosen)]))
        assert 0 < found.cosine < 0.9
        noise += weight * found.variance * along**2
        square += weight * along**2 * (1 / found.cosine**2 - 1)
    mean = chance @ across
    assert noise == pytest.approx(float(chance @ np.sum((across - mean) ** 2, axis=1)), rel=1e-12)
    assert square == pytest.approx(float(mean @ mean), rel=1e-12)


def test_quality_takes_only_the_noise_across() -> None:
    """Guards the noise along the exact gradient, which is none of the part across it: two gradients that differ only
    along it have the cosine of their common part across."""
    drawn = np.array([[[1.0, 0.6]], [[3.0, 0.6]]])
    found = quality(drawn, np.array([[1.0, 0.0]]))
    assert found == pytest.approx((2 / np.sqrt(4.36), 2 / 4), rel=1e-12)


def test_quality_finds_direction_and_noise() -> None:
    """Guards the estimates: known bias and noise come back, scale does not matter; false-fail rate 1e-4 each."""
    exact = np.zeros((2, 3))
    exact[0, 0] = 2.0
    mean = np.zeros((2, 3))
    mean[0, 0], mean[1, 2] = 0.3, 0.4  # cosine 0.6
    rng = np.random.default_rng(0)
    told = [quality(mean + rng.normal(0, 0.1, (16, 2, 3)), exact) for _ in range(400)]
    cosine, noise = (np.array(column) for column in zip(*told, strict=True))
    assert abs(cosine.mean() - 0.6) < 4 * cosine.std() / 20 + 0.005  # a ratio's bias, at most 0.005 here
    assert abs(noise.mean() - 6 * 0.01 / 0.09) < 4 * noise.std() / 20 + 0.02
    assert quality(mean[None] * np.ones((3, 1, 1)), exact) == pytest.approx((0.6, 0.0), abs=1e-12)
    assert np.isnan(quality(np.zeros((3, 2, 3)), exact)).all()
    assert np.isnan(quality(np.ones((3, 2, 3)), 0 * exact)).all()
    with pytest.raises(InputError, match="at least 2"):
        quality(mean[None], exact)


def test_pass_at_k_is_unbiased() -> None:
    """Guards pass@k: its mean over Binomial(n, p) is 1 - (1 - p)^k exactly."""
    for n, k, p in itertools.product((1, 5, 16), (1, 3, 16), (0.0, 0.03, 0.5, 1.0)):
        if k <= n:
            c = np.arange(n + 1)
            assert binom.pmf(c, n, p) @ pass_at_k(c, n, k) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)
    with pytest.raises(InputError, match=r"k must lie in 1\.\.4"):
        pass_at_k([1], 4, 5)
    with pytest.raises(InputError, match="successes must lie"):
        pass_at_k([5], 4, 2)


def test_majority_equals_its_twin_and_the_closed_form(chain: SkillChain) -> None:
    """Guards maj@N: twin to the bit; two arms and three votes win with p^3 + 3 p^2 (1 - p), z below 4."""
    prompts, (_, pi, _, _) = chain.prompts, drawn(chain, 1)
    uniform, score = np.random.default_rng(1).random((20, 8, 3)), np.empty(20)
    majority(pi, prompts.length_P, prompts.right_PL, uniform, score)
    assert score.tolist() == naive.majority(naive.distributions(chain.start_SK.tolist(), prompts), prompts, uniform)
    assert {0.0, 1.0} < set(score.tolist())
    two = bandit(np.full(20_000, 0.4), actions=2)
    found, exact = maj_at_n(two.start_SK, two.prompts, 3, np.random.default_rng(0)), 0.4**3 + 3 * 0.4**2 * 0.6
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)


def test_divergence_is_the_exact_kl(chain: SkillChain) -> None:
    """Guards the recorded KL: before against after, per token, as token_kl has it."""
    (skills, length, _, _), pi, _, _ = drawn(chain, 1)
    after = chain.start_SK + np.random.default_rng(0).normal(0, 0.2, chain.start_SK.shape)
    exact = per_token(exact_forms.token_kl(chain.start_SK, after, chain.prompts), chain.prompts)
    assert divergence(chain.start_SK, after, skills, length, pi) == pytest.approx(exact, rel=1e-10)


def test_certain_uniforms_never_draw_the_impossible() -> None:
    """Guards inversion: a uniform next to 1 never takes an action of probability 0."""
    pi, actions, reward = np.array([[[0.3, 0.7 - 1e-16, 0.0]]]), np.zeros((1, 1, 1), dtype=np.int64), np.empty((1, 1))
    rollout(pi, np.array([1]), np.array([[1]]), np.full((1, 1, 1), 1 - 2**-53), actions, reward)
    assert (actions.item(), reward.item()) == (1, 1.0)


def test_score_norms_are_those_of_the_gradient() -> None:
    """Guards W: the squared norm of grad log pi of each answer, by torch, where no chain needs a skill twice."""
    rng = np.random.default_rng(3)
    chains = skill_chain(2, 3, 30, (1, 2, 3), seed=3, shared_skills=2, actions=4, validation=6)
    once = [
        len(set(s[:n])) == n for s, n in zip(chains.prompts.skills_PL.tolist(), chains.prompts.length_P, strict=True)
    ]
    prompts = chains.prompts.take(np.flatnonzero(once))
    rolled = sample(chains.start_SK, prompts, 3, rng)
    groups = groups_of(rolled, frozenset({"score_norms"}))
    for i in range(len(prompts.length_P)):
        for g in range(3):
            theta = torch.tensor(chains.start_SK, requires_grad=True)
            total = torch.zeros((), dtype=torch.float64)
            for step in range(prompts.length_P[i]):
                logits = theta[prompts.skills_PL[i, step]].clone()
                logits[prompts.right_PL[i, step]] = logits[prompts.right_PL[i, step]] + prompts.offset_PL[i, step]
                total = total + torch.log_softmax(logits, 0)[rolled.actions_PGL[i, g, step]]
            total.backward()
            assert groups.score_norm_PG[i, g] == pytest.approx(float((theta.grad**2).sum()), rel=1e-10)
