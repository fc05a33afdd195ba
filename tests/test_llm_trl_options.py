"""`--trl name=value` of llm/train.py: what reaches TRL, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import needs

needs.require("trl")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError  # noqa: E402
from llm import backend_trl, train, trl_options  # noqa: E402
from trl_toy import NEWS  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(text) for text in NEWS]
DEFAULTS = {"log_completions": False, "top_p": 1.0, "top_k": 0, "vllm_mode": "colocate", "save_total_limit": None}
TINY = [
    "--backend=trl", "--steps=1", "--prompts=2", "--sft-steps=0", "--hidden=16", "--layers=1", "--heads=2",
    "--kv-heads=1", "--topics=count", "--max-level=3", "--per-cell=8", "--eval-per-cell=2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("log_completions=true", True), ("log_completions=False", False), ("top_p=1", 1), ("top_p=0.9", 0.9),
        ("save_total_limit=2", 2), ("save_total_limit=None", None), ("vllm_mode=server", "server"),
        ('save_total_limit={"a": [1, null]}', {"a": [1, None]}),
    ],
)  # fmt: skip
def test_values_are_read_as_json_or_literals(text: str, value: Any) -> None:
    name = text.partition("=")[0]
    found = trl_options.read([text], DEFAULTS, ())
    assert found == {name: value} and type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["top_p"], "NAME=VALUE"),
        (["top_p=1", "top_p=2"], "each name once"),
        (["topp=1"], "top_p"),
        (["no_such_thing_at_all=1"], "option of GRPOConfig"),
        (["log_completions=yes"], "must be of the kind bool"),
        (["log_completions=1"], "must be of the kind bool"),
        (["top_p=high"], "must be of the kind float"),
        (["top_k=0.5"], "must be of the kind int"),
        (["top_k=true"], "must be of the kind int"),
        (["vllm_mode=1"], "must be of the kind str"),
    ],
)
def test_other_options_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        trl_options.read(given, DEFAULTS, ())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trl", "beta=0.1"], "'beta' is decided by the options of llm/train.py"),
        (["--trl", "scale_rewards=none"], "'scale_rewards' is decided by"),
        (["--trl", "vllm_sleep_mode=true"], "vllm_enable_sleep_mode"),
        (["--trl", "logging_strategy=sometimes"], "TRL refuses these options: .*sometimes"),
        (["--trl", "top_p=0.9", "--backend", "own"], "needs --backend trl"),
    ],
)
def test_refusals_of_the_command(more: list[str], said: str, tmp_path: Path) -> None:
    """Guards what the adapter owns: nothing of it can be set twice, and TRL's own refusals are one line."""
    with pytest.raises(InputError, match=said):
        train.main([*TINY, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *more])


def test_an_option_reaches_trl_and_is_kept_by_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way through: GRPOConfig has it, over a default of ours too, and --resume asks for the same."""
    seen: list[Any] = []
    monkeypatch.setattr(
        backend_trl, "config_of", lambda asked, real=backend_trl.config_of: seen.append(real(asked)) or seen[-1]
    )
    asked = [*TINY, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    train.main([*asked, "--trl", "top_p=0.5", "--trl", "adam_beta2=0.95"])
    assert [(c.top_p, c.adam_beta2) for c in seen] == [(0.5, 0.95)] and (tmp_path / "out/checkpoint-1").is_dir()
    with pytest.raises(InputError, match=r"--trl is None, the checkpoint was written with \['adam_beta2=0.95"):
        train.main([*asked, "--resume"])
