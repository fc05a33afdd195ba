"""Our presets against TRL's own code: its trainers compute, on the same rewards, what we compute through the adapter.

TRL's conventions: eps 1e-4 beside the standard deviation, ddof 1, unscored rows out of everything. They agree to 1e-6
but for what the last four tests name: rounding in TRL, and defaults of ours that follow verl.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import require

require("trl")

import torch  # noqa: E402
from trl import GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: E402

from ebpo_sim import make  # noqa: E402
from ebpo_sim.estimators import Estimator, Subtract, Whiten  # noqa: E402
from ebpo_sim.estimators.group_mean import GroupMean  # noqa: E402
from ebpo_sim.integrations.trl import EBPOTrainer  # noqa: E402
from strategies import UNIT  # noqa: E402
from trl_toy import NEWS, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]
NAN = float("nan")
ABSOLUTE = 1e-6
RLOO_Z = Estimator("rloo_z", (Subtract(GroupMean(leave_one_out=True)), Whiten(1, 1e-4)))
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {  # TRL's trainer and its options, and our estimator
    "grpo": (make("grpo", eps=1e-4), GRPOTrainer, {"scale_rewards": "group"}),
    "grpo_batch_norm": (
        make("grpo_batch_norm", scale="batch_rewards", eps=1e-4),
        GRPOTrainer,
        {"scale_rewards": "batch"},
    ),
    "dr_grpo": (make("dr_grpo"), GRPOTrainer, {"scale_rewards": "none"}),
    "rloo": (make("rloo"), RLOOTrainer, {"normalize_advantages": False, "beta": 0.0, "config": RLOOConfig}),
    "rloo_z": (RLOO_Z, RLOOTrainer, {"normalize_advantages": True, "beta": 0.0, "config": RLOOConfig}),
}


@dataclass
class Pair:
    """TRL's trainer and ours, fed the same rewards; two reward functions of weights 1 and 2."""

    theirs: Any
    ours: Any

    def advantages(self, rewards_NF: list[list[float]], size: int, training: bool = True) -> tuple[Any, Any]:
        """(TRL's, ours), each (N,), by their own `_generate_and_score_completions` with these rewards in it."""
        found = []
        for made in (self.theirs, self.ours):
            made.given = torch.tensor(rewards_NF, dtype=torch.float32)
            made.num_generations = made.num_generations_eval = size
            made.model.train(training)
            rows = [made.train_dataset[i // size] for i in range(len(rewards_NF))]
            found.append(np.array(made._generate_and_score_completions(rows)["advantages"].tolist()))
        return found[0], found[1]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """A pair for each case; generation is real and one token long, rewards are the given ones."""
    folder, made = tmp_path_factory.mktemp("trl"), {}

    def nothing(prompts: list[str], **columns: Any) -> list[float]:
        return [0.0] * len(prompts)

    def build(kind: Any, **options: Any) -> Any:
        return trainer(
            Path(folder), [nothing, nothing], kind=kind, reward_weights=[1.0, 2.0], max_completion_length=1, **options
        )

    with pytest.MonkeyPatch.context() as patch:
        for kind in (GRPOTrainer, RLOOTrainer):
            patch.setattr(kind, "_calculate_rewards", lambda self, *args: self.given.clone())
        for name, (estimator, kind, options) in CASES.items():
            made[name] = Pair(build(kind, **options), build(EBPOTrainer, estimator=estimator))
        yield made


def totals(rewards_NF: list[list[float]]) -> np.ndarray:
    """1 and 2 times the rewards of the functions that scored, NaN where none did; in float32, as TRL sums."""
    rewards = np.array(rewards_NF, dtype=np.float32)
    summed = np.nansum(rewards * np.float32([1, 2]), axis=1)
    return np.where(np.isnan(rewards).all(axis=1), np.float32(NAN), summed)


@st.composite
def reward_batches(draw: st.DrawFn) -> tuple[list[list[float]], int]:
    """Rows of two functions' rewards and the group size; groups often constant, values not dyadic or missing."""
    size = draw(st.integers(2, 8))
    value = st.sampled_from((*UNIT, -1.3, 2.7, NAN))
    row = st.lists(value, min_size=2, max_size=2)
    group = st.one_of(st.lists(row, min_size=size, max_size=size), row.map(lambda same: [same] * size))
    groups = draw(st.lists(group, min_size=1, max_size=4))
    return [one for members in groups for one in members], size


def quiet(total_N: np.ndarray, size: int) -> np.ndarray:
    """Rows of groups whose scored rewards are all equal."""
    total_PG = total_N.reshape(-1, size)
    same = [len(set(row[~np.isnan(row)].tolist())) <= 1 for row in total_PG]
    return np.repeat(same, size)


def lone(total_N: np.ndarray, size: int) -> bool:
    """Whether some group has exactly one scored row."""
    return bool((np.sum(~np.isnan(total_N.reshape(-1, size)), axis=1) == 1).any())


@pytest.mark.parametrize("name", CASES)
@given(batch=reward_batches())
def test_our_numbers_are_trls(name: str, pairs: dict[str, Pair], batch: tuple[list[list[float]], int]) -> None:
    """Guards the presets: two weighted functions, missing rewards, constant groups, group sizes 2 to 8."""
    rewards, size = batch
    theirs, ours = pairs[name].advantages(rewards, size)
    total, still = totals(rewards), quiet(totals(rewards), size)
    unscored = np.isnan(total)
    assert (theirs[unscored] == 0).all() and (ours[unscored] == 0).all()
    assert np.abs(ours[still]).max(initial=0) < 1e-12  # not 0 where the batch's own rounded mean is taken off
    if name == "rloo_z" and (lone(total, size) or still.all()):
        return  # see the tests of the differences
    compared = ~still if name == "grpo" or still.all() else np.full(len(total), True)
    np.testing.assert_allclose(ours[compared], theirs[compared], rtol=0, atol=ABSOLUTE)


@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_agree_in_constant_groups_too(name: str, pairs: dict[str, Pair]) -> None:
    """Guards silence: where no rounding gets in, all-fail, all-solve and half-reward groups are 0 on both sides."""
    rewards = [[v, 0.0] for v in (0.0, 1.0, 0.5) for _ in range(4)]
    for found in pairs[name].advantages(rewards, 4):
        assert (found == 0).all()
    mixed = [*rewards, [1.0, 0.0], [0.0, NAN], [0.0, 0.0], [1.0, 0.0]]
    theirs, ours = pairs[name].advantages(mixed, 4)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ABSOLUTE)
    assert np.ptp(ours) > 0.5


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [1, 4])
def test_evaluation_with_one_completion_a_prompt(name: str, rows: int, pairs: dict[str, Pair]) -> None:
    """Guards the edge that TRL allows in evaluation only: groups of one say nothing, whatever the reward."""
    for found in pairs[name].advantages([[0.1 + 0.2 * i, 1.0] for i in range(rows)], 1, training=False):
        assert (found == 0).all()


@pytest.mark.parametrize("name", CASES)
def test_batches_that_nobody_scored(name: str, pairs: dict[str, Pair]) -> None:
    """Guards the empty batch, and a group with one scored row: 0 on both sides."""
    for found in pairs[name].advantages([[NAN, NAN]] * 8, 4):
        assert (found == 0).all()
    for found in pairs[name].advantages([[0.3, NAN], *[[NAN, NAN]] * 3], 4):
        assert (found == 0).all()


def test_difference_rounding_is_not_a_signal(pairs: dict[str, Pair]) -> None:
    """TRL's float32 mean of eight 0.7 is not 0.7, and it divides the rest by 1e-4: 6e-4 for everyone. Ours is 0."""
    theirs, ours = pairs["grpo"].advantages([[0.7, 0.0]] * 8, 8)
    assert (ours == 0).all()
    assert (theirs > 5e-4).all() and (theirs < 7e-4).all()
    theirs, ours = pairs["rloo_z"].advantages([[0.35, 0.0]] * 8, 8)
    assert (ours == 0).all() and np.abs(theirs).max() < 1e-2


def test_difference_a_lone_scored_completion_counts_in_our_whitening(pairs: dict[str, Pair]) -> None:
    """RLOO with normalize_advantages: a group's only scored row has advantage 0 for both; TRL leaves it out of the
    batch's standard deviation, we count it: a factor sqrt((n - 1)/(n - 2)) with one such row among n."""
    rewards = [[v, 0.0] for v in (1.0, 0.0, 0.0, 1.0)] + [[1.0, 0.0], *[[NAN, NAN]] * 3]
    theirs, ours = pairs["rloo_z"].advantages(rewards, 4)
    assert theirs[4] == ours[4] == 0
    np.testing.assert_allclose(ours[:4] / theirs[:4], np.sqrt(4 / 3), rtol=1e-3)  # n = 5; eps 1e-4 left aside


def test_difference_eps_defaults_to_verls(pairs: dict[str, Pair]) -> None:
    """`grpo` without settings divides by std + 1e-6, TRL by std + 1e-4: a group of tiny spread shows it."""
    rewards = [[v, 0.0] for v in (0.0, 0.0, 2**-10, 2**-10)]
    theirs, _ = pairs["grpo"].advantages(rewards, 4)
    made = pairs["grpo"].ours
    made.estimator, kept = make("grpo"), made.estimator
    _, ours = pairs["grpo"].advantages(rewards, 4)
    made.estimator = kept
    spread = np.std([0, 0, 2**-10, 2**-10], ddof=1)
    np.testing.assert_allclose(ours / theirs, (spread + 1e-4) / (spread + 1e-6), rtol=1e-5)


def test_difference_batch_scale_defaults_to_the_centred_rewards(pairs: dict[str, Pair]) -> None:
    """`grpo_batch_norm` without settings divides by the std of reward minus baseline, TRL by that of all rewards."""
    values = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    theirs, _ = pairs["grpo_batch_norm"].advantages([[v, 0.0] for v in values], 4)
    made = pairs["grpo_batch_norm"].ours
    made.estimator, kept = make("grpo_batch_norm"), made.estimator
    _, ours = pairs["grpo_batch_norm"].advantages([[v, 0.0] for v in values], 4)
    made.estimator = kept
    centred = np.array(values) - np.repeat([0.75, 0.25], 4)
    expected = (np.std(values, ddof=1) + 1e-4) / (np.std(centred, ddof=1) + 1e-6)
    np.testing.assert_allclose(ours / theirs, expected, rtol=1e-5)
    assert expected > 1.1
