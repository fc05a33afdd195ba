"""What trainers do under their own names, as settings of our presets: "verl.grpo" is a method wherever "grpo" is one.

Read in the code named; a trainer's option is part of the name where it is not the default.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Divider = Literal["token_mean", "sequence_mean", "constant_length", ""]


class Convention(NamedTuple):
    """estimator: the text of the preset with its settings. divider: the default aggregation of its loss, "" where it
    was not read. source: where the convention was read."""

    estimator: str
    divider: Divider
    source: str


_VERL = "verl 0.9.1, verl/trainer/ppo/core_algos.py"
_TRL = "TRL 1.16, trl/trainer/grpo_trainer.py"
_NEMO = "NVIDIA-NeMo/RL 00925dd, nemo_rl/algorithms/advantage_estimator.py and utils.py"
_OPENRLHF = "OpenRLHF 3c3be62, openrlhf/trainer/ppo_utils/experience_maker.py"
_AREAL = "AReaL 4aef98d, actor.reward_norm and actor.adv_norm of examples/math"
_SKYRL = "SkyRL ec60959, skyrl/backends/skyrl_train/utils/ppo_utils.py"
_SWIFT = "ms-swift 3602360, swift GRPO trainer, advantage_estimator and scale_rewards"
_INSTRUCT = "open-instruct e6c3044, advantage_normalization_type"
CONVENTIONS: dict[str, Convention] = {
    "verl.grpo": Convention("grpo:singleton=raw", "token_mean", _VERL),
    "verl.dr_grpo": Convention("dr_grpo:singleton=raw", "token_mean", f"{_VERL}, norm_adv_by_std_in_grpo=False"),
    "verl.rloo": Convention("rloo:singleton=raw", "token_mean", _VERL),
    "verl.rloo_vectorized": Convention("rloo", "token_mean", _VERL),
    "verl.reinforce_plus_plus": Convention("reinforce_pp", "token_mean", f"{_VERL}, gamma=1"),
    "verl.reinforce_plus_plus_baseline": Convention("reinforce_pp_baseline", "token_mean", _VERL),
    "verl.opo": Convention("opo:singleton=raw", "token_mean", _VERL),
    "verl.gpg": Convention("gpg:counted=nonzero,singleton=raw", "token_mean", _VERL),
    "verl.grpo_passk": Convention("grpo_passk", "token_mean", _VERL),
    "trl.grpo": Convention("grpo:eps=0.0001", "token_mean", f"{_TRL}, loss_type=dapo"),
    "trl.batch": Convention("lite_ppo:eps=0.0001", "token_mean", f"{_TRL}, scale_rewards=batch"),
    "trl.dr_grpo": Convention("dr_grpo", "constant_length", f"{_TRL}, scale_rewards=none, loss_type=dr_grpo"),
    "trl.rloo": Convention("rloo", "sequence_mean", "TRL 1.16, trl/trainer/rloo_trainer.py"),
    "nemo_rl.grpo": Convention("grpo_leave_one_out", "token_mean", _NEMO),
    "nemo_rl.reinforce_plus_plus": Convention("reinforce_pp:ddof=0,baseline=group", "token_mean", _NEMO),
    "openrlhf.group_norm": Convention("grpo:eps=1e-09", "", _OPENRLHF),
    "openrlhf.dr_grpo": Convention("dr_grpo", "", _OPENRLHF),
    "openrlhf.rloo": Convention("rloo", "", _OPENRLHF),
    "openrlhf.reinforce": Convention("reinforce_pp:ddof=0", "", _OPENRLHF),
    "openrlhf.reinforce_baseline": Convention("reinforce_pp:ddof=0,baseline=group", "", _OPENRLHF),
    "prime_rl.grpo": Convention("dr_grpo", "token_mean", "prime-rl 559b447, docs/algorithms.md"),
    "roll.grpo": Convention(
        "grpo", "sequence_mean", "ROLL 8eb27cc, reward_norm with norm_mean_type=norm_std_type=group"
    ),
    "roll.lite_ppo": Convention("lite_ppo", "token_mean", "ROLL 8eb27cc, norm_mean_type=group, norm_std_type=batch"),
    "areal.grpo": Convention("grpo_whitened", "token_mean", _AREAL),
    "areal.rloo": Convention("grpo_whitened:leave_one_out=true", "token_mean", _AREAL),
    "skyrl.grpo": Convention("grpo:singleton=raw", "", _SKYRL),
    "skyrl.rloo": Convention("rloo", "", _SKYRL),
    "skyrl.maxrl": Convention("maxrl:singleton=raw", "", _SKYRL),
    "ms_swift.grpo": Convention("grpo:eps=0.0001", "sequence_mean", _SWIFT),
    "ms_swift.reinforce_plus_plus": Convention("grpo_batch_norm:eps=0.0001", "sequence_mean", _SWIFT),
    "open_instruct.centered": Convention("dr_grpo", "token_mean", f"{_INSTRUCT}=centered, the default"),
    "open_instruct.standard": Convention("grpo:ddof=0,eps=1e-08", "token_mean", f"{_INSTRUCT}=standard"),
    "open_instruct.max_rl": Convention("maxrl:eps=1e-08", "token_mean", f"{_INSTRUCT}=max_rl"),
    "slime.grpo": Convention("grpo", "sequence_mean", "slime 624b824, grpo_std_normalization"),
    "tinker.grpo": Convention("dr_grpo", "", "tinker-cookbook 9dfcc3a, tinker_cookbook/rl/data_processing.py"),
}


def spelt_out(name: str) -> str:
    """The text with the convention that it names, if it does, as a preset with settings; further settings follow."""
    first, colon, body = name.partition(":")
    if first not in CONVENTIONS:
        return name
    text = CONVENTIONS[first].estimator
    return f"{text}{',' if ':' in text else ':'}{body}" if colon else text
