"""Checkpoints: whole or absent, complete, and refused when they do not belong to the run.

Every random draw of a run comes from a generator seeded by (seed, step, purpose), so no generator's state has to be
kept; what is kept is the step, the weights, the optimizer, the method's memories, pass rates that an order needs, the
settings, and how long the logs were.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebpo_sim import report
from ebpo_sim.cli import spelling
from ebpo_sim.errors import InputError
from llm import trained_on
from llm.hub import merged_weights
from llm.logs import FILES
from llm.settings import Settings
from llm.tasks.tokenizer import Tokenizer
from llm.trained_on import TrainedOn

FORMAT, VERSION = "ebpo llm checkpoint", 4
SEAL = b"\nebpo sha256 "  # stands behind the archive, which torch reads all the same; 64 digits follow


def _count(x: Any) -> bool:
    return type(x) is int and 0 <= x < 2**62


def _weights(x: Any) -> bool:
    named = isinstance(x, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in x.items())
    return named and all(bool(torch.isfinite(v).all()) for v in x.values())


def _optimizer(x: Any) -> bool:
    return isinstance(x, dict) and isinstance(x.get("state"), dict) and isinstance(x.get("param_groups"), list)


def _numbers(x: Any) -> bool:
    return isinstance(x, list) and all(type(v) is float and abs(v) < float("inf") for v in x)


def _holds(test: Callable[[Any], bool], x: Any) -> bool:
    try:
        return test(x)
    except Exception:  # tensors of kinds that no test knows
        return False


PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {  # what a checkpoint holds: a test, and what it asks
    "step": (lambda x: _count(x) and x >= 1, "a whole number of at least 1"),
    "settings": (lambda x: isinstance(x, dict) and all(isinstance(k, str) for k in x), "names with values"),
    "model": (_weights, "finite tensors by name"),
    "reference": (lambda x: x is None or _weights(x), "finite tensors by name, or nothing"),
    "optimizer": (_optimizer, "state and param_groups"),
    "method": (lambda x: isinstance(x, str), "text"),
    "rates": (lambda x: x is None or _numbers(x), "a finite number a training problem, or nothing"),
    "start": (_numbers, "a finite number a validation problem"),
    "log_bytes": (
        lambda x: isinstance(x, dict) and set(x) == set(FILES) and all(map(_count, x.values())),
        f"the lengths of {', '.join(FILES)}",
    ),
    "split": (lambda x: isinstance(x, dict), "a record of the problems trained on"),
}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write all PARTS and their SHA-256 to a temporary file, then rename: a reader never sees half a checkpoint."""
    assert set(content) == set(PARTS), f"a checkpoint has exactly {set(PARTS)}"
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **content}, buffer)
    buffer.write(SEAL + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    report.write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, read without running anything in it.

    Raises InputError for a missing, foreign or older file, for one in which as much as a bit was changed, and for
    parts that no run can have written.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist: name one, or start without --resume")
    remedy = "restore an intact one or start again"
    whole = path.read_bytes()
    sealed = len(whole) - len(SEAL) - 64
    try:
        content = torch.load(io.BytesIO(whole), weights_only=True, map_location="cpu")
        written = content["format"], content["version"]
    except Exception as error:  # a truncated archive shows as one of many exceptions
        raise InputError(f"checkpoint {str(path)!r} is damaged ({type(error).__name__}): {remedy}") from error
    if written != (FORMAT, VERSION):
        raise InputError(f"checkpoint {str(path)!r} is {written}, this code reads {(FORMAT, VERSION)}: start again")
    if whole[max(0, sealed) :] != SEAL + hashlib.sha256(memoryview(whole)[: max(0, sealed)]).hexdigest().encode():
        raise InputError(f"checkpoint {str(path)!r} is damaged (its checksum is another): {remedy}")
    for name, (test, asked) in PARTS.items():
        if name not in content or not _holds(test, content[name]):
            raise InputError(f"checkpoint {str(path)!r}: {name!r} must be {asked}: {remedy}")
    content["settings"] = Settings.of(content["settings"], f"checkpoint {str(path)!r}").as_dict()  # newer ones too
    trained_on.of_dict(content["split"], f"checkpoint {str(path)!r}")
    checked: dict[str, Any] = content
    return checked


def weights_of(model: Any) -> dict[str, Any]:
    """The weights that training changes: all of them, or with LoRA those of the adapters."""
    if all(p.requires_grad for p in model.parameters()):
        whole: dict[str, Any] = model.state_dict()
        return whole
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def put_weights(model: Any, weights: Mapping[str, Any], every: bool = False) -> None:
    """Inverse of `weights_of`; every: of a model that is whole although it is not trained.

    Raises InputError where names or shapes do not fit the model.
    """
    whole = {name for name, p in model.named_parameters() if every or p.requires_grad}
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


def put_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Its moments and their counts. Raises InputError where they are not of this optimizer over these weights."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    shapes = {i: {"step": torch.Size(), "exp_avg": w.shape, "exp_avg_sq": w.shape} for i, w in enumerate(weights)}
    groups, state = [_without_rate(g) for g in saved["param_groups"]], saved["state"]
    if (
        groups != [_without_rate(g) for g in optimizer.state_dict()["param_groups"]]
        or not all(isinstance(moments, dict) and _weights(moments) for moments in state.values())
        or {i: {name: x.shape for name, x in moments.items()} for i, moments in state.items()} != shapes
        or not all(x.is_floating_point() for moments in state.values() for x in moments.values())
        or any(float(moments[name].min()) < 0 for moments in state.values() for name in ("step", "exp_avg_sq"))
    ):
        raise InputError("the checkpoint's optimizer is not the one of this run: restore an intact one or start again")
    optimizer.load_state_dict(dict(saved))


def _without_rate(group: Any) -> Any:
    return {k: v for k, v in group.items() if k != "lr"} if isinstance(group, dict) else None


def export(folder: Path, model: Any, tokenizer: Tokenizer, record: TrainedOn | None = None) -> None:
    """Write the model (LoRA: adapters added), its tokenizer and what it was trained on, whole or not at all.

    The folder is one that transformers reads.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.save_pretrained(made, state_dict=dict(merged_weights(model)))
        tokenizer.wrapped.save_pretrained(made)
        if record is not None:
            trained_on.write(made, record)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def check_export(folder: Path, model: str) -> None:
    """Raises InputError where an export would replace the model it started from, or a folder that holds no model."""
    if folder.exists() and Path(model).exists() and folder.samefile(model):
        raise InputError(f"--export would replace --model {model!r}: name another --out")
    if folder.exists() and not (folder / "config.json").exists():
        raise InputError(f"--export would replace {str(folder)!r}, which holds no model: name another --out")


FREE = frozenset({  # settings that decide no number of the training: they may be others when it is resumed
    "eval_every", "kl_every", "show_every", "checkpoint_every", "verifier_workers", "verifier_memory",
})  # fmt: skip


def check_settings(saved: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str] = FREE) -> None:
    """Raises InputError for the first setting in which a run differs from the checkpoint it wants to resume.

    Settings of `free` may differ; so may the index of a GPU, and --threads where a GPU computes.
    """
    on_gpu = str(given.get("device", "")).startswith("cuda")
    for name in sorted((set(saved) | set(given)) - set(free) - ({"threads"} if on_gpu else set())):
        old, new = (
            str(x[name]).split(":")[0] if name == "device" and name in x else x.get(name) for x in (saved, given)
        )
        if old != new:
            shown = spelling(name)
            why = " (the learning rate falls to 0 over all steps, so a run cannot be prolonged)" * (name == "steps")
            raise InputError(
                f"{shown} is {given.get(name)!r}, the checkpoint was written with {saved.get(name)!r}{why}: "
                f"resume with {shown} {saved.get(name)}, or start a new run with another --out"
            )
