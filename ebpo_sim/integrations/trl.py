"""Any method of this project inside TRL's GRPOTrainer: its estimator's advantages, and its objectives' gradient.

    from ebpo_sim.integrations.trl import MethodTrainer
    trainer = MethodTrainer(model, reward_funcs, args, train_dataset, method="rloo + cispo:high=0.2 + kl:coef=0.001")

TRL has no hook for advantages. `MethodTrainer` keeps what `_calculate_rewards` returns (the rewards of all processes),
lets the parent generate, score and log, and then replaces the advantages in what it returns; no method is copied.
Advantages are a float64 function of the gathered rewards alone, so every process computes the same bytes and the
same state without a broadcast. `scale_rewards` has no effect.

A bare estimator leaves loss, KL and clipping to TRL; named objectives take their place, see `trl_loss`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ebpo_sim import rungs
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators import Estimator
from ebpo_sim.groups import group_rewards
from ebpo_sim.integrations.shared import check_columns, measure, method_of, read_state, require, write_state
from ebpo_sim.methods.method import Method
from ebpo_sim.numbers import Array

REQUIREMENT = "trl>=1.14.2,<1.17"  # the methods tapped below are private to TRL: a version counts once it was tested
require(__name__, REQUIREMENT)

import torch  # noqa: E402  after the check, so that its message comes first
from accelerate.utils import gather_object  # noqa: E402
from transformers.trainer import TRAINER_STATE_NAME  # noqa: E402
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR  # noqa: E402

from ebpo_sim.integrations.trl_loss import PushedTrainer  # noqa: E402
from ebpo_sim.integrations.trl_score_norms import score_norms  # noqa: E402


class MethodTrainer(PushedTrainer):
    """GRPOTrainer with a method, "estimator + objective + ...": text, a Method, or an Estimator.

    A completion's reward is TRL's: the sum over reward functions of weight times reward, None left out; a completion
    that no function could score is masked, with advantage 0. A batch of which nothing could be scored teaches nothing.
    Estimators also get the tokens of each completion that count in the loss and, where a dataset column is named,
    the cluster (`cluster_column="topic"`) and the prompt's id (`prompt_id_column`) of each row. Score norms, where an
    estimator needs them, cost another forward over each generation batch. The gradient noise scale is not measured: TRL
    deals the rows of a group to different micro-batches, whose gradients are then not independent.
    One generation batch is one step of the estimator, whatever gradient_accumulation_steps, steps_per_generation and
    num_iterations are. Evaluation batches are scored as a training batch would be and never learnt from.
    The state is `estimator_state`; every checkpoint, also one of `save_only_model`, holds it as ebpo_state.json, and
    resuming needs that file, written by the same estimator with the same settings. Metrics: ebpo/*. TRL's own limit:
    resumed after its first epoch, it shuffles the prompts as in the first.

    `estimator` is the older name of `method`. Raises InputError for unknown parts, settings and columns, for parts that
    need what TRL's batches do not carry, for what `PushedTrainer` refuses, score norms of
    prompts with images, multi_objective_aggregation other than
    "sum_then_normalize", periodic checkpoints that would fall inside a generation buffer and resuming from one that
    did (TRL would sample its prompts again, and the estimator would count them twice), rewards of the wrong shape, and
    whatever the estimator itself refuses.
    """

    def __init__(
        self,
        *args: Any,
        method: str | Method | Estimator | None = None,
        estimator: str | Method | Estimator | None = None,
        cluster_column: str | None = None,
        prompt_id_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        if method is not None and estimator is not None:
            raise InputError(f"method and estimator are one argument, got {method!r} and {estimator!r}: give method")
        chosen = method if method is not None else "ebpo" if estimator is None else estimator
        made = method_of(chosen, rungs.TRL)
        self.estimator = made.estimator
        self.estimator_state = self.estimator.init()
        columns = {"clusters": cluster_column, "prompt_ids": prompt_id_column}
        self._label_columns = {label: column for label, column in columns.items() if column is not None}
        self._tapped: torch.Tensor | None = None
        check_columns(self.estimator, self._label_columns)
        super().__init__(*args, objectives=made.objectives, **kwargs)
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise InputError(
                f"multi_objective_aggregation must be 'sum_then_normalize', got {self.multi_objective_aggregation!r}: "
                "an estimator needs one reward a completion"
            )
        if "components" in self.estimator.needs and set(self.reward_weights.tolist()) != {1.0}:
            raise InputError(
                f"reward_weights must be 1 for {self.estimator.name}, got {self.reward_weights.tolist()}: it "
                "standardises every function by itself; give it its own weights, as in gdpo:weights=1/2"
            )
        known = getattr(self.train_dataset, "column_names", None)
        for column in self._label_columns.values():
            if known is not None and column not in known:
                raise unknown_name("dataset column", column, known)
        self._refuse_checkpoints_inside_a_buffer()

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The parent's rewards, gathered from all processes, (N, functions); kept for the advantages."""
        self._tapped = super()._calculate_rewards(*args, **kwargs)
        return self._tapped

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The parent's batch with this estimator's advantages in it."""
        training = self.model.training
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards_NF, self._tapped = self._tapped, None
        local, shape = len(inputs), None if rewards_NF is None else tuple(rewards_NF.shape)
        due = (local * self.accelerator.num_processes, len(self.reward_weights))
        group_size = self.num_generations if training else self.num_generations_eval
        if rewards_NF is None or shape != due or due[0] % group_size:
            raise InputError(f"rewards must have shape {due}, in groups of {group_size}, got shape {shape}")
        counted_NT = output["completion_mask"] * output.get("tool_mask", 1)
        features: dict[str, Any] = {
            label: self._gathered_column(inputs, column) for label, column in self._label_columns.items()
        }
        features["lengths"] = self.accelerator.gather(counted_NT.sum(dim=1)).cpu().numpy()
        if "score_norms" in self.estimator.needs:
            norm_N = score_norms(self, output, counted_NT)
            features["score_norms"] = self.accelerator.gather(norm_N).double().cpu().numpy()
        if "components" in self.estimator.needs:
            features["components"] = rewards_NF.detach().double().cpu().numpy()
        advantages_N = self._advantages(rewards_NF.detach().cpu(), group_size, features, training)
        replaced, first = output["advantages"], self.accelerator.process_index * local
        output["advantages"] = torch.as_tensor(advantages_N[first : first + local]).to(replaced)
        table = self._logs["advantages"]  # the completions table shows what was used
        for _ in range(min(len(table), len(advantages_N))):
            table.pop()
        table.extend(advantages_N.tolist())
        return output

    def _advantages(self, rewards_NF: torch.Tensor, group_size: int, features: dict[str, Any], learn: bool) -> Array:
        """Advantages (N,) of the rows of all processes, contiguous by group; the state moves on if `learn`."""
        scored_N = (~torch.isnan(rewards_NF).all(dim=1)).numpy()
        reward_N = (rewards_NF * self.reward_weights.cpu()).nansum(dim=1).double().numpy()  # summed in float32, as TRL
        if not scored_N.any():
            return np.zeros(len(reward_N))
        groups = group_rewards(reward_N, np.arange(len(reward_N)) // group_size, mask=scored_N, **features)
        advantages_N, info, state = self.estimator.step(self.estimator_state, groups)
        if learn:
            self.estimator_state = state
        for name, value in measure(info, groups, advantages_N).items():
            self._metrics["train" if learn else "eval"][f"ebpo/{name}"].append(value)
        return np.asarray(advantages_N)

    def _gathered_column(self, inputs: list[dict[str, Any]], column: str) -> list[Any]:
        """A dataset column's entry for every row of all processes, in the order of the rewards."""
        if any(column not in row for row in inputs):
            raise InputError(f"dataset column {column!r} is missing: add it, and keep remove_unused_columns=False")
        return list(gather_object([row[column] for row in inputs]))

    def _inside_buffer(self, step: float) -> bool:
        """Whether completions are left over after this optimiser step, for TRL's next step to train on.

        A buffer lasts steps_per_generation * num_iterations micro-batches; an epoch is a whole number of buffers.
        """
        micro, buffer = self.args.gradient_accumulation_steps, self.args.steps_per_generation * self.num_iterations
        return bool(micro % buffer and (buffer % micro or step * micro % buffer))

    def _refuse_checkpoints_inside_a_buffer(self) -> None:
        args, name, period = self.args, "save_strategy", 0.0
        if args.save_strategy == "steps":
            name, period = "save_steps", args.save_steps
        elif args.save_strategy == "best" and args.eval_strategy == "steps":
            name, period = "eval_steps", args.eval_steps
        if 0 < period < 1 and args.max_steps > 0:  # a share of the run
            period = math.ceil(period * args.max_steps)
        if args.save_strategy != "no" and self._inside_buffer(period):
            raise InputError(
                f"{name} must keep checkpoints out of generation buffers, got {period or args.save_strategy.value!r}: "
                "make steps * gradient_accumulation_steps a multiple of steps_per_generation * num_iterations, "
                "and one of the two a multiple of the other"
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The state first, so that the parent's push to the hub finds it."""
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            write_state(folder, self.estimator, self.estimator_state)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """Transformers calls this on every way to resume, with DeepSpeed and FSDP too."""
        if checkpoint is not None:
            state = read_state(Path(checkpoint), self.estimator)
            if self._inside_buffer(json.loads(Path(checkpoint, TRAINER_STATE_NAME).read_text())["global_step"]):
                raise InputError(f"{checkpoint!r} lies inside a generation buffer: resume from an earlier checkpoint")
            self.estimator_state = state
        super()._load_optimizer_and_scheduler(checkpoint)


EBPOTrainer = MethodTrainer  # the name that scripts have
