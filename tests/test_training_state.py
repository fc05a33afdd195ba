"""Training runs as values: killed and resumed to the bit, undisturbed by records, orders, settings that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim import rungs
from ebpo_sim.chains.population import SkillChain, skill_chain, success
from ebpo_sim.chains.rung import METRICS, ORDERS, TrainingConfig, advance, history, resume, save, start, stream, train
from ebpo_sim.errors import InputError

SMALL = TrainingConfig("ebpo", group_size=3, prompts=7, steps=6, learning_rate=0.3, minibatches=3, epochs=2,
                       clip_low=0.1, clip_high=0.15, kl=0.05, record_every=2, gradient_redraws=2, seed=4)  # fmt: skip


@pytest.fixture(scope="module")
def chain() -> SkillChain:
    return skill_chain(2, 3, 20, (1, 2, 3), seed=3, shared_skills=2, actions=4, validation=6)


@pytest.mark.parametrize("save_every", [1, 3, 5])
@pytest.mark.parametrize("estimator", ["ebpo", "ebpo_debiased:per_cluster=True,memory=0.9", "ebpo_nonparametric"])
def test_killed_and_resumed_ends_in_the_same_bits(
    chain: SkillChain, tmp_path: Path, save_every: int, estimator: str
) -> None:
    """Guards resumption: saved in mid-window and mid-run, read back and finished, equal to an uninterrupted run."""
    config = replace(SMALL, estimator=estimator)
    whole = advance(chain, config, start(chain, config), config.steps)
    path = tmp_path / "state.json"
    save(path, chain, config, advance(chain, config, start(chain, config), save_every))
    ended = train(chain, config, path, save_every)  # picks up the file
    assert resume(path, chain, config).steps == config.steps
    save(tmp_path / "whole.json", chain, config, whole)
    assert path.read_bytes() == (tmp_path / "whole.json").read_bytes()
    for name in METRICS:
        np.testing.assert_array_equal(ended.values[name], history(whole).values[name])


def test_a_foreign_or_damaged_state_is_refused(chain: SkillChain, tmp_path: Path) -> None:
    """Guards resumption against other settings, other prompts and broken files."""
    path = tmp_path / "state.json"
    save(path, chain, SMALL, start(chain, SMALL))
    for population, config in ((chain, replace(SMALL, learning_rate=0.1)), (chain, replace(SMALL, estimator="grpo")),
                               (replace(chain, start_SK=chain.start_SK + 1e-9), SMALL)):  # fmt: skip
        with pytest.raises(InputError, match="other settings"):
            resume(path, population, config)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        resume(path, chain, SMALL)


def test_advance_leaves_the_state_alone(chain: SkillChain) -> None:
    """Guards state as a value: the same state, advanced twice, gives the same."""
    begun = start(chain, SMALL)
    kept = begun.theta_SK.copy()
    first, second = (advance(chain, SMALL, begun, 3) for _ in range(2))
    np.testing.assert_array_equal(begun.theta_SK, kept)
    np.testing.assert_array_equal(first.theta_SK, second.theta_SK)
    assert advance(chain, SMALL, first, 99).steps == SMALL.steps


def test_records_do_not_disturb_the_run(chain: SkillChain) -> None:
    """Guards measurement: what is recorded, and how often, changes no parameter."""
    runs = [
        replace(SMALL, record_every=n, gradient_redraws=r, evaluate_rollouts=e) for n, r, e in ((1, 4, 16), (6, 0, 2))
    ]
    reached = [advance(chain, c, start(chain, c), 6).theta_SK for c in runs]
    np.testing.assert_array_equal(*reached)


@pytest.mark.parametrize("name", rungs.standing(rungs.CHAINS))
def test_every_registered_estimator_trains(chain: SkillChain, name: str) -> None:
    """Guards the interface: any preset, oracles included, learns something finite on a stream of topics."""
    found = train(chain, replace(SMALL, estimator=name, order="topic", kl=0.0))
    assert found.step_T.tolist() == [0, 2, 4, 6]
    assert all(
        np.isfinite(found.values[m][1:]).all() for m in METRICS if m not in ("shrinkage",) and "gradient" not in m
    )


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_learning_raises_success(optimiser: str) -> None:
    """Guards the sign of everything: held-out pass@1 rises by more than half of what is missing."""
    population = skill_chain(prompts=200, seed=1, exceptions=0.0)
    rate = {"sgd": 10.0, "adam": 0.05}[optimiser]
    found = train(population, TrainingConfig("grpo", optimiser=optimiser, learning_rate=rate, prompts=64, steps=60))
    first, last = found.values["pass1"][[0, -1]]
    assert last > first + (1 - first) / 2
    assert np.all(found.values["pass16"] >= found.values["pass1"])
    assert found.values["entropy"][-1] < found.values["entropy"][0]


def test_a_rate_of_zero_changes_nothing(chain: SkillChain) -> None:
    """Guards updates: no rate, no step; the batch's records are still there."""
    found = train(chain, replace(SMALL, learning_rate=0.0))
    assert np.ptp(found.values["pass1"]) == 0
    assert np.abs(found.values["kl"][1:]).max() < 1e-15
    assert found.values["grad_norm"][1:].min() > 0


def test_orders_present_the_same_prompts() -> None:
    """Guards the stream: every order is a permutation of the same presentations, sorted as its name says."""
    population = skill_chain(prompts=90, seed=2)
    config = TrainingConfig(prompts=20, steps=18, minibatches=2)
    p = success(population.start_SK, population.prompts)
    streams = {order: stream(population, replace(config, order=order)) for order in ORDERS if order != "uniform"}
    for order in set(ORDERS) - {"uniform"}:
        assert streams[order].shape == (18, 20)
        assert np.bincount(streams[order].ravel(), minlength=90).tolist() == [4] * 90
    topic = population.prompts.topic_P[streams["blocked"].ravel()]
    assert np.count_nonzero(np.diff(topic)) == 3
    assert np.all(np.diff(np.rint(16 * p[streams["easy_to_hard"].ravel()])) <= 0)
    assert np.all(np.diff(np.rint(16 * p[streams["hard_to_easy"].ravel()])) >= 0)
    assert np.count_nonzero(np.diff(population.prompts.topic_P[streams["shuffled"].ravel()])) > 100


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"group_size": 0}, "group_size must be finite and at least 1"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"kl": -1.0}, "kl"),
        ({"clip_low": -0.1}, "clip_low"),
        ({"minibatches": 129}, "must not exceed the 128 prompts"),
        ({"gradient_redraws": 1}, "gradient_redraws must be 0 or at least 2"),
        ({"order": "sorted"}, "unknown order"),
        ({"optimiser": "adamw"}, "did you mean 'adam'"),
        ({"aggregation": "mean"}, "unknown aggregation"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], says: str) -> None:
    """Guards refusals: one line that names the argument and the remedy."""
    with pytest.raises(InputError, match=says):
        TrainingConfig(**change)  # type: ignore[arg-type]


def test_unknown_estimators_long_chains_and_divergence_are_refused(chain: SkillChain) -> None:
    """Guards refusals that need the population."""
    with pytest.raises(InputError, match="unknown estimator"):
        start(chain, replace(SMALL, estimator="gpro"))
    with pytest.raises(InputError, match="shorten chains"):
        start(skill_chain(lengths=(30,), prompts=3, validation=2), SMALL)
    with pytest.raises(InputError, match="learning_rate 1e\\+308 made the policy infinite"):
        train(chain, replace(SMALL, learning_rate=1e308, optimiser="adam"))


def test_a_linear_schedule_ends_at_zero() -> None:
    """Guards the schedule: step t of T moves the policy by (1 - t/T) of what a constant rate would from the same state,
    and a run cut in two ends in the same bits."""
    population = skill_chain(2, 3, 32, seed=1, validation=8)
    falling = replace(SMALL, schedule="linear", optimiser="sgd", epochs=1, minibatches=1, steps=4)
    states = [start(population, falling)]
    for t in range(4):
        states.append(advance(population, falling, states[-1], 1))
        whole = advance(population, replace(falling, schedule="constant"), states[-2], 1)
        moved, full = (x.theta_SK - states[-2].theta_SK for x in (states[-1], whole))
        assert np.abs(full).max() > 0
        np.testing.assert_allclose(moved, (1 - t / 4) * full, atol=1e-15)
    assert (advance(population, falling, states[0], 4).theta_SK == states[-1].theta_SK).all()
