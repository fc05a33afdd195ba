"""Files of `llm/`: no code runs because a file names it, no changed byte is read, nothing too large is begun."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

import torch  # noqa: E402

from ebpo_sim import InputError, cli, report  # noqa: E402
from llm import checkpoints, evaluate, train  # noqa: E402
from llm_runs import TINY, make_runs  # noqa: E402
from llm_toys import save_model  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_runs`."""
    return make_runs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder; its checkpoint.pt."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run/checkpoint.pt"


@pytest.mark.parametrize("kind", ["file", "module"])
def test_a_checkpoint_decides_no_code(
    kind: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards those who evaluate a download: its verifier runs when it is named again or trusted, else never."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    marker = tmp_path / "marker"
    Path("evil.py").write_text(f"open({str(marker)!r}, 'w')\ndef is_right(answer, gold):\n    return True\n")
    name = {"file": "evil.py:is_right", "module": "evil:is_right"}[kind]
    saved = {part: value for part, value in checkpoints.load(checkpoint).items() if part in checkpoints.PARTS}
    saved["settings"]["verifier"] = name
    checkpoints.save(checkpoint, saved)
    argv = [str(checkpoint), "--samples", "1", "--k", "1", "--per-cell", "2", "--out", "out"]
    with pytest.raises(InputError, match=f"name it again with --verifier {name}, or add --trust-checkpoint"):
        evaluate.main(argv)
    evaluate.main([*argv, "--verifier", "exact"])
    assert not marker.exists()
    evaluate.main([*argv, *(["--trust-checkpoint"] if kind == "file" else ["--verifier", name])])
    assert marker.exists()


@pytest.mark.parametrize("loaded_by", ["known", "unknown"])
def test_a_models_folder_decides_no_code(loaded_by: str, tmp_path: Path) -> None:
    """Guards --model: a folder whose config names its own classes runs none of them and asks nothing."""
    folder, marker = save_model(tmp_path / "model"), tmp_path / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}),
    ):
        found = json.loads((folder / name).read_text()) | {"auto_map": classes, "trust_remote_code": True}
        if loaded_by == "unknown" and name == "config.json":
            found["model_type"] = "evil"
        (folder / name).write_text(json.dumps(found))
    argv = [str(folder), "--samples", "1", "--k", "1", "--limit", "1", "--max-new", "2", "--verifier", "exact"]
    if loaded_by == "unknown":
        with pytest.raises(InputError, match="cannot be read"):
            evaluate.main([*argv, "--out", str(tmp_path / "out")])
    else:
        evaluate.main([*argv, "--out", str(tmp_path / "out")])
    assert not marker.exists()
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(found | {"model_type": "llama", "attn_implementation": "evil/kernel"})
    )
    with pytest.raises(InputError, match="names an implementation"):
        evaluate.main([*argv, "--out", str(tmp_path / "out")])


@given(data=st.data())
def test_no_flipped_bit_is_read(made: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Guards checkpoints: whatever bit is flipped, wherever, the file is refused."""
    whole = bytearray((made / "run/checkpoint.pt").read_bytes())
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    path = tmp_path_factory.mktemp("flip") / "checkpoint.pt"
    path.write_bytes(whole)
    with pytest.raises(InputError, match="checkpoint"):
        checkpoints.load(path)


def moments(saved: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = saved["optimizer"]["state"][0]
    return found


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "negative step": lambda s: s.update(step=-3),
    "text for a step": lambda s: s.update(step="2"),
    "step of a longer run": lambda s: s.update(step=99),
    "true for a step": lambda s: s.update(step=True),
    "no weights": lambda s: s.update(model={}),
    "NaN weights": lambda s: next(iter(s["model"].values())).fill_(float("nan")),
    "other weights": lambda s: s.update(model={k: v[:1] for k, v in s["model"].items()}),
    "infinite reference": lambda s: next(iter(s["reference"].values())).fill_(float("inf")),
    "no reference": lambda s: s.update(reference=None),
    "optimizer of no weights": lambda s: s["optimizer"].update(state={}),
    "optimizer of another shape": lambda s: moments(s).update(exp_avg=torch.zeros(3)),
    "negative squares": lambda s: moments(s)["exp_avg_sq"].fill_(-1.0),
    "other decay": lambda s: s["optimizer"]["param_groups"][0].update(weight_decay=9.0),
    "groups lost": lambda s: s["optimizer"].update(param_groups=[]),
    "method": lambda s: s.update(method="{}"),
    "rates": lambda s: s.update(rates=[0.0, 1.0]),
    "start short": lambda s: s.update(start=s["start"][:-1]),
    "start NaN": lambda s: s.update(start=[float("nan")] * len(s["start"])),
    "log lengths lost": lambda s: s["log_bytes"].pop("metrics.csv"),
    "negative log length": lambda s: s["log_bytes"].update({"rollouts.csv": -1}),
    "log length inside a line": lambda s: s["log_bytes"].update({"metrics.jsonl": 10}),
    "settings": lambda s: s.update(settings=[1]),
    "setting of another type": lambda s: s["settings"].update(hidden="16"),
    "unknown setting": lambda s: s["settings"].update(speed=1),
    "record": lambda s: s["split"].update(trained=["x"]),
    "record of other problems": lambda s: s["split"].update(trained=["0" * 16]),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_impossible_checkpoints_are_refused(how: str, made: Path, checkpoint: Path) -> None:
    """Guards resuming: a sealed checkpoint that no run can have written is one line, and no log is touched."""
    saved = {part: value for part, value in checkpoints.load(checkpoint).items() if part in checkpoints.PARTS}
    HOSTILE[how](saved)
    checkpoints.save(checkpoint, saved)
    logs = {path: path.read_bytes() for path in checkpoint.parent.iterdir() if path.is_file()}
    with pytest.raises(InputError) as refused:
        train.train(TINY, checkpoint.parent, made / "cache", resume=True)
    assert "\n" not in str(refused.value)
    assert logs == {path: path.read_bytes() for path in logs}


@pytest.mark.parametrize("line", ["{", "[]", '{"step": 1}', "null", "[" * 10**5, '{"step": 1e999}', "\udcff"])
def test_garbled_logs_are_refused(line: str, made: Path, checkpoint: Path) -> None:
    """Guards resuming: metrics that cannot be read are one line before anything is cut."""
    log = checkpoint.parent / "metrics.jsonl"
    whole = log.read_bytes()
    said = line.encode(errors="surrogateescape")[: len(whole) - 1]
    log.write_bytes(said + b"\n" + whole[len(said) + 1 :])
    with pytest.raises(InputError, match="is damaged"):
        train.train(TINY, checkpoint.parent, made / "cache", resume=True)


def test_what_decides_no_number_may_change_on_resume(made: Path, checkpoint: Path) -> None:
    """Guards prolonged logging: other intervals resume to the same weights; what decides numbers is refused."""
    before = checkpoints.load(checkpoint)["model"]
    out = checkpoint.parent
    train.train(replace(TINY, eval_every=1, show_every=1, checkpoint_every=2), out, made / "cache", resume=True)
    assert all(torch.equal(value, before[name]) for name, value in checkpoints.load(checkpoint)["model"].items())
    for change in ({"steps": 3}, {"seed": 1}, {"lr": 1e-3}, {"eval_samples": 3}):
        with pytest.raises(InputError, match=f"--{next(iter(change)).replace('_', '-')} is"):
            train.train(replace(TINY, **change), out, made / "cache", resume=True)
    old, new = TINY.as_dict() | {"device": "cuda:0"}, TINY.as_dict() | {"device": "cuda:1", "threads": 8}
    checkpoints.check_settings(old, new)
    with pytest.raises(InputError, match="--threads is 8"):
        checkpoints.check_settings(TINY.as_dict(), TINY.as_dict() | {"threads": 8})
    with pytest.raises(InputError, match="--device is 'cpu'"):
        checkpoints.check_settings(old, TINY.as_dict())


def test_not_a_number_weights_of_a_model_are_refused(tmp_path: Path) -> None:
    """Guards --model: weights that are not finite end in one line, not in the sampler."""
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(InputError, match="not finite"):
        evaluate.main([str(folder), "--samples", "1", "--k", "1", "--out", str(tmp_path / "out")])


def refusal(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error with which llm/train.py refuses."""
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--threads", "1000000"], "--threads must be at most"),
        (["--hidden", str(8 * 10**7)], "lower --hidden or --layers"),
        (["--layers", "1000000000"], "lower --hidden or --layers"),
        (["--group-size", "1000000000000"], "--group-size"),
        (["--preset", "paper"], "--preset paper needs --backend trl"),
        (["--order", "topic", "--prompts", "50000"], "lower it"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_made(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards memory: sizes are estimated from the settings alone."""
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert said in refusal([*argv, *folders], monkeypatch, capsys)
    assert list(tmp_path.iterdir()) == []


def test_one_run_a_folder(
    made: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards logs: a second run in the same folder, training or evaluation, is refused while the first holds it."""
    with report.locked(checkpoint.parent):
        for backend in ("own", "trl"):
            argv = ["--out", str(checkpoint.parent), "--cache", str(made / "cache"), "--backend", backend]
            assert "is in use by another run" in refusal(argv, monkeypatch, capsys)
        with pytest.raises(InputError, match="is in use by another run"):
            evaluate.main([str(checkpoint), "--out", str(checkpoint.parent)])
    evaluate.main([str(checkpoint), "--samples", "1", "--per-cell", "1", "--out", str(checkpoint.parent)])
