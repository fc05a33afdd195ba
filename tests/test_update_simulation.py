"""Simulated updates: one step against exact rates, long runs against a plain twin and torch's Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from battery import build
from ebpo_sim.counts.sampled_updates import Path, entropy_at_reward, one_step_changes, train
from ebpo_sim.counts.streams import Design
from ebpo_sim.counts.updates import rates
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards
from ebpo_sim.worlds import parse_world

FAMILY_WISE = 1e-3
WORLDS = ("points:0.2@0.5,0.7@0.3,0.9@0.2", "beta:2,3")
NAMES = ("grpo", "dr_grpo", "ebpo", "ebpo_released", "ebpo_debiased", "ebpo_nonparametric", "global_mean")
DESIGN = Design(prompts=3000, steps=8, burn_in=3, replicates=24, seed=5)
START = np.array([0.1, 0.45, 0.8])
SMALL: dict[str, Any] = {"group_size": 4, "arms": 3, "steps": 5, "learning_rate": 0.4, "replicates": 2, "seed": 3}


@pytest.fixture(scope="module")
def changes() -> list[tuple[str, int, dict[str, np.ndarray]]]:
    estimators = [make(name) for name in NAMES]
    return [(w, g, one_step_changes(parse_world(w), g, estimators, 5, DESIGN)) for w in WORLDS for g in (2, 5)]


def test_one_step_agrees_with_exact_rates(changes) -> None:
    """All sampled changes at once, against the exact rates of an infinite batch: t with R - 1 degrees of freedom,
    Bonferroni, false-fail rate 1e-3. A standard error is below 1.5 % of its rate, so an error of 10 % would show."""
    z = []
    for world, size, found in changes:
        for name, values in found.items():
            for estimator, sampled in zip(NAMES, values, strict=True):
                exact = rates(make(estimator), parse_world(world), size, 5, name)
                se = sampled.std(axis=1, ddof=1) / np.sqrt(DESIGN.replicates)
                assert np.all(se < 0.015 * np.abs(exact)), (world, size, estimator, name)
                z += list((sampled.mean(axis=1) - exact) / se)
    assert len(z) == len(WORLDS) * 2 * 2 * len(NAMES) * 2
    limit = student.isf(FAMILY_WISE / 2 / len(z), DESIGN.replicates - 1)
    assert np.abs(z).max() < limit


def test_estimators_share_their_batches(changes) -> None:
    """Guards pairing: rules that differ by a factor move by that very factor, replicate by replicate."""
    for _, size, found in changes:
        for values in found.values():
            assert np.all(values.std(axis=2) > 0)
            if size == 2:  # GRPO is then Dr. GRPO times sqrt 2, to GRPO's eps
                np.testing.assert_allclose(values[0], np.sqrt(2) * values[1], rtol=1e-5)
    names = ("dr_grpo", "rloo")
    pair = one_step_changes(parse_world(WORLDS[1]), 4, [make(n) for n in names], 3, DESIGN._replace(prompts=50))
    for values in pair.values():
        np.testing.assert_allclose(values[1], values[0] * 4 / 3, rtol=1e-12)


def test_same_seed_same_changes() -> None:
    """Guards the seed, and that an estimator's numbers do not depend on the others beside it."""
    world, design = parse_world(WORLDS[0]), DESIGN._replace(prompts=30, replicates=3)
    first = one_step_changes(world, 4, [make("ebpo"), make("grpo")], 3, design)
    again = one_step_changes(world, 4, [make("grpo")], 3, design)
    other = one_step_changes(world, 4, [make("grpo")], 3, design._replace(seed=6))
    for name in ("natural", "vanilla"):
        assert first[name].shape == (2, 2, 3)
        assert first[name][1].tobytes() == again[name][0].tobytes()
        assert not np.any(again[name] == other[name])
    with pytest.raises(InputError, match="burn_in must be below steps"):
        one_step_changes(world, 4, [make("grpo")], 3, design._replace(burn_in=8))


def plain_softmax(logits: list[float]) -> list[float]:
    powers = [float(np.exp(z)) for z in logits]
    return [x / sum(powers) for x in powers]


def twin(name: str, optimiser: str, start: np.ndarray, size: int, arms: int, steps: int, rate: float, seed: int):
    """`train` of two replicates, one after the other, in loops; Adam is torch's. (reward, entropy) before each step."""
    rng = np.random.default_rng([seed, size, arms])
    uniform = [rng.random((2, len(start), size)) for _ in range(steps)]
    found = []
    for replicate in range(2):
        logits = [[float(np.log(p))] + [float(np.log((1 - p) / (arms - 1)))] * (arms - 1) for p in start]
        weights = torch.tensor(logits, dtype=torch.float64)
        adam = torch.optim.Adam([weights], lr=rate, maximize=True)
        estimator, path = build(name), []
        state = estimator.init()
        for step in range(steps + 1):
            pi = [plain_softmax(row) for row in weights.tolist()]
            spread = [-sum(x * float(np.log(x)) for x in row) for row in pi]
            path.append((sum(row[0] for row in pi) / len(pi), sum(spread) / len(pi)))
            if step == steps:
                break
            actions = []
            for row, draws in zip(pi, uniform[step][replicate], strict=True):
                edges = [sum(row[: a + 1]) for a in range(arms - 1)]
                actions.append([sum(u > edge for edge in edges) for u in draws])
            batch = group_rewards([[float(a == 0) for a in row] for row in actions])
            advantages, _, state = estimator.step(state, batch)
            gradient = [[0.0] * arms for _ in start]
            for j, row in enumerate(actions):
                for a, advantage in zip(row, np.asarray(advantages)[j], strict=True):
                    for arm in range(arms):
                        gradient[j][arm] += float(advantage) * ((a == arm) - pi[j][arm]) / size
            if optimiser == "sgd":
                weights += rate * torch.tensor(gradient, dtype=torch.float64)
            else:
                weights.grad = torch.tensor(gradient, dtype=torch.float64)
                adam.step()
        found.append(path)
    return np.moveaxis(np.array(found), -1, 0)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["grpo", "ebpo", "ebpo_debiased", "ebpo_nonparametric"])
def test_training_against_a_plain_twin(name: str, optimiser: str) -> None:
    """Guards long runs to rounding: sampling, gradient, state a replicate, SGD, and Adam as torch has it (whose first
    step is a gradient over its own size, which enlarges the rounding of gradients near 0)."""
    tolerance = 1e-12 if optimiser == "sgd" else 1e-8
    path = train(build(name), START, optimiser=optimiser, **SMALL)
    reward, spread = twin(name, optimiser, START, 4, 3, 5, 0.4, 3)
    assert path.reward.shape == (2, 6)
    np.testing.assert_allclose(path.reward, reward, rtol=tolerance)
    np.testing.assert_allclose(path.entropy, spread, rtol=tolerance)
    assert np.ptp(path.reward) > 0.02


def test_training_starts_where_it_is_told() -> None:
    """Guards step 0, and that a learning rate of 0 goes nowhere: mean p, and mean entropy of one right arm in K."""
    path = train(make("grpo"), START, optimiser="sgd", **{**SMALL, "learning_rate": 0.0})
    spread = [-p * np.log(p) - (1 - p) * np.log((1 - p) / 2) for p in START]
    np.testing.assert_allclose(path.reward, START.mean(), rtol=1e-12)
    np.testing.assert_allclose(path.entropy, np.mean(spread), rtol=1e-12)


def test_training_is_paired_by_seed() -> None:
    """Guards common random numbers: RLOO is Dr. GRPO at G/(G-1) times the rate, on the very same rollouts."""
    plain = train(make("dr_grpo"), START, optimiser="sgd", **{**SMALL, "learning_rate": 0.4 * 4 / 3})
    scaled = train(make("rloo"), START, optimiser="sgd", **SMALL)
    np.testing.assert_allclose(plain.reward, scaled.reward, rtol=1e-12)
    np.testing.assert_allclose(plain.entropy, scaled.entropy, rtol=1e-12)
    again = train(make("rloo"), START, optimiser="sgd", **SMALL)
    assert scaled.reward.tobytes() == again.reward.tobytes()
    other = train(make("rloo"), START, optimiser="sgd", **{**SMALL, "seed": 4})
    assert not np.any(scaled.reward[:, 1:] == other.reward[:, 1:])
    assert scaled.reward[0, -1] != scaled.reward[1, -1]


def test_first_step_agrees_with_exact_rates() -> None:
    """The first SGD step of 20000 runs: mean change of reward is rate * E|grad p|^2 (G-1)/G for Dr. GRPO, to first
    order; 5 standard errors (false-fail rate 6e-7), which are 3 % of it, plus a second order below 1 %."""
    rate, p = 1e-3, START
    path = train(
        make("dr_grpo"), p, optimiser="sgd",
        **{**SMALL, "steps": 1, "learning_rate": rate, "replicates": 20000},
    )  # fmt: skip
    change = path.reward[:, 1] - path.reward[:, 0]
    slope = np.mean(p**2 * ((1 - p) ** 2 + 2 * ((1 - p) / 2) ** 2))  # |grad p|^2 = p^2 ((1-p)^2 + sum of wrong pi^2)
    expected, se = rate * 0.75 * slope, change.std(ddof=1) / np.sqrt(len(change))
    assert se < 0.03 * expected / 5
    assert abs(change.mean() - expected) < 5 * se + 0.01 * expected


def test_entropy_at_a_reward() -> None:
    """Guards interpolation: linear between the steps around the first crossing; NaN if it is never reached."""
    path = Path(
        np.array([[0.2, 0.4, 0.3, 0.8], [0.2, 0.25, 0.3, 0.35], [0.1, 0.5, 0.7, 0.9]]),
        np.array([[3.0, 2.0, 2.5, 1.0], [3.0, 2.0, 1.0, 0.5], [2.0, 1.6, 1.0, 0.2]]),
    )
    np.testing.assert_allclose(entropy_at_reward(path, 0.35), [2.25, 0.5, 1.75], rtol=1e-12)
    np.testing.assert_allclose(entropy_at_reward(path, 0.7), [1.3, np.nan, 1.0], rtol=1e-12)
    assert np.all(np.isnan(entropy_at_reward(path, 0.95)))


def test_entropy_at_the_first_reward() -> None:
    """Guards the edge: a run that starts at the asked reward reaches it at once, with the entropy it starts with."""
    path = Path(np.array([[0.2, 0.4]]), np.array([[3.0, 2.0]]))
    assert entropy_at_reward(path, 0.2).tolist() == [3.0]


@pytest.mark.parametrize("bad", [0.0, 1.0, float("nan"), -0.1])
def test_refusals(bad: float) -> None:
    """Guards refusals: certain arms and unknown optimisers are named."""
    with pytest.raises(InputError, match="start_p must lie strictly between 0 and 1"):
        train(make("grpo"), np.array([0.5, bad]), optimiser="sgd", **SMALL)
    with pytest.raises(InputError, match="optimiser must be 'sgd' or 'adam', got 'natural'"):
        train(make("grpo"), START, optimiser="natural", **SMALL)
