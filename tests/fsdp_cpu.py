"""`llm/train.py` under accelerate's FSDP2 on CPUs, for `accelerate launch --config_file llm/configs/fsdp2.yaml`.

accelerate shards only where processes are of an accelerator's kind and falls back to DDP elsewhere, without a word. So
once the processes have met by gloo, they are called that; torch's FSDP2 itself works on any device. Each process
writes the kind of the model and of its parameters, as trained, to SHARDS_SEEN with its rank.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from accelerate import state
from accelerate.utils import DistributedType
from trl import GRPOTrainer

from ebpo_sim import cli
from llm import train

check, step = state.AcceleratorState._check_initialized, GRPOTrainer.training_step


def as_accelerators(self: Any, *given: Any) -> None:
    check(self, *given)
    if not self.initialized:
        assert self.distributed_type == DistributedType.MULTI_CPU, self.distributed_type
        for known in (state.PartialState._shared_state, self.__dict__):
            known["distributed_type"] = DistributedType.MULTI_GPU


def seen(self: GRPOTrainer, model: Any, *given: Any) -> Any:
    parameter = next(model.parameters())
    kinds = (type(model).__name__, type(parameter).__name__, str(getattr(parameter, "placements", None)))
    Path(os.environ["SHARDS_SEEN"] + os.environ["RANK"]).write_text(" ".join(kinds))
    return step(self, model, *given)


state.AcceleratorState._check_initialized, GRPOTrainer.training_step = as_accelerators, seen

if __name__ == "__main__":
    cli.run(train.main)
