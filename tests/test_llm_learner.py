"""One update of llm/: any split into rows gives the same gradient, and what is logged of a step is what happened."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch

from ebpo_sim import InputError, group_rewards
from llm import learner, rollouts, train
from llm.problems import task
from llm.run import Run, curriculum_of, prepare
from llm.settings import Settings

TINY = Settings(
    estimator="ebpo", prompts=8, steps=4, lr=3e-3, warmup=2, topics="count,mod", max_level=3, per_cell=24,
    eval_per_cell=4, sft_steps=80, sft_batch=64, hidden=16, layers=2, heads=2, kv_heads=1, grad_clip=1e9,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started tiny model, trained once."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


def stepped(settings: Settings, cache: Path, steps: int = 1) -> tuple[Run, list[dict]]:
    """A run after some steps, and their metrics."""
    problems, held = task(settings)
    run = prepare(settings, cache, problems, held)
    curriculum = curriculum_of(settings, problems)
    return run, [train.train_step(run, curriculum, i)[0] for i in range(steps)]


def gradient(run: Run) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in run.model.parameters()])


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant_length"])
@pytest.mark.parametrize("change", [{"micro_rows": 5}, {"gradient_checkpointing": True}], ids=str)
def test_less_memory_is_the_same_gradient(aggregation: str, change: dict, cache: Path) -> None:
    """Guards --micro-rows and --gradient-checkpointing: the gradient of the whole batch, to rounding."""
    settings = replace(TINY, aggregation=aggregation, kl_coef=0.01)
    whole, split = (stepped(s, cache)[0] for s in (settings, replace(settings, **change)))
    assert gradient(whole).abs().max() > 1e-4
    assert (gradient(whole) - gradient(split)).abs().max() < 1e-6
    assert not split.model.training


def test_checkpointing_recomputes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards --gradient-checkpointing itself: the layers of the training forward run again in the backward pass."""
    calls = []
    for on in (False, True):
        run, _ = stepped(replace(TINY, gradient_checkpointing=on), cache)
        counted: list[bool] = []
        layer = run.model.model.layers[0]
        layer.self_attn.register_forward_hook(lambda *_, counted=counted: counted.append(torch.is_grad_enabled()))
        train.train_step(run, curriculum_of(run.settings, task(run.settings).train), 1)
        calls.append(sum(counted))
    assert calls == [1, 2]


def test_mini_batches_are_optimizer_steps(cache: Path) -> None:
    """Guards --mini-batch and --updates: AdamW steps once a mini-batch and pass, and later ones are off-policy."""
    run, metrics = stepped(replace(TINY, mini_batch=2, updates=3, lr=0.05, warmup=0), cache)
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {3 * 4}
    assert metrics[0]["clip_fraction"] > 0
    _, on_policy = stepped(replace(TINY, lr=0.05, warmup=0), cache)
    assert on_policy[0]["clip_fraction"] == 0


def test_a_mini_batch_is_the_batch_of_its_prompts(cache: Path) -> None:
    """Guards mini-batches: the last one's gradient is that of a batch of its prompts alone, weights and all."""
    settings = replace(TINY, mini_batch=4, lr=1e-12)  # weights stand still, so both halves see the same policy
    run, _ = stepped(settings, cache)
    problems, held = task(settings)
    other = prepare(settings, cache, problems, held)
    batch = curriculum_of(settings, problems).batch(0)
    rolled = other.engine.sample(batch, 4, train.seed_for(0, "sample", 0))
    verdicts = other.verifier.scores(rollouts.answers(rolled, other.engine.tokenizer),
                                     [p for p in batch for _ in range(4)])  # fmt: skip
    rewards = torch.tensor(verdicts, dtype=torch.float64).view(8, 4)
    advantage, _, _ = other.method.estimator.step(other.state.estimator, group_rewards(rewards))  # of the whole batch
    half = torch.arange(16, 32)
    part, objective = rolled.rows(half), other.objective
    loss, _ = objective.loss(
        learner.log_probs(other, part),
        part.log_prob_NT,
        advantage.flatten().float()[half],
        objective.weights(part.mask_NT),
    )
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in other.model.parameters()])
    assert (gradient(run) - expected).abs().max() < 1e-6 < expected.abs().max()


def test_old_log_probabilities_of_the_trainer(cache: Path) -> None:
    """Guards --old-log-probs trainer: same gradient where both forwards agree, and the gap between them is logged."""
    mine, theirs = (stepped(replace(TINY, old_log_probs=choice), cache) for choice in ("trainer", "sampler"))
    assert 0 <= mine[1][0]["sampler_gap"] < 1e-5 and theirs[1][0]["sampler_gap"] is None
    assert (gradient(mine[0]) - gradient(theirs[0])).abs().max() < 1e-6


def test_a_single_update_computes_its_rows_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the step's forwards: with the trainer's log-probabilities the rows that are updated are read once, and
    only then; the gap, the KL and the gradient are those of reading them twice."""
    counted: list[tuple[bool, int]] = []
    plain = learner.log_probs
    monkeypatch.setattr(
        learner, "log_probs", lambda run, part, *rest: (
            counted.append((torch.is_grad_enabled(), len(part.mask_NT))) or plain(run, part, *rest)
        ),
    )  # fmt: skip
    found = {}
    for twice in (False, True):
        with monkeypatch.context() as patch:
            if twice:
                patch.setattr(learner, "single_update", lambda *_: False)
            counted.clear()
            run, metrics = stepped(replace(TINY, estimator="grpo", old_log_probs="trainer"), cache)
            found[twice] = gradient(run), metrics[0], list(counted)
    (once, row, calls), (again, expected, more) = found[False], found[True]
    needed, measured = round(row["rows_trained"] * 32), 8
    assert [n for on, n in calls if on] == [needed] == [n for on, n in more if on]
    before = [n for on, n in calls if not on]
    assert before[-1] == measured and sum(before[:-1]) < measured and sum(n for on, n in more if not on) > needed
    assert (once - again).abs().max() < 1e-6
    for name in ("sampler_gap", "kl_step", "grad_norm", "clip_fraction"):
        assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-8)
    assert row["kl_step"] > 1e-7 and row["sampler_gap"] > 0


def test_the_kl_of_a_step_can_be_measured_sparsely(cache: Path) -> None:
    """Guards --kl-every: steps in between have none, and nothing else changes."""
    every, second = (stepped(replace(TINY, kl_every=k), cache, 3) for k in (1, 2))
    assert [m["kl_step"] is None for m in second[1]] == [False, True, False]
    assert all(m["kl_step"] > 0 for m in every[1]) and second[1][2]["kl_step"] == every[1][2]["kl_step"]
    assert torch.equal(gradient(every[0]), gradient(second[0]))


def test_the_ratio_is_one_at_any_temperature(cache: Path) -> None:
    """Guards --temperature: the training forward reads the policy at the temperature that was sampled at."""
    settings = replace(TINY, temperature=0.7, order="easy_to_hard")  # which measures the problems first
    problems, held = task(settings)
    run = prepare(settings, cache, problems, held)
    rolled = run.engine.sample(problems[:8], 4, 0, 0.7)
    again = learner.fixed_log_probs(run, rolled, torch.arange(32))
    assert (again - rolled.log_prob_NT).abs().max() < 1e-5 < rolled.log_prob_NT.abs().max()
    assert {group["betas"] for group in run.optimizer.param_groups} == {(0.9, 0.99)}
    asked = []
    sample = run.engine.sample
    run.engine.sample = lambda *args: asked.append(args[3]) or sample(*args)
    train.validate(run, held)
    train.rates_of(run, problems[:2])
    assert set(asked) == {0.7} and len(asked) > 1


def test_a_diverged_run_stops_before_it_spoils_the_weights(cache: Path) -> None:
    """Guards checkpoints: a gradient that is not finite is refused, and the weights stay finite."""
    settings = replace(TINY, grad_clip=1.0)
    problems, held = task(settings)
    run = prepare(settings, cache, problems, held)
    rolled = run.engine.sample(problems[:8], 4, 0)
    with pytest.raises(InputError, match=r"diverged"):
        learner.update(run, rolled, torch.full((32,), 1e38), 1e-3, torch.arange(32), 32)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_bfloat16_trains_fp32_weights(cache: Path) -> None:
    """Guards --dtype bf16: forwards differ from fp32 by bfloat16's rounding, weights and gradients stay fp32."""
    exact, rounded = (stepped(replace(TINY, dtype=dtype), cache) for dtype in ("fp32", "bf16"))
    assert {p.dtype for p in rounded[0].model.parameters()} == {torch.float32}
    assert rounded[1][0]["sampler_gap"] is not None and exact[1][0]["sampler_gap"] is None
    assert rounded[1][0]["grad_norm"] > 0


def test_kl_to_the_reference_needs_every_row(cache: Path) -> None:
    """Guards --kl-coef: GRPO computes all rows then, and at the first step the KL term has no gradient."""
    plain, with_kl = (stepped(replace(TINY, estimator="grpo", kl_coef=c), cache, 2) for c in (0.0, 0.1))
    assert plain[1][0]["rows_trained"] < 1 == with_kl[1][0]["rows_trained"]
    assert plain[1][0]["grad_norm"] == pytest.approx(with_kl[1][0]["grad_norm"], rel=1e-4)
    assert plain[1][1]["grad_norm"] != pytest.approx(with_kl[1][1]["grad_norm"], rel=1e-4)
    for name, weight in with_kl[0].reference.named_parameters():
        assert not weight.requires_grad and not torch.equal(weight, dict(with_kl[0].model.named_parameters())[name])


def test_learning_rate_schedule(cache: Path) -> None:
    """Guards warm-up and decay: linear up over --warmup steps, linear down to 0 after the last."""
    run, _ = stepped(replace(TINY, steps=10, warmup=2, lr=1.0, weight_decay=0.1), cache, 0)
    rates = [learner.learning_rate(run, step) for step in range(10)]
    assert rates == pytest.approx([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.1


def test_impossible_training_is_refused(cache: Path) -> None:
    """Guards refusals that need more than one setting."""
    for change, said in (
        ({"mini_batch": 3}, "--mini-batch must divide --prompts 8, got 3"),
        ({"temperature": 0.0}, "greedy answers have no gradient"),
        ({"device": "cuda:77"}, "--device 'cuda:77' is not there"),
        ({"device": "meta"}, "--device must be cpu, cuda"),
        ({"seed": 2**63}, "--seed must be below"),
        ({"lora_rank": 4}, "--lora-rank needs a trained model"),
        ({"dataset": "sample"}, "outside the tiny model's vocabulary"),
        ({"engine": "vllm"}, "--engine vllm loads a model by name"),
        ({"verifier": "no_such_module_here:right"}, "no_such_module_here"),
    ):
        with pytest.raises(InputError, match=said):
            stepped(replace(TINY, **change), cache)
