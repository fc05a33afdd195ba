"""Objectives as a policy loss of verl: through verl's config and its `ppo_loss`, and what is refused before a start."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import pytest

import verl_driver
from ebpo_sim import InputError, plugins, registry
from ebpo_sim.estimators import registry as presets
from ebpo_sim.integrations import verl_loss
from ebpo_sim.objectives import CISPO, OBJECTIVES, Clip, register_objective
from verl_driver import adapter, compose, config_of, core_algos, fresh, torch  # noqa: F401  fresh is for every test

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # verl's notes on engines that are not installed
    from omegaconf import open_dict
    from tensordict import TensorDict
    from verl.utils import tensordict_utils
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import ActorConfig, PolicyLossConfig
    from verl.workers.utils.losses import ppo_loss

SECTION = "actor_rollout_ref.actor.policy_loss"
LINES = (f"{SECTION}._target_={adapter.__name__}.PolicyLoss", f"{SECTION}.loss_mode=ebpo_sim")
LENGTHS = (3, 5, 1, 4)


def actor(policy_loss: Any = None, **config: Any) -> Any:
    """verl's actor section as its workers build it."""
    section = {} if policy_loss is None else {"policy_loss": policy_loss}
    return ActorConfig(strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=1, **section, **config)


def named(text: str) -> Any:
    """verl's policy_loss section with these objectives."""
    return adapter.PolicyLoss(loss_mode="ebpo_sim", objectives=text)


def nested(rows: list[Any]) -> Any:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def gradient(config: Any, chosen: list[int], weighted: bool = False) -> tuple[Any, dict[str, Any]]:
    """(gradient in the log-probabilities of all rows, metrics) of verl's `ppo_loss` on the chosen rows of one batch."""
    g = torch.Generator().manual_seed(4)
    draw = {name: [torch.randn(n, generator=g, dtype=torch.float64) for n in LENGTHS] for name in ("now", "old", "ref")}
    now = [(-1 + 0.4 * x).requires_grad_() for x in draw["now"]]
    advantage = torch.tensor([1.0, -0.7, 0.4, -1.3], dtype=torch.float64)
    weight = [torch.rand(n, generator=g, dtype=torch.float64) * 2 for n in LENGTHS]
    ids = [torch.zeros(n, dtype=torch.int64) for n in LENGTHS]
    prompt = torch.zeros(2, dtype=torch.int64)
    data = {
        "prompts": nested([prompt for _ in chosen]),
        "responses": nested([ids[n] for n in chosen]),
        "response_mask": nested([ids[n] + 1 for n in chosen]),
        "old_log_probs": nested([-1 + 0.4 * draw["old"][n] for n in chosen]),
        "ref_log_prob": nested([-1 + 0.4 * draw["ref"][n] for n in chosen]),
        "advantages": nested([advantage[n] * torch.ones(LENGTHS[n], dtype=torch.float64) for n in chosen]),
    }
    if weighted:
        data["rollout_is_weights"] = nested([weight[n] for n in chosen])
    made = TensorDict(data, batch_size=len(chosen))
    for name, value in {"dp_size": 1, "batch_num_tokens": sum(LENGTHS), "global_batch_size": len(LENGTHS)}.items():
        tensordict_utils.assign_non_tensor_data(made, name, value)
    pad, last = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    said = {"log_probs": nested([torch.cat([pad, now[n], last]) for n in chosen])}  # prompt of 2, shifted by one
    loss, metrics = ppo_loss(config, said, made)
    loss.backward()
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in now], metrics


def flat(parts: list[Any]) -> Any:
    return torch.cat(parts)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_verls_loss_function_trains_on_the_objectives(mode: str, weighted: bool) -> None:
    """Guards the real caller: nested rows, masks, verl's own KL and rollout weights around our clip, as around its."""
    extra = {"loss_agg_mode": mode, "use_kl_loss": True, "kl_loss_coef": 0.3}
    ours, metrics = gradient(actor(named("clip:low=0.1,high=0.15,dual=3"), **extra), [0, 1, 2, 3], weighted)
    theirs, _ = gradient(actor(clip_ratio_low=0.1, clip_ratio_high=0.15, **extra), [0, 1, 2, 3], weighted)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-12)
    other, _ = gradient(actor(named("clip:low=none,high=none"), **extra), [0, 1, 2, 3], weighted)
    assert (flat(other) - flat(theirs)).abs().max() > 1e-3
    assert 0 < metrics["actor/clipped"].aggregate() < 1


def test_micro_batches_add_up() -> None:
    """Guards accumulation: the parts of a mini-batch, whichever they are, sum to the gradient of the whole."""
    config = actor(named("cispo + r2vpo_fixed:penalty=0.4"))
    whole, _ = gradient(config, [0, 1, 2, 3])
    parts = [flat(gradient(config, rows)[0]) for rows in ([2], [0, 3], [1])]
    torch.testing.assert_close(sum(parts), flat(whole), rtol=0, atol=1e-12)


def test_the_command_line_reaches_the_loss() -> None:
    """Guards the three lines of the docs: verl's hydra composes them, validates them, and builds our section of it."""
    config = compose(
        *LINES, f'+{SECTION}.objectives="clip:low=0.2,high=0.28 + cispo:high=0.3"',
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1", "trainer.n_gpus_per_node=1",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl's notes on its own options
        verl_driver.validate_config(config, use_reference_policy=False, use_critic=False)
    built = omega_conf_to_dataclass(config.actor_rollout_ref.actor).policy_loss
    assert type(built) is adapter.PolicyLoss and built.loss_mode == "ebpo_sim"
    assert verl_loss.objectives_of(built.objectives) == (Clip(0.2, 0.28), CISPO(high=0.3))
    assert {f.name for f in fields(PolicyLossConfig)} < {f.name for f in fields(adapter.PolicyLoss)}
    verl_loss.check_config(config)


BAD = {
    "": "policy_loss.objectives must name objectives, got ''",
    "clup": "unknown part of a method 'clup': did you mean 'clip'",
    "clip + clip": "names 'clip' twice",
    "clip + kl": "kl needs reference, which verl .*: set verl's actor.use_kl_loss",
    "clip + entropy": "entropy needs entropy, which verl .*: set verl's actor.entropy_coeff",
    "remembering": "remembering keeps a state, which verl",
    "wide": "wide looks at a whole batch, which verl",
}


@pytest.mark.parametrize("text", BAD)
def test_objectives_are_refused_when_the_config_is_built(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards refusals: verl builds its sections before anything starts, and says what ours says."""
    monkeypatch.setattr(OBJECTIVES, "_parts", dict(OBJECTIVES._parts))
    monkeypatch.setattr(registry, "_kind_of", dict(registry._kind_of))

    class Remembering(Clip):
        def init(self) -> Any:
            return {"seen": 0.0}

    class Wide(Clip):
        scope = "batch"

    register_objective("remembering")(Remembering)
    register_objective("wide")(Wide)
    with pytest.raises(InputError, match=BAD[text]):
        named(text)
    config = compose(*LINES, f'+{SECTION}.objectives="{text}"')
    with pytest.raises(Exception, match=BAD[text].split(" .*")[0].split(",")[0]):
        omega_conf_to_dataclass(config.actor_rollout_ref.actor.policy_loss)


def test_a_config_under_which_they_have_no_effect_is_refused() -> None:
    """Guards silence: another loss mode, our mode without our section, and verl's bypass mode that rejects rows."""
    with pytest.raises(InputError, match="loss_mode must be 'ebpo_sim' with objectives, got 'vanilla'"):
        adapter.PolicyLoss(objectives="clip")
    config = config_of("ebpo")
    config.actor_rollout_ref.actor.policy_loss.loss_mode = "ebpo_sim"
    with pytest.raises(InputError, match=r"needs policy_loss\._target_=ebpo_sim.integrations.verl.PolicyLoss, got"):
        verl_driver.build_checkpoint_callback(config)
    with pytest.raises(InputError, match="must name objectives"):
        gradient(actor(PolicyLossConfig(loss_mode="ebpo_sim")), [0])
    section = config.actor_rollout_ref.actor.policy_loss
    section._target_ = verl_loss.TARGET
    with open_dict(section), open_dict(config.algorithm):
        section.objectives = "clip"
        verl_driver.build_checkpoint_callback(config)
        config.algorithm.rollout_correction = {"bypass_mode": True, "rollout_rs": "token_k1"}
        with pytest.raises(InputError, match=r"rollout_rs must be null .* got 'token_k1'.* bypass_mode=False"):
            verl_driver.build_checkpoint_callback(config)
        config.algorithm.rollout_correction.rollout_rs = None
        verl_driver.build_checkpoint_callback(config)
        section.objectives = "kl"
        with pytest.raises(InputError, match="kl needs reference"):
            verl_driver.build_checkpoint_callback(config)


def test_registering_leaves_verls_losses_alone() -> None:
    """Guards verl's registry: one name more, all others verl's own."""
    ours = {name for name, f in core_algos.POLICY_LOSS_REGISTRY.items() if f.__module__.startswith("ebpo_sim")}
    assert ours == {"ebpo_sim"} and len(core_algos.POLICY_LOSS_REGISTRY) > 5


def test_columns_that_an_estimator_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards labels: whichever of them an estimator needs, its column must be named."""
    real = adapter.make("ebpo")
    monkeypatch.setattr(type(real), "needs", frozenset({"prompt_ids"}))
    with pytest.raises(InputError, match=r"algorithm\.ebpo\.prompt_id_column must name a data-set column"):
        adapter._choose("ebpo", {"ebpo": {}})


def test_parts_of_a_loaded_file_stand_here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards one's own part on verl: the estimator gets its name in verl's registry, the objective is taken."""
    for owner, name in ((presets, "_PRESETS"), (OBJECTIVES, "_parts"), (registry, "_kind_of")):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    path = tmp_path / "mine.py"
    path.write_text(
        "from ebpo_sim.estimators import make, register\nfrom ebpo_sim.objectives import Clip, register_objective\n"
        "@register\ndef of_mine():\n    return make('rloo')\n"
        "@register_objective('clip_of_mine')\nclass Mine(Clip):\n    pass\n"
    )
    plugins.load([path])
    adapter.register_presets()
    score = core_algos.get_adv_estimator_fn("ebpo_sim.of_mine")
    found, _ = score(
        token_level_rewards=torch.tensor([[1.0], [0.0]]), response_mask=torch.ones(2, 1), index=["a", "a"], config=None
    )
    assert found.tolist() == [[1.0], [-1.0]]
    assert type(verl_loss.objectives_of("clip_of_mine")[0]).__name__ == "Mine"
