"""What the verl adapter reads of verl: data-set columns of a batch, and the checkpoint that a trainer will load."""

from __future__ import annotations

import re
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError, unknown_name

PADDING = re.compile("pad[0-9a-f]{32}")  # verl's synthetic rows; a real uid is a dashed uuid


def data_column(uid_N: NDArray[np.str_], column: str) -> list[Any]:
    """Each row's entry of a data-set column ("data_source", "extra_info.topic"): verl keeps them with every rollout."""
    name, *path = column.split(".")
    try:
        import transfer_queue

        keys = transfer_queue.kv_list("train")["train"]  # uid_session_output, and uid alone, which may hold no data
        key_of = {key.rsplit("_", 2)[0]: key for key in keys if "_" in key}
        uids = np.unique(uid_N).tolist()
        found = transfer_queue.kv_batch_get([key_of[uid] for uid in uids], "train", select_fields=[name])[name]
        entry_of = {uid: reduce(getitem, path, entry) for uid, entry in zip(uids, found, strict=True)}
    except (ImportError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"column {column!r} is not in verl's TransferQueue ({error!r}): name one of the "
            "training file, and use verl's v1 trainer"
        ) from error
    return [entry_of[uid] for uid in uid_N.tolist()]


def resumed_folder(trainer: Any) -> Path | None:
    """The checkpoint that verl's trainer will load, by its rules; None for a start from scratch."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    if trainer.resume_mode == "disable":
        return None
    if trainer.resume_mode == "auto":
        latest = find_latest_ckpt_path(str(Path(trainer.default_local_dir).absolute()))
        return None if latest is None else Path(latest)
    if trainer.resume_mode == "resume_path":
        return Path(trainer.resume_from_path).absolute()
    raise unknown_name("trainer.resume_mode", str(trainer.resume_mode), ("disable", "auto", "resume_path"))
