"""`llm/train.py` under DeepSpeed's ZeRO stage 3 on CPUs, for `accelerate launch --config_file llm/configs/zero3.yaml`.

accelerate lets DeepSpeed onto CPUs only where it is not told that they are ones; DS_ACCELERATOR=cpu tells DeepSpeed
itself. Each process writes the kind of the model and how much of a parameter it holds, as trained, to SHARDS_SEEN with
its rank.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from accelerate import state
from trl import GRPOTrainer

from ebpo_sim import cli
from llm import train

step = GRPOTrainer.training_step


def seen(self: GRPOTrainer, model: Any, *given: Any) -> Any:
    parameter = next(model.parameters())
    kinds = f"{type(model).__name__} holds {parameter.ds_tensor.numel()} of {parameter.ds_numel}"
    Path(os.environ["SHARDS_SEEN"] + os.environ["RANK"]).write_text(kinds)
    return step(self, model, *given)


state.AcceleratorState._check_initialized = lambda *_: None
GRPOTrainer.training_step = seen

if __name__ == "__main__":
    cli.run(train.main)
