"""GDPO through our trainer against TRL's own, multi_objective_aggregation="normalize_then_sum"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from needs import require

require("trl")

import torch  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from ebpo_sim import InputError  # noqa: E402
from ebpo_sim.integrations.trl import EBPOTrainer  # noqa: E402
from trl_toy import NEWS, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]
RULE = "gdpo:weights=1/2,over=rollouts,eps=0.0001,batch_eps=0.0001"


def nothing(prompts: list[str], **columns: Any) -> list[float]:
    """A reward function whose rewards are replaced."""
    return [0.0] * len(prompts)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(TRL's trainer, ours), two reward functions of weights 1 and 2."""
    folder = Path(tmp_path_factory.mktemp("trl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, *args: self.given.clone())
        theirs = trainer(
            folder, [nothing, nothing], kind=GRPOTrainer, max_completion_length=1, reward_weights=[1.0, 2.0],
            multi_objective_aggregation="normalize_then_sum",
        )  # fmt: skip
        ours = trainer(folder, [nothing, nothing], kind=EBPOTrainer, max_completion_length=1, estimator=RULE)
        with pytest.raises(InputError, match="reward_weights must be 1 for gdpo"):
            trainer(folder, [nothing, nothing], kind=EBPOTrainer, reward_weights=[1.0, 2.0], estimator="gdpo")
        yield theirs, ours


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]), min_size=16, max_size=16))
def test_two_functions_are_standardised_apart(pair: Any, values: list[float]) -> None:
    """Guards the wiring and the convention: each function by its group, weights, then the batch, 1e-4 beside both."""
    rewards_NF = np.array(values).reshape(8, 2)
    grouped = rewards_NF.reshape(2, 4, 2)
    assume(np.ptp(grouped, axis=1).any())
    found = []
    for made in pair:
        made.given = torch.tensor(rewards_NF, dtype=torch.float32)
        made.num_generations, rows = 4, [made.train_dataset[i // 4] for i in range(8)]
        found.append(np.array(made._generate_and_score_completions(rows)["advantages"].tolist()))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=5e-6)
