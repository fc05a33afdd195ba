#!/usr/bin/env bash
# Qwen3-8B on DAPO-Math-17k with verl, advantages by EBPO: the set-up of the paper (arXiv 2602.05165), on one 8-GPU node.
#
#   TRAIN_FILE=dapo-math-17k.parquet VAL_FILE=aime-2024.parquet bash llm/configs/verl_ebpo.sh
#
# Any variable below can be set before the call, any verl option added after it (trainer.nnodes=2). Needs verl 0.9.1 with
# vLLM, and this package beside it (python -m pip install .). For the comparison run ESTIMATOR=grpo, verl's own.
# SHUFFLE=False keeps the file's order, for a file sorted by topic or difficulty.
#
# Run so far: on a CPU, this very script trains a tiny model, saves and resumes (tests/test_verl_training.py), and its
# config as it stands passes verl's validate_config (tests/test_verl_launch.py). No GPU has seen this file. The values
# marked (ours) are first guesses, the paper does not give them.
set -euo pipefail

: "${TRAIN_FILE:?name the parquet file of training prompts}"
: "${VAL_FILE:?name the parquet file of validation prompts}"
: "${MODEL:=Qwen/Qwen3-8B}"
: "${ESTIMATOR:=ebpo}"     # Algorithm 1; ebpo_debiased, ebpo_released, ebpo_sim.rloo ... are there too
: "${EBPO_SETTINGS:=}"     # the estimator's settings, as in "memory=0.95 order=score_then_update"
: "${GROUP_SIZE:=4}"       # the paper's default; it also reports 8, 16 and 32
: "${STEPS:=1000}"         # the paper trains up to this many
: "${SHUFFLE:=True}"
: "${GPUS:=8}"             # (ours)
: "${TENSOR_PARALLEL:=2}"  # (ours) GPUs that hold one copy of the model while sampling
: "${SAVE_EVERY:=20}"      # (ours)
: "${NAME:=qwen3-8b-${ESTIMATOR}-g${GROUP_SIZE}}"
: "${OUT:=checkpoints/${NAME}}"
: "${PYTHON:=python3}"

prompt_tokens=2048  # (ours)
answer_tokens=8192

options=(
  algorithm.adv_estimator="$ESTIMATOR"
  # Saves the estimator's memory with each checkpoint and restores it; it also fails at once if ebpo_sim is missing.
  trainer.checkpoint_callback_class=ebpo_sim.integrations.verl.StateCallback

  data.train_files="$TRAIN_FILE"
  data.val_files="$VAL_FILE"
  data.shuffle="$SHUFFLE"
  data.train_batch_size=512
  data.max_prompt_length="$prompt_tokens"
  data.max_response_length="$answer_tokens"
  data.filter_overlong_prompts=True
  # verl scores this data -1 and 1, the paper 0 and 1: EBPO standardises, so that is the same but for eps. Estimators
  # for {0, 1} (ebpo_beta_binomial, ebpo_nonparametric) need a reward function of yours:
  # reward.custom_reward_function.path=FILE.py

  actor_rollout_ref.model.path="$MODEL"
  actor_rollout_ref.actor.optim.lr=1e-6
  actor_rollout_ref.actor.ppo_mini_batch_size=128
  actor_rollout_ref.actor.loss_agg_mode=token-mean
  # The paper's KL weight. Whether as a loss or in the reward it does not say; as a loss the rewards stay 0 and 1.
  actor_rollout_ref.actor.use_kl_loss=True
  actor_rollout_ref.actor.kl_loss_coef=0.001
  algorithm.use_kl_in_reward=False

  actor_rollout_ref.rollout.name=vllm
  actor_rollout_ref.rollout.n="$GROUP_SIZE"
  actor_rollout_ref.rollout.temperature=1.0
  actor_rollout_ref.rollout.tensor_model_parallel_size="$TENSOR_PARALLEL"
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6  # (ours)
  actor_rollout_ref.actor.use_dynamic_bsz=True
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=$((2 * (prompt_tokens + answer_tokens)))  # (ours)

  trainer.nnodes=1
  trainer.n_gpus_per_node="$GPUS"
  trainer.total_training_steps="$STEPS"
  trainer.total_epochs=1000  # an upper bound: total_training_steps ends the run
  trainer.save_freq="$SAVE_EVERY"
  trainer.test_freq="$SAVE_EVERY"
  trainer.resume_mode=auto
  trainer.default_local_dir="$OUT"
  trainer.project_name=ebpo
  trainer.experiment_name="$NAME"
  "trainer.logger=[console,tensorboard]"
)
for setting in $EBPO_SETTINGS; do
  options+=("+algorithm.ebpo.$setting")
done

exec "$PYTHON" -m verl.trainer.main_ppo "${options[@]}" "$@"
