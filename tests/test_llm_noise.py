"""The gradient noise scale of llm/: unbiased where the truth is known, and of the gradients that a run really takes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch

from ebpo_sim import InputError
from llm import learner, noise, summary, train
from llm.problems import task
from llm.run import Run, curriculum_of, prepare
from llm.settings import Settings

TINY = Settings(
    estimator="grpo", prompts=8, steps=4, lr=1e-12, warmup=0, topics="count,mod", max_level=3, per_cell=24,
    eval_per_cell=4, sft_steps=80, sft_batch=64, hidden=16, layers=1, heads=2, kv_heads=1, grad_clip=1e-3,
    aggregation="constant_length", noise_parts=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started tiny model, trained once."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


def gaussian(rng: np.random.Generator, groups_K: list[int], mean: float = 0.3, size: int = 4) -> noise.Moments:
    """Moments of a batch of `size` rollouts a group, each group's gradient normal in three dimensions; the signal is
    |(mean, 0, 0)|^2, the noise size * (1 + 4 + 0.25)."""
    groups = sum(groups_K)
    x_P3 = np.array([mean, 0.0, 0.0]) + rng.normal(size=(groups, 3)) * np.array([1.0, 2.0, 0.5])
    ends = np.cumsum(groups_K)
    c_K3 = np.array([x_P3[end - n : end].sum(axis=0) for n, end in zip(groups_K, ends, strict=True)]) / groups
    total = float((c_K3.sum(axis=0) ** 2).sum())
    found = noise.moments((c_K3**2).sum(axis=1).tolist(), groups_K, total, size * groups)
    assert found is not None
    return found


@pytest.mark.parametrize("groups_K", [[5, 5, 5, 5], [4, 3, 3], [1, 1]], ids=str)
def test_moments_are_unbiased(groups_K: list[int]) -> None:
    """Guards both moments, for parts of unequal size too: 8000 batches of known normal gradients, within 4.5 standard
    errors (six comparisons, false-fail rate 4e-5)."""
    rng = np.random.default_rng(0)
    found = np.array([gaussian(rng, groups_K) for _ in range(8000)])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - [0.09, 4 * 5.25]) < 4.5 * error).all() and (error < [0.2, 0.8]).all()


def test_one_part_tells_nothing() -> None:
    assert noise.moments([1.0], [3], 1.0, 12) is None
    assert noise.scale([noise.Moments(1.0, 2.0)]) == (None, None)
    assert noise.scale([noise.Moments(-1.0, 2.0)] * 5) == (None, None)


def test_the_scale_and_its_standard_error() -> None:
    """Guards the ratio of sums: within 2 % of the truth, and an error that is its spread over 400 runs of 60 steps,
    which is known to 3.5 %: five times that is allowed, false-fail rate 1e-6."""
    rng = np.random.default_rng(1)
    runs = [noise.scale([gaussian(rng, [4] * 8, mean=1.0) for _ in range(60)]) for _ in range(400)]
    nu_R, error_R = np.array(runs).T
    assert abs(nu_R.mean() / 21 - 1) < 0.02
    assert abs(error_R.mean() / nu_R.std(ddof=1) - 1) < 5 * 0.035


def test_older_steps_are_forgotten() -> None:
    """Guards `memory`: weights 1, 1/2, 1/4 by hand."""
    found = [noise.Moments(4.0, 8.0), noise.Moments(2.0, 6.0), noise.Moments(1.0, 2.0)]
    nu = (2 + 3 + 2) / (1 + 1 + 1)
    squares = (2 - nu) ** 2 + (3 - nu) ** 2 + (2 - nu) ** 2
    effective = 1.75**2 / (1 + 1 / 4 + 1 / 16)
    assert noise.scale(found, 0.5) == pytest.approx((nu, (squares * effective / (effective - 1)) ** 0.5 / 3), rel=1e-12)
    rows = [{noise.SIGNAL: m.signal, noise.NOISE: m.noise} for m in found]
    assert noise.measured([*rows, {noise.SIGNAL: None, noise.NOISE: None}, {}]) == found
    assert noise.logged(rows)["noise_scale"] == noise.scale(found, noise.MEMORY)[0]


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 9])
def test_parts_are_whole_groups(parts: int) -> None:
    """Guards the dealing: each row once, a group in one part, sizes that differ by one at most."""
    group_N = torch.tensor([7, 7, 3, 9, 9, 9, 0, 2, 2])
    found = noise.split(group_N, parts)
    assert len(found.rows_K) == len(found.groups_K) == min(max(parts, 1), 5)
    assert torch.cat(found.rows_K).tolist() == list(range(9)) and sum(found.groups_K) == 5
    assert [len(group_N[rows].unique()) for rows in found.rows_K] == found.groups_K
    assert max(found.groups_K) - min(found.groups_K) <= 1


def started(settings: Settings, cache: Path) -> Run:
    return prepare(settings, cache, *task(settings))


def gradient(run: Run) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in run.model.parameters()]).double()


@pytest.mark.parametrize(
    "change", [{}, {"micro_rows": 5, "aggregation": "token_mean"}, {"mini_batch": 4, "updates": 2}], ids=str
)
def test_a_runs_moments_are_those_of_its_parts_gradients(change: dict, cache: Path) -> None:
    """Guards the host: |c_k|^2 from gradients of the parts alone, computed here, of the first mini-batch; the batch's
    gradient is what it is without parts."""
    settings = replace(TINY, **change)
    run, curriculum = started(settings, cache), curriculum_of(settings, task(settings).train)
    batch = train.answers(run, curriculum, 0)
    advantage_N = torch.from_numpy(batch.advantage_N).float()
    rows = 4 * (settings.mini_batch or 8)
    weight_NT = run.objective.weights(batch.rolled.mask_NT[:rows])
    c_K, groups_K = [], [2, 3, 3] if rows == 32 else [1, 1, 2]
    split = noise.split(torch.from_numpy(batch.group_N[:rows]), 3)
    assert sorted(split.groups_K) == sorted(groups_K)
    for part in split.rows_K:
        run.model.zero_grad()
        loss, _ = run.objective.loss(
            learner.log_probs(run, batch.rolled)[part],
            batch.rolled.log_prob_NT[part],
            advantage_N[part],
            weight_NT[part],
        )
        loss.backward()
        c_K.append(gradient(run))
    run.model.zero_grad()
    group_N = torch.from_numpy(batch.group_N)
    given = (batch.rolled, advantage_N, 1e-12, group_N, 32)
    logged = learner.update(run, *given)
    found = (logged[noise.SIGNAL], logged[noise.NOISE])
    squares = [float(c @ c) for c in c_K]
    total = float(sum(c_K) @ sum(c_K))
    assert found == pytest.approx(noise.moments(squares, split.groups_K, total, rows), rel=1e-4)
    plain = started(replace(settings, noise_parts=0), cache)
    without = learner.update(plain, *given)
    assert noise.SIGNAL not in without and without["grad_norm"] == pytest.approx(logged["grad_norm"], rel=1e-5)
    assert (gradient(plain) - gradient(run)).abs().max() < 1e-6


def test_the_noise_is_the_variance_over_batches(cache: Path) -> None:
    """Guards independence: what parts of a batch tell is the spread of whole batches at a fixed policy, 48 of them
    (within 4.5 standard errors of the difference, false-fail rate 4e-5 by Student's t)."""
    settings = replace(TINY, steps=48, per_cell=60, grad_clip=1e9)
    run, curriculum = started(settings, cache), curriculum_of(settings, task(settings).train)
    gradients, told = [], []
    for step in range(48):
        metrics, _ = train.train_step(run, curriculum, step)
        gradients.append(gradient(run))
        told.append(metrics[noise.NOISE] / metrics["rollouts"])
    away_T = ((torch.stack(gradients) - sum(gradients) / 48).square().sum(dim=1) * 48 / 47).numpy()
    difference = np.array(told) - away_T
    error = difference.std(ddof=1) / np.sqrt(48)
    assert abs(difference.mean()) < 4.5 * error and error < 0.25 * away_T.mean()


def test_what_the_summary_says() -> None:
    """Guards summary.json and its text: the scale of either end, and nothing where it was not measured."""
    plain = {"reward": 0.5, "seconds_sample": 1.0, "validation_pass1": 0.5, "validation_se": 0.1, "step": 1}
    rows = [{**plain, noise.SIGNAL: 2.0 + t % 2, noise.NOISE: 8.0 + t} for t in range(40)]
    problem = task(TINY).train[0]
    told = summary.summarise({}, rows, [problem] * 2, [0.1, 0.2], [0.3, 0.5])
    assert told["noise_scale"]["first"] == list(noise.scale(noise.measured(rows[:20])))
    assert told["noise_scale"]["last"][0] == pytest.approx((8 * 20 + sum(range(20, 40))) / 50)
    assert "gradient noise scale, 20 steps at either end: 7 ± " in summary.text(told)
    bare = [plain] * 2
    told = summary.summarise({}, bare, [problem] * 2, [0.1, 0.2], [0.3, 0.5])
    assert "noise_scale" not in told and "noise" not in summary.text(told)


@pytest.mark.parametrize("change", [{"noise_parts": 1}, {"noise_parts": 9}, {"mini_batch": 2}], ids=str)
def test_impossible_parts_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match=r"--noise-parts must be 0, or from 2 to the \d prompts"):
        replace(TINY, **change)
