"""`--trl name=value`: TRL's own options, as far as they are none of ours."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ebpo_sim.errors import InputError, unknown_name

OPEN = {"adam_beta2", "disable_dropout", "logging_steps", "lr_scheduler_type", "report_to", "use_bias_correction_kl"}
NEVER = {  # what would need other data, other advantages or other batches than the adapter gives
    "data_seed", "do_eval", "do_train", "eval_on_start", "eval_steps", "eval_strategy", "generation_batch_size",
    "load_best_model_at_end", "multi_objective_aggregation", "num_train_epochs", "resume_from_checkpoint",
    "reward_weights", "save_strategy", "scale_rewards", "train_sampling_strategy", "auto_find_batch_size",
    "trust_remote_code",
}  # fmt: skip


def read(given: Sequence[str], defaults: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """The options as keywords. A value is JSON (true, 0.5, {"a": 1}) or a Python literal, else text as it stands.

    defaults: the fields of GRPOConfig. ours: those that the settings decide, of which `OPEN` may be overridden.
    Raises InputError for a name that is unknown, ours or given twice, and for a value of another kind than the default.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, spelled = text.partition("=")
        if not equals or name in found:
            raise InputError(f"--trl must be NAME=VALUE, each name once, got {text!r}")
        if name not in defaults:
            raise unknown_name("option of GRPOConfig", name, defaults)
        if name in NEVER or name in set(ours) - OPEN:
            raise InputError(f"--trl {name!r} is decided by the options of llm/train.py: use them, see --help")
        found[name] = _value(spelled)
        if not _alike(found[name], defaults[name]):
            kind = type(defaults[name]).__name__
            raise InputError(
                f"--trl {name} must be of the kind {kind}, got {spelled!r}: its default is {defaults[name]!r}"
            )
    return found


def _value(spelled: str) -> Any:
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(spelled)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return spelled


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        whole = isinstance(value, int) or isinstance(default, float)
        return isinstance(value, int | float) and not isinstance(value, bool) and whole
    return not isinstance(default, str) or isinstance(value, str)
