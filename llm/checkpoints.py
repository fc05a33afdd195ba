"""Checkpoints: whole or absent, complete, and refused when they do not belong to the run.

Every random draw of a run comes from a generator seeded by (seed, step, purpose), so no generator's state has to be
kept; what is kept is the step, the weights, the optimizer, the estimator's state, the curriculum's ranking, the
settings, and how long the logs were.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm.hub import merged_weights
from llm.tasks.tokenizer import CharTokenizer, Tokenizer

FORMAT, VERSION = "ebpo llm checkpoint", 2
PARTS = ("step", "settings", "model", "reference", "optimizer", "estimator", "ranking", "start", "log_bytes")


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write all PARTS to a temporary file, then rename: a reader never sees half a checkpoint."""
    assert set(content) == set(PARTS), f"a checkpoint has exactly {PARTS}"
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **content}, buffer)
    report.write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote. Raises InputError for a missing, damaged or foreign file."""
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist: name one, or start without --resume")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        written = content["format"], content["version"]
    except Exception as error:  # a truncated archive shows as one of many exceptions
        raise InputError(
            f"checkpoint {str(path)!r} is damaged ({type(error).__name__}): restore an intact one or start again"
        ) from error
    if written != (FORMAT, VERSION) or not set(PARTS) <= set(content):
        raise InputError(f"checkpoint {str(path)!r} is {written}, this code reads {(FORMAT, VERSION)}: start again")
    return content


def weights_of(model: Any) -> dict[str, Any]:
    """The weights that training changes: all of them, or with LoRA those of the adapters."""
    if all(p.requires_grad for p in model.parameters()):
        return model.state_dict()
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def put_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Inverse of `weights_of`. Raises InputError where names or shapes do not fit the model."""
    whole = {name for name, p in model.named_parameters() if p.requires_grad}
    if not whole <= set(weights):
        raise InputError(
            f"the checkpoint has no weights for {sorted(whole - set(weights))[0]!r}: another --model wrote it"
        )
    try:
        model.load_state_dict(weights, strict=len(whole) == len(list(model.parameters())))
    except RuntimeError as error:
        raise InputError(
            f"the checkpoint's weights do not fit the model: {str(error).splitlines()[-1].strip()}"
        ) from error


def export(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """Write the model (LoRA: adapters added) and its tokenizer as a folder for transformers, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.save_pretrained(made, state_dict=dict(merged_weights(model)))
        wrapped = tokenizer.hugging_face() if isinstance(tokenizer, CharTokenizer) else tokenizer.wrapped
        wrapped.save_pretrained(made)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def check_export(folder: Path, model: str) -> None:
    """Raises InputError where an export would replace the model it started from, or a folder that holds no model."""
    if folder.exists() and Path(model).exists() and folder.samefile(model):
        raise InputError(f"--export would replace --model {model!r}: name another --out")
    if folder.exists() and not (folder / "config.json").exists():
        raise InputError(f"--export would replace {str(folder)!r}, which holds no model: name another --out")


def check_settings(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises InputError for the first setting in which a run differs from the checkpoint it wants to resume."""
    for name in sorted(set(saved) | set(given)):
        if saved.get(name) != given.get(name):
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} is {given.get(name)!r}, the checkpoint was written with {saved.get(name)!r}: "
                f"resume with {option} {saved.get(name)}, or start a new run with another --out"
            )
