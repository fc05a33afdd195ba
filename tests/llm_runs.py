"""Two finished runs for the tests of llm/'s files: of the generated task, and of a named model on a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from llm import train
from llm.settings import Settings
from llm_toys import save_model

TINY = Settings(
    prompts=4, steps=2, topics="count", max_level=3, per_cell=24, eval_per_cell=2, eval_samples=2, sft_steps=30,
    sft_batch=64, hidden=16, layers=1, heads=2, kv_heads=1, checkpoint_every=1, kl_coef=0.01,
)  # fmt: skip


def make_runs(folder: Path) -> Path:
    """The folder, with a run of the generated task (run), its cache, and a named model trained on a file (named)."""
    train.train(TINY, folder / "run", folder / "cache", export=True)
    lines = [json.dumps({"prompt": f"q{i}", "answer": "1", "topic": f"t{i % 2}"}) for i in range(60)]
    (folder / "problems.jsonl").write_text("\n".join(lines))
    settings = Settings(
        model=str(save_model(folder / "base")), dataset=str(folder / "problems.jsonl"), verifier="exact", prompts=4,
        steps=1, max_new=4, eval_samples=1,
    )  # fmt: skip
    train.train(settings, folder / "named", folder / "cache", export=True)
    return folder
