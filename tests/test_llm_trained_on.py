"""What a policy was trained on: known in every file and export; and README's commands, which fit small data sets."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pages

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError  # noqa: E402
from llm import checkpoints, evaluate, train, trained_on  # noqa: E402
from llm.problems import endings  # noqa: E402
from llm.settings import Settings  # noqa: E402
from llm.tasks import CELLS, pool  # noqa: E402
from llm.tasks.splits import content, key_of, split_of  # noqa: E402
from llm_runs import TINY, make_runs  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_runs`."""
    return make_runs(tmp_path_factory.mktemp("made"))


def scored(folder: Path) -> set[str]:
    with (folder / "rollouts.csv").open() as file:
        return {row["prompt_id"] for row in csv.DictReader(file)}


def respelled(made: Path, tmp_path: Path, how: str) -> str:
    """The path of the training file, or of another file with its problems."""
    file = made / "problems.jsonl"
    if how == "relative":
        return os.path.relpath(file)
    if how == "dotted":
        return f"./{os.path.relpath(file)}"
    if how == "symlink":
        (tmp_path / "link.jsonl").symlink_to(file)
        return str(tmp_path / "link.jsonl")
    other = tmp_path / "other.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if how == "mixed":  # other rows among them, other columns, white space
        rows = [{"problem": f"  {row['prompt']}\n", "answer": "2"} for row in rows[::-1]]
        rows += [{"problem": f"new {i}", "answer": "1"} for i in range(3)]
    other.write_text("\n".join(map(json.dumps, rows)))
    return str(other)


@pytest.mark.parametrize("target", ["checkpoint.pt", "model"])
@pytest.mark.parametrize("how", ["absolute", "relative", "dotted", "symlink", "copied", "mixed"])
def test_no_training_problem_is_evaluated(
    target: str, how: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards held-out scores: whatever the data set is called, of a checkpoint and of an export that was moved."""
    file = str(made / "problems.jsonl") if how == "absolute" else respelled(made, tmp_path, how)
    policy = made / "named" / target
    if target == "model":
        policy = Path(shutil.copytree(policy, tmp_path / "renamed"))
    argv = [str(policy), "--dataset", file, "--samples", "1", "--k", "1", "--max-new", "2", "--verifier", "exact"]
    argv += ["--out", str(tmp_path / "out")]
    evaluate.main(argv)
    left, whole = scored(tmp_path / "out"), 63 if how == "mixed" else 60
    seen = {f"q{i}" for i in range(60) if split_of(f"q{i}") != "heldout"}
    names = {"mixed": lambda i: f"q{59 - i}" if i < 60 else "new"}.get(how, lambda i: f"q{i}")
    asked = {names(int(name.rpartition(":")[2])) for name in left}
    assert len(seen) > 40 and asked and not asked & seen and ("new" in asked) == (how == "mixed")
    assert f"left out {whole - len(left)} of {whole} problems" in capsys.readouterr().out
    evaluate.main([*argv, "--split", "all"])
    assert len(scored(tmp_path / "out")) == whole
    with pytest.raises(InputError, match="no problem of the heldout split is left of 1"):
        (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": min(seen), "answer": "1"}))
        evaluate.main([*argv, "--dataset", str(tmp_path / "one.jsonl")])


def test_a_base_brings_what_it_was_trained_on(made: Path, tmp_path: Path) -> None:
    """Guards training in two stages: the second export remembers both, and its validation leaves the first's out."""
    first = trained_on.read(str(made / "named/model"))
    assert first is not None and first.trained and first.validated
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"prompt": f"r{i}", "answer": "1"}) for i in range(40)))
    settings = Settings(model=str(made / "named/model"), dataset=str(other), validation=str(made / "problems.jsonl"))
    found = train.task(settings)
    assert found.validation and not {key_of(p.prompt, endings(settings)) for p in found.validation} & first.trained
    both = train.record_of(settings, found)
    assert both.trained == first.trained | {key_of(f"r{i}") for i in range(40)} and both.validated == first.validated


def test_the_generated_task_in_a_file(made: Path, tmp_path: Path) -> None:
    """Guards the generated task: its training prompts are known in any file; of its own splits heldout is untouched."""
    record = trained_on.read(str(made / "run/model"))
    assert record is not None and record == trained_on.of_dict(
        checkpoints.load(made / "run/checkpoint.pt")["split"], "checkpoint"
    )
    assert {record.split_of(p.prompt) for p in pool("train", CELLS, 5, 7)} == {"train"}
    assert {record.split_of(p.prompt) for p in pool("heldout", CELLS, 5, 7)} == {"heldout"}
    assert record.split_of("what is 12+7?") == "heldout"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("+*"))
def test_twins_are_one_problem(a: int, b: int, sign: str) -> None:
    """Guards splits: 12+7= and 7+12= go together; 12-7= stays itself."""
    assert key_of(f"{a}{sign}{b}=") == key_of(f"{b}{sign}{a}=")
    assert (key_of(f"{a}-{b}=") == key_of(f"{b}-{a}=")) == (a == b)


@given(st.text(min_size=1), st.sampled_from(["", "Think.", "Put it in a box."]), st.text(" \n\t", max_size=3))
def test_white_space_and_instructions_change_no_problem(text: str, ending: str, space: str) -> None:
    """Guards keys: what a run adds to a prompt leaves it the same problem."""
    if text.split():
        assert key_of(f"{space}{text}{space}\n{ending}", ["Think.", "Put it in a box."]) == key_of(
            text, ["Think.", "Put it in a box."]
        )
        assert content(content(text)) == content(text)


def readme_commands() -> list[list[str]]:
    """The arguments of every llm/train.py and llm/evaluate.py command of README, as typed."""
    lines = dict.fromkeys((pages.page() + pages.page("llm")).splitlines())
    typed = [
        line.split("#")[0].split("`")[0].strip()
        for line in lines
        if "llm/train.py" in line or "llm/evaluate.py" in line
    ]
    return [line.split() for line in typed if line.startswith((".venv/bin/", "python llm"))]


@pytest.mark.filterwarnings("ignore:.*is_activation_checkpointing:FutureWarning")  # peft 0.21 asks transformers so
def test_the_readme_commands_are_read_and_fit(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards README: each command's arguments go through the real parser and all checks before the first step."""
    pytest.importorskip("peft")
    commands = readme_commands()
    assert len(commands) >= 4
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "run", "results/llm/train")
    shutil.copy(made / "problems.jsonl", "problems.jsonl")
    Path("checks.py").write_text("def is_right(answer, gold):\n    return True\n")
    model = str(made / "base")
    prepared = []
    for command in commands:
        program = next(i for i, word in enumerate(command) if word in ("llm/train.py", "llm/evaluate.py"))
        argv = [model if word in ("FOLDER_OR_NAME", "...") else word for word in command[program + 1 :]]
        if command[program] == "llm/evaluate.py":
            evaluate.main([*argv, "--samples", "1", "--per-cell", "1"])
            continue
        settings, given_ = train.parse(argv, "")
        if settings.model.startswith("Qwen/"):  # needs eight GPUs
            assert given_.backend == "trl"
            continue
        settings = replace(settings, device="cpu", max_new=8)
        problems = train.task(settings)
        fitted = train.fitted(settings, problems.train)
        run = train.prepare(fitted, tmp_path / "cache", *problems)
        run.verifier.close()
        train.curriculum_of(fitted, problems.train).batch(0)
        prepared.append(settings.dataset)
    assert prepared == ["sample", "problems.jsonl"]


def test_the_second_readme_command_trains(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the first run on a model of one's own: forty problems are enough, and the batch that fits is said."""
    argv = [
        "--model",
        str(made / "base"),
        "--dataset",
        "sample",
        "--steps",
        "1",
        "--max-new",
        "2",
        "--verifier",
        "exact",
    ]
    train.main([*argv, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--eval-samples", "1"])
    said = capsys.readouterr().out
    assert "a batch is drawn from" in said
    with pytest.raises(InputError, match=r"--prompts must be between 1 and \d+, .*: lower it"):
        train.main([*argv, "--prompts", "64", "--out", str(tmp_path / "other")])


def test_topic_order_of_one_topic_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards --order topic: on a data set without topics it is shuffled order, and that is said."""
    problems = train.task(TINY).train
    train.fitted(replace(TINY, order="topic"), problems)
    assert "so this order is shuffled" in capsys.readouterr().out
