"""The README's lines for TRL users, run as they stand."""

from __future__ import annotations

from pathlib import Path

import needs
import pages

needs.require("trl")

import pytest  # noqa: E402
from trl import GRPOConfig  # noqa: E402

import trl_toy  # noqa: E402


@pytest.mark.filterwarnings(*trl_toy.NEWS)
def test_the_trl_example_runs(tmp_path: Path) -> None:
    """Guards the lines a TRL user copies: they train a tiny model, with a memory per topic."""
    code = next(b for b in pages.blocks("python", pages.page("ebpo_sim/integrations")) if "EBPOTrainer" in b)
    scope = {
        "model": trl_toy.model(), "reward": trl_toy.Reward(), "dataset": trl_toy.dataset(16),
        "args": GRPOConfig(**trl_toy.settings(tmp_path, max_steps=1)), "tokenizer": trl_toy.tokenizer(),
    }  # fmt: skip
    exec(code, scope)
    assert set(scope["trainer"].estimator_state[0]) == {"even", "odd"}
