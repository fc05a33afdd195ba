"""`llm.train`: tiny runs, the estimator they use, killing and resuming, refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

import torch  # noqa: E402

from ebpo_sim import InputError, cli, group_rewards, make  # noqa: E402
from ebpo_sim.methods.checkpoint import dump_state  # noqa: E402
from ebpo_sim.methods.step import State  # noqa: E402
from ebpo_sim.part import Draw, NoMemory  # noqa: E402
from ebpo_sim.sampling import ORDERS, Ask, Everything, Order, Plan, Pool  # noqa: E402
from ebpo_sim.sampling.orders import BY_DIFFICULTY  # noqa: E402
from llm import checkpoints, train  # noqa: E402
from llm.collect import answers  # noqa: E402
from llm.curriculum import Curriculum  # noqa: E402
from llm.objectives import Loss  # noqa: E402
from llm.problems import task  # noqa: E402
from llm.run import Run, curriculum_of, prepare  # noqa: E402
from llm.settings import Settings  # noqa: E402
from llm.tasks import CELLS, pool  # noqa: E402
from norm_baseline import LESS_NORM  # noqa: E402

TINY = Settings(
    estimator="ebpo", prompts=8, steps=4, lr=3e-3, warmup=2, topics="count,mod", max_level=3, per_cell=24, eval_every=2,
    eval_per_cell=4, eval_samples=2, checkpoint_every=2, sft_steps=80, sft_batch=64, hidden=16, layers=1, heads=2,
    kv_heads=1, threads=1,
)  # fmt: skip
TIMED = ("seconds_", "tokens_per_second")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started tiny model, trained once."""
    return tmp_path_factory.mktemp("cache")


def untimed(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in rows]


def started(settings: Settings, cache: Path) -> tuple[Run, Curriculum]:
    """A run before its first step, and what it will meet."""
    problems, held = task(settings)
    return prepare(settings, cache, problems, held), curriculum_of(settings, problems)


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "rollouts.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("estimator", ["ebpo", "grpo", "ebpo_debiased:memory=0.95"])
def test_advantages_are_those_of_the_projects_estimator(estimator: str, cache: Path, tmp_path: Path) -> None:
    """Guards "the same estimator": a fresh object fed the logged rewards says the logged advantages, bit for bit."""
    settings = replace(TINY, estimator=estimator, steps=3)
    found = train.train(settings, tmp_path, cache)
    rows = logged(tmp_path)
    fresh = make(estimator)
    state = fresh.init()
    for step in (1, 2, 3):
        mine = [row for row in rows if row["step"] == str(step)]
        rewards = np.array([float(row["reward"]) for row in mine]).reshape(8, 4)
        lengths = np.array([float(row["length"]) for row in mine]).reshape(8, 4)
        clusters = [row["cluster"] for row in mine[::4]]
        advantages, info, state = fresh.step(state, group_rewards(rewards, lengths=lengths, clusters=clusters))
        assert advantages.ravel().tolist() == [float(row["advantage"]) for row in mine]
        metrics = untimed(tmp_path)[step - 1]
        assert metrics["reward"] == rewards.mean()
        assert metrics["shrinkage"] == (None if info.shrinkage_P is None else pytest.approx(info.shrinkage_P.mean()))
        assert metrics["zero_signal"] == (advantages == 0).all(axis=1).mean()
        assert metrics["rows_trained"] == (advantages != 0).mean()
    method = started(settings, cache)[0].method
    assert checkpoints.load(tmp_path / "checkpoint.pt")["method"] == dump_state(method, State(state))
    assert 0 < found["reward"]["first"][0] < 1  # the run had something to learn from
    assert found["last"]["grad_norm"] > 0 and found["last"]["kl_step"] > 0
    assert found["last"]["validation_pass1"] is not None and found["last"]["validation_se"] > 0


KILLED = """
import os, signal, sys, pathlib
sys.path.insert(0, {root!r})
from llm import train
from llm.settings import Settings
whole = train.train_step
def step(run, problems, number):
    found = whole(run, problems, number)
    if number == 2:
        heavy = {{"numba", "ebpo_sim.counts.kernels", "ebpo_sim.chains.kernels"}} & set(sys.modules)
        pathlib.Path({out!r}, "heavy.txt").write_text(str(sorted(heavy)))
        os.kill(os.getpid(), signal.SIGKILL)
    return found
train.train_step = step
train.train(Settings(**{settings!r}), pathlib.Path({out!r}), pathlib.Path({cache!r}))
"""


@pytest.fixture(scope="module")
def killed_and_whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run killed in its third step, whose last checkpoint is the second's, then resumed; and the same run whole."""
    settings = replace(
        TINY, estimator="ebpo_debiased", order="easy_to_hard", prompts=6, kl_coef=0.01, updates=2, noise_parts=3
    )
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    train.train(settings, whole, cache)
    program = KILLED.format(root=str(ROOT), settings=settings.as_dict(), out=str(killed), cache=str(cache))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == -9, run.stderr
    assert len(untimed(killed)) == 2
    train.train(settings, killed, cache, resume=True)
    return killed, whole


def test_killed_and_resumed_is_the_uninterrupted_run(killed_and_whole: tuple[Path, Path]) -> None:
    """Guards resuming: weights, optimizer, estimator, logs and rollouts are the same to the last bit."""
    killed, whole = killed_and_whole
    a, b = (checkpoints.load(folder / "checkpoint.pt") for folder in (killed, whole))
    assert a["step"] == b["step"] == 4
    for part in ("model", "reference"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in b[part])
    for index, moments in b["optimizer"]["state"].items():
        assert all(torch.equal(a["optimizer"]["state"][index][name], value) for name, value in moments.items())
    assert (a["method"], a["rates"], a["start"]) == (b["method"], b["rates"], b["start"])
    assert untimed(killed) == untimed(whole)
    assert untimed(whole)[0]["noise_scale"] is None and untimed(whole)[3]["gradient_noise"] > 0
    assert (killed / "rollouts.csv").read_bytes() == (whole / "rollouts.csv").read_bytes()
    read = [json.loads((folder / "summary.json").read_text())["validation_pass1"] for folder in (killed, whole)]
    assert read[0] == read[1]


def test_settings_newer_than_a_checkpoint_have_their_default(
    killed_and_whole: tuple[Path, Path], tmp_path: Path
) -> None:
    """Guards resuming after an option was added: the checkpoint reads as if it had been written with its default."""
    content = checkpoints.load(killed_and_whole[1] / "checkpoint.pt")
    assert content["settings"].pop("noise_parts") == 3
    checkpoints.save(tmp_path / "old.pt", {name: content[name] for name in checkpoints.PARTS})
    assert checkpoints.load(tmp_path / "old.pt")["settings"]["noise_parts"] == 0


def test_training_loads_no_numba(killed_and_whole: tuple[Path, Path]) -> None:
    """Guards a light trainer: a process that has imported llm.train and trained has not imported numba."""
    assert (killed_and_whole[0] / "heavy.txt").read_text() == "[]"


def test_foreign_damaged_and_missing_checkpoints_are_refused(
    killed_and_whole: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    """Guards resuming: another setting, a cut file, lost logs and no file each say what is wrong and what to do."""
    whole = killed_and_whole[1]
    settings = Settings(**checkpoints.load(whole / "checkpoint.pt")["settings"])
    with pytest.raises(InputError, match=r"--estimator is 'grpo', the checkpoint was written with 'ebpo_debiased'"):
        train.train(replace(settings, estimator="grpo"), whole, cache, resume=True)
    with pytest.raises(InputError, match=r"--lr is 0.1"):
        train.train(replace(settings, lr=0.1), whole, cache, resume=True)
    with pytest.raises(InputError, match="does not exist"):
        train.train(settings, tmp_path, cache, resume=True)
    content = (whole / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        train.train(settings, tmp_path, cache, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match="restore the file"):
        train.train(settings, tmp_path, cache, resume=True)
    torch.save({"format": "other", "version": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="this code reads"):
        checkpoints.load(tmp_path / "checkpoint.pt")


def test_skipped_rows_leave_the_models_gradient_alone(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards exact skipping through the real model: one GRPO step with and without it gives the same gradient."""
    settings, gradients = replace(TINY, estimator="grpo", grad_clip=1e9), []
    for skip in (True, False):
        if not skip:
            monkeypatch.setattr(Loss, "needed_rows", lambda self, advantage: torch.arange(len(advantage)))
        run, batch = started(settings, cache)
        metrics, _ = train.train_step(run, batch, 0)
        assert (metrics["rows_trained"] < 1) == skip
        gradients.append(torch.cat([p.grad.flatten() for p in run.model.parameters()]))
    assert gradients[0].abs().max() > 1e-3
    assert (gradients[0] - gradients[1]).abs().max() < 1e-7


def test_a_batch_without_signal_has_a_zero_gradient(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the empty selection: all rewards equal, so GRPO computes no row, and nothing breaks."""
    run, batch = started(replace(TINY, estimator="grpo"), cache)
    monkeypatch.setattr(run.verifier, "scores", lambda texts, problems: [0.0] * len(texts))
    metrics, _ = train.train_step(run, batch, 0)
    assert (metrics["rows_trained"], metrics["grad_norm"], metrics["zero_signal"]) == (0.0, 0.0, 1.0)
    assert metrics["kl_step"] < 1e-9


def test_tensorboard_events(cache: Path, tmp_path: Path) -> None:
    """Guards the optional board: where it is installed, the events are the metrics of metrics.jsonl."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(replace(TINY, steps=3), tmp_path, cache)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rewards = [(event.step, event.value) for event in board.Scalars("reward")]
    assert rewards == [(row["step"], pytest.approx(row["reward"])) for row in untimed(tmp_path)]
    assert "validation_pass1" in board.Tags()["scalars"] and "sampler_gap" not in board.Tags()["scalars"]


@pytest.mark.parametrize("order", ORDERS)
def test_curriculum(order) -> None:
    """Guards the orders on this rung: the same batches again, no problem twice, easy first, topics together."""
    problems = pool("train", CELLS, 8, 0)
    rates = [1 - i % 97 / 97 for i in range(len(problems))]
    made = Curriculum(problems, 6, 2, 40, 0, Order(order), rates)
    batches = [made.batch(step) for step in range(40)]
    assert batches == [Curriculum(problems, 6, 2, 40, 0, Order(order), rates).batch(step) for step in range(40)]
    assert all(len({p.prompt for p in batch}) == 6 for batch in batches)
    if order not in ("uniform",):
        assert len({p.prompt for batch in batches for p in batch}) == 40 * 6 <= len(problems)
    rate = {p.prompt: r for p, r in zip(problems, rates, strict=True)}
    means = [sum(rate[p.prompt] for p in batch) for batch in batches]
    if order in BY_DIFFICULTY:
        assert sorted((means[0], means[20], means[39]), reverse=order == "easy_to_hard") == [
            means[i] for i in (0, 20, 39)
        ]
    mixed = [len({p.cell.topic for p in b}) for b in batches]
    topics = len({p.cell.topic for p in problems})
    if order in ("blocked", "alternating"):
        assert max(mixed) <= 3 and sum(n > 1 for n in mixed) <= topics
    with pytest.raises(InputError, match="--per-cell"):
        Curriculum(problems, 1000, 2, 40, 0, Order(order), rates)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--estimator", "grpoo"], "unknown estimator 'grpoo': did you mean 'grpo'"),
        (["--estimator", "oracle_bayes"], "needs true_prior"),
        (["--estimator", "ebpo:speed=2"], "unknown setting of ebpo"),
        (["--group-size", "0"], "--group-size must be at least 1"),
        (["--lr", "nan"], "--lr must be positive"),
        (["--prompts", "999999"], "--prompts must be between 1 and"),
        (["--topics", "division"], "unknown topic 'division'"),
        (["--clip-low", "1.5"], "clip low"),
        (["--hidden", "30"], "hidden 30"),
        (["--resume"], "does not exist"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards refusals: before any work, with the argument, the value and the remedy, and no file left behind."""
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["train.py", *argv, *folders])
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main)
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


def test_dynamic_sampling_and_unequal_groups(cache: Path, tmp_path: Path) -> None:
    """Guards selection and allocation on this rung: a batch without uniform groups, dropped answers logged with
    advantage 0; and groups of unequal size."""
    settings = replace(TINY, estimator="ebpo + alternating + dynamic:batches=4")
    train.train(settings, tmp_path / "whole", cache)
    rows = [r for r in logged(tmp_path / "whole") if r["step"] == "1"]
    assert len(rows) > 32 == 8 * 4
    groups = [rows[i : i + 4] for i in range(0, len(rows), 4)]
    mixed = [len({r["reward"] for r in group}) > 1 for group in groups]
    trained = [any(float(r["advantage"]) != 0 for r in group) for group in groups]
    assert trained == [m and sum(mixed[:i]) < 8 for i, m in enumerate(mixed)] and any(trained)
    assert untimed(tmp_path / "whole")[0]["rollouts"] == len(rows)
    problems, held = task(settings)
    run = prepare(settings, cache, problems, held)
    curriculum = curriculum_of(settings, problems, method=run.method)
    sizes = 1 + np.arange(8) % 3
    curriculum = replace(curriculum, allocation=Fixed(sizes))
    run.method = run.method._replace(selection=Everything())
    metrics, rows = train.train_step(run, curriculum, 0)
    assert metrics["rollouts"] == len(rows) == sizes.sum()
    assert [
        sum(r["prompt_id"] == p for r in rows) for p in dict.fromkeys(r["prompt_id"] for r in rows)
    ] == sizes.tolist()


def test_allocations_know_problems_by_their_ids(cache: Path) -> None:
    """Guards the pool of this rung: the memory finds those problems again that were answered, and no others, and sizes
    of what it has learnt are planned and weighed."""
    settings = replace(TINY, estimator="rloo + least_variance")
    problems, held = task(settings)
    run = prepare(settings, cache, problems, held)
    curriculum = curriculum_of(settings, problems, method=run.method)
    part: Any = run.method.allocation
    batch = answers(run, curriculum, 0)
    visits_P = part.of_pool(batch.state.allocation, curriculum.pool).visits_P
    assert curriculum.pool.ids is not None
    known = {i for i, visits in zip(curriculum.pool.ids, visits_P, strict=True) if visits}
    assert known == {p.id for p in batch.problems} and len(known) == 8
    plan = curriculum.plan(batch.state, 0)
    assert plan.size_P.sum() == 32 and plan.weight_P is not None
    np.testing.assert_allclose(plan.weight_P * plan.size_P, 4)


def test_estimators_are_given_the_samplers_score_norms(cache: Path) -> None:
    """Guards the need: W of every answer, in the order of the rewards, of all generation batches of a step."""
    run, curriculum = started(replace(TINY, estimator="grpo + dynamic:batches=3"), cache)
    run.method = run.method._replace(estimator=LESS_NORM)
    run.state = run.state._replace(estimator=LESS_NORM.init())
    batch = answers(run, curriculum, 0)
    assert len(batch.kept_N) == 8 * 4 < len(batch.problems)  # some were dropped, of several generation batches
    norm_N = batch.rolled.score_norm_N.double().numpy()
    assert norm_N.std() > 0.1
    kept = batch.kept_N.numpy()
    assert np.array_equal(batch.advantage_N[kept], (batch.reward_N - norm_N)[kept])


class Fixed(NoMemory):
    """Groups of the given sizes, of the first problems."""

    needs = frozenset({"prompt_choice"})

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = sizes

    def plan(self, state: object, pool: Pool, ask: Ask, draw: Draw) -> Plan:
        return Plan(np.arange(len(self.sizes)), self.sizes)
