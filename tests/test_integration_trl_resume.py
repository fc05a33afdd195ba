"""`ebpo_sim.integrations.trl`: what checkpoints hold, resuming from them, and the ones that are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from needs import require

require("trl")

import torch  # noqa: E402
from transformers import TrainingArguments  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from ebpo_sim import InputError  # noqa: E402
from ebpo_sim.estimators import dump_state  # noqa: E402
from ebpo_sim.integrations.shared import STATE_FILE  # noqa: E402
from trl_toy import NEWS, Graded, Remembering, seen, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]
SAVED: dict[str, Any] = {"save_strategy": "steps", "estimator": "ebpo_debiased:memory=0.9"}
RHYTHMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
    "sliced and reused": {"steps_per_generation": 2, "num_iterations": 2, "save_steps": 8},
    "a share of the run": {"steps_per_generation": 2, "save_steps": 0.5},
}


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_a_resumed_run_is_the_uninterrupted_one(rhythm: str, tmp_path: Path) -> None:
    """Guards resuming after half of 20 steps: state, rewards, advantages and weights are the same to the last bit."""
    changes = {**SAVED, "rows": 100, "max_steps": 20, "save_steps": 10, **RHYTHMS[rhythm]}
    whole = trainer(tmp_path / "whole", **changes)
    whole.train()
    half = sorted(path.name for path in (tmp_path / "whole").glob("checkpoint-*"))[0]
    shutil.copytree(tmp_path / "whole" / half, tmp_path / "half" / half)
    resumed = trainer(tmp_path / "half", **changes)
    resumed.train(resume_from_checkpoint=True)  # the last checkpoint of its own folder
    found, expected = seen(resumed), seen(whole)
    late = len(found["batches"])
    assert 0 < late < len(expected["batches"])
    assert found["calls"] == expected["calls"][-late:]
    assert [b["advantages"] for b in found["batches"]] == [b["advantages"] for b in expected["batches"][-late:]]
    assert found["state"] == expected["state"] == (tmp_path / "half" / "checkpoint-20" / STATE_FILE).read_text()
    assert found["weights"] == expected["weights"]


def test_trl_forgets_its_shuffle_in_a_later_epoch(tmp_path: Path) -> None:
    """Guards a limit that is TRL's own, without us too: resumed in a later epoch it repeats the first's order."""
    orders = {}
    for kind in (GRPOTrainer, Remembering):
        changes = {"rows": 16, "max_steps": 7, "save_steps": 5, "save_strategy": "steps", "kind": kind}
        for resume in (None, str(tmp_path / kind.__name__ / "checkpoint-5")):
            made = trainer(tmp_path / kind.__name__, **changes)
            made.train(resume_from_checkpoint=resume)
            orders[kind, resume is None] = [call["number"] for call in made.reward_funcs[0].calls]
    for kind in (GRPOTrainer, Remembering):
        whole, resumed = orders[kind, True], orders[kind, False]
        assert resumed == whole[1:3] != whole[5:7]  # 4 steps an epoch: the second step of the first comes again


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints after 2, 4 and 5 steps, the last inside a generation buffer of 2."""
    folder = tmp_path_factory.mktemp("saved")
    trainer(folder, max_steps=5, save_steps=2, steps_per_generation=2, **SAVED).train()
    return folder


@pytest.mark.parametrize("spelt", [str, Path])
def test_resuming_by_path(spelt: Any, saved: Path, tmp_path: Path) -> None:
    """Guards the other spellings of resume_from_checkpoint: the state read is the one that was written."""
    made = trainer(tmp_path, max_steps=4, save_steps=2, steps_per_generation=2, **SAVED)
    made.train(resume_from_checkpoint=spelt(saved / "checkpoint-2"))
    assert len(made.batches) == 1
    assert dump_state(made.estimator, made.estimator_state) == (saved / "checkpoint-4" / STATE_FILE).read_text()


@pytest.mark.parametrize(
    ("step", "file", "changes", "said"),
    [
        (2, None, {}, "ebpo_state.json' is missing: resume from a checkpoint that was written with this adapter"),
        (2, "{}", {}, "estimator state is damaged"),
        (2, "", {"estimator": "ebpo"}, "belongs to 'ebpo_debiased:memory=0.9'.* not to 'ebpo'"),
        (2, "", {"estimator": "ebpo_debiased:memory=0.8"}, "resume with the settings it was saved with"),
        (5, "", {}, "checkpoint-5' lies inside a generation buffer: resume from an earlier checkpoint"),
    ],
)
def test_resuming_is_refused(
    step: int, file: str | None, changes: dict[str, Any], said: str, saved: Path, tmp_path: Path
) -> None:
    """Guards the statistics: no restart without them, with another estimator's, or where groups would count twice."""
    checkpoint = tmp_path / f"checkpoint-{step}"
    shutil.copytree(saved / checkpoint.name, checkpoint)
    if file is None:
        (checkpoint / STATE_FILE).unlink()
    elif file:
        (checkpoint / STATE_FILE).write_text(file)
    made = trainer(tmp_path, max_steps=6, save_steps=2, steps_per_generation=2, **{**SAVED, **changes})
    state = made.estimator_state
    with pytest.raises(InputError, match=said):
        made.train(resume_from_checkpoint=str(checkpoint))
    assert made.estimator_state is state and made.batches == []


def test_checkpoints_of_the_model_alone_hold_the_state(tmp_path: Path) -> None:
    """Guards save_only_model: TRL resumes such a checkpoint with a new optimizer, and the estimator with its state."""
    changes = {"save_only_model": True, "save_strategy": "steps", "save_steps": 2, "estimator": "ebpo"}
    made = trainer(tmp_path, max_steps=2, **changes)
    made.train()
    assert not (tmp_path / "checkpoint-2" / "optimizer.pt").exists()
    assert (tmp_path / "checkpoint-2" / STATE_FILE).read_text() == dump_state(made.estimator, made.estimator_state)
    again = trainer(tmp_path, max_steps=4, **changes)
    again.train(resume_from_checkpoint=True)
    assert len(again.batches) == 2
    assert again.estimator_state[0][""].means.n == 16  # four prompts a step


def test_a_push_to_the_hub_finds_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the order: the state is in the checkpoint's folder before the parent uploads that folder."""
    made, found = trainer(tmp_path, save_steps=1, max_steps=1, **SAVED), []
    made.args.push_to_hub = True
    monkeypatch.setattr(made, "_push_from_checkpoint", lambda folder: found.extend(os.listdir(folder)))
    made.train()
    assert {STATE_FILE, "model.safetensors", "trainer_state.json"} <= set(found)


def test_only_the_saving_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards shared folders: a process that does not save writes no state."""
    made = trainer(tmp_path, save_steps=1, max_steps=1, **SAVED)
    monkeypatch.setattr(TrainingArguments, "should_save", property(lambda self: False))
    made.train()
    assert list(tmp_path.rglob(STATE_FILE)) == []


def test_the_best_checkpoint_and_the_end_of_an_epoch_hold_the_state(tmp_path: Path) -> None:
    """Guards the other strategies: whichever decides to save, the folder holds the state."""
    epochs = trainer(
        tmp_path / "epoch", rows=16, max_steps=-1, num_train_epochs=2, steps_per_generation=2,
        save_strategy="epoch", estimator="ebpo",
    )  # fmt: skip
    epochs.train()
    assert [p.name for p in sorted((tmp_path / "epoch").glob("*/" + STATE_FILE))] == [STATE_FILE] * 2
    best = trainer(
        tmp_path / "best", Graded(), max_steps=2, save_strategy="best", metric_for_best_model="reward",
        eval_strategy="steps", eval_steps=2, estimator="ebpo",
    )  # fmt: skip
    best.train()
    assert (tmp_path / "best" / "checkpoint-2" / STATE_FILE).is_file()


BEST = {"save_strategy": "best", "metric_for_best_model": "reward", "eval_strategy": "steps"}


@pytest.mark.parametrize(
    ("micro", "slices", "reuse", "changes", "refused"),
    [
        (1, 2, 1, {"save_steps": 1}, True),
        (1, 2, 1, {"save_steps": 3}, True),
        (1, 2, 1, {"save_steps": 4}, False),
        (1, 2, 1, {"save_strategy": "no"}, False),
        (1, 2, 1, {"save_strategy": "epoch"}, False),
        (1, 2, 1, {**BEST, "eval_steps": 1}, True),
        (1, 2, 1, {**BEST, "eval_steps": 2}, False),
        (1, 2, 1, {**BEST, "eval_strategy": "epoch"}, False),
        (1, 2, 1, {"save_steps": 0.25, "max_steps": 12}, True),  # every 3 steps
        (1, 2, 1, {"save_steps": 0.25, "max_steps": 16}, False),  # every 4
        (1, 2, 1, {"save_steps": 0.5, "max_steps": -1}, True),  # unknown before the run
        (2, 4, 2, {"save_steps": 2}, True),
        (2, 4, 2, {"save_steps": 4}, False),
        (4, 2, 1, {"save_steps": 1}, False),
        (3, 2, 1, {"save_steps": 2}, True),  # an epoch's last step is a short one, and the rhythm is lost
        (3, 2, 1, {"save_strategy": "epoch"}, True),
    ],
)
def test_checkpoints_inside_a_generation_buffer(
    micro: int, slices: int, reuse: int, changes: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    """Guards against a resume that samples a buffer's prompts again: refused before training, and only then."""
    rhythm = {"gradient_accumulation_steps": micro, "steps_per_generation": slices, "num_iterations": reuse}
    if not refused:
        trainer(tmp_path, **rhythm, **{"save_strategy": "steps", **changes})
        return
    with pytest.raises(InputError, match="must keep checkpoints out of generation buffers"):
        trainer(tmp_path, **rhythm, **{"save_strategy": "steps", **changes})


def test_without_the_refusal_groups_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the reason for it: TRL alone, resumed inside a buffer, samples the same prompts again."""
    changes = {
        "max_steps": 4,
        "save_steps": 1,
        "steps_per_generation": 4,
        "save_strategy": "steps",
        "estimator": "ebpo",
    }
    monkeypatch.setattr("ebpo_sim.integrations.trl.EBPOTrainer._inside_buffer", lambda self, step: False)
    whole = trainer(tmp_path, **changes)
    whole.train()
    resumed = trainer(tmp_path, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert whole.estimator_state[0][""].means.n == 16
    assert resumed.estimator_state[0][""].means.n == 32
    assert resumed.reward_funcs[0].calls[0]["number"] == whole.reward_funcs[0].calls[0]["number"]
    assert torch.is_tensor(resumed._buffered_inputs[0]["advantages"])
