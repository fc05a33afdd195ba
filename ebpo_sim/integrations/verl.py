"""Any estimator of this project as an advantage estimator of verl; its memory is saved and restored with checkpoints.
Its objectives, as a policy loss of verl: see `verl_loss`.

    algorithm.adv_estimator=ebpo_debiased +algorithm.ebpo.memory=0.95
    trainer.checkpoint_callback_class=ebpo_sim.integrations.verl.StateCallback

Loading: by itself where this package is installed (entry point group `verl.plugins`), or by
VERL_USE_EXTERNAL_MODULES or actor_rollout_ref.model.external_lib set to ebpo_sim.integrations.verl.
Names: preset X, of an installed package too, is `ebpo_sim.X`, and plain `X` unless verl or another plugin has that name
(verl has grpo, rloo, opo, gpg, ...). Settings: `+algorithm.ebpo.*` are those of `make(X, ...)`, whichever X is.
Rows are grouped by verl's uid and sorted first: their order (verl balances by length) changes no bit. verl's padding
rows get 0 and are not learnt from; real rows that rollout_correction masked still count as rewards.
Labels: verl hands over uids only, new ones each step. `+algorithm.ebpo.cluster_column=extra_info.topic` (for
per_cluster) and `prompt_id_column=index` fetch a data-set column by uid from the TransferQueue of verl's v1 trainer.
Memory: this process's, the trainer's. StateCallback writes ebpo_state.json into each global_step folder (not to
default_hdfs_dir) and restores it by trainer.resume_mode; a missing file, or one of other settings, stops the run. (verl
names a checkpoint the latest before the callback runs: after a crash in between, resume from the one before.)
Numbers: `last_statistics()`; sent to trainer.logger at checkpoints, verl has no hook at each step. Multi-output agent
loops: every output is a row, so a run with many counts more (verl reduces them for grpo only).
algorithm.filter_groups: only the groups that are kept reach the estimator; its prior is that of the filtered prompts.
parameter_sync_step > 1: a call, so an update of the memory, for each part of the batch, with that part's groups.
algorithm.use_kl_in_reward: rewards then contain the KL penalty; estimators for {0, 1} or [0, 1] refuse them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import plugins, rungs
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, dump_state, make, names
from ebpo_sim.groups import group_rewards
from ebpo_sim.integrations.shared import COLUMNS, check_columns, measure, read_state, require, write_state
from ebpo_sim.integrations.verl_files import PADDING, data_column, resumed_folder
from ebpo_sim.numbers import Array

REQUIREMENT = "verl>=0.9.1,<0.10"  # before it nothing saves the memory
VERLS_OWN = ("grpo", "rloo", "opo", "optimal_token_baseline", "grpo_passk", "gpg", "remax", "gdpo")
REMEDY = f"Set trainer.checkpoint_callback_class={__name__}.StateCallback (v1 trainer)."
log = logging.getLogger(__name__)

try:
    require(__name__, REQUIREMENT)
    import torch
    from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
    from verl.trainer.ppo.core_algos import register_adv_est

    from ebpo_sim.integrations.verl_loss import PolicyLoss, check_config
except ImportError as error:
    log.warning("the ebpo_sim plugin of verl is not available: %s", error)  # verl's plugin loader swallows the error
    raise

__all__ = ["PolicyLoss", "StateCallback", "advantages", "last_statistics", "register_presets", "reset"]


@dataclass
class _Process:
    """What changes while training: this process's estimator and data-set columns, its memory, its last statistics."""

    chosen: tuple[Estimator, dict[str, str]] | None = None
    state: Any = None
    saved: bool = False  # a StateCallback is there
    statistics: dict[str, float] = field(default_factory=dict)


_process = _Process()
_presets: dict[str, str] = {}  # name in verl's registry -> preset


def reset() -> None:
    """Forget estimator, memory and statistics of this process: what a new trainer in it starts from."""
    global _process
    _process = _Process()


def last_statistics() -> dict[str, float]:
    """Of the last batch: ebpo/groups, ebpo/rollouts, and as ebpo/* the means of `integrations.shared.measure`."""
    return dict(_process.statistics)


def advantages(
    preset: str, *, token_level_rewards: Any, response_mask: Any, index: Any = None, config: Any = None, **_: Any
) -> tuple[Any, Any]:
    """verl's contract: advantages and returns, the same tensor (N, T) in the rewards' dtype and on their device.

    A row's tokens all get mask times the estimator's number for the reward r = sum of the row's token rewards.
    token_level_rewards, response_mask (N, T); index: N uids; config: verl's `algorithm` section. Updates the memory.
    Raises InputError for missing uids, rewards that are not finite, bad settings, a second estimator in one process,
    columns that cannot be fetched, and whatever the estimator refuses; the memory is then as it was.
    """
    if index is None or len(index) != len(token_level_rewards):
        raise InputError(f"index must hold a uid for each of {len(token_level_rewards)} rows, got {index!r}")
    chosen = _choose(preset, config)
    if _process.chosen is None:
        _process.chosen, _process.state = chosen, chosen[0].init()
    if _process.chosen != chosen:
        raise InputError(f"a process has one estimator, got {chosen} after {_process.chosen}: reset() for a new run")
    uid_N = np.array([str(uid) for uid in index])
    reward_N = token_level_rewards.detach().cpu().sum(dim=-1, dtype=torch.float64).numpy()
    length_N = response_mask.detach().cpu().sum(dim=-1, dtype=torch.float64).numpy()
    for row in np.flatnonzero(~np.isfinite(reward_N))[:1]:
        raise InputError(
            f"token_level_rewards must be finite, row {row} (uid {uid_N[row]}) sums to {reward_N[row]}: "
            "mend the reward function, or the log-probabilities behind the KL penalty"
        )
    rows = np.lexsort((length_N, reward_N, uid_N))
    rows = rows[[PADDING.fullmatch(uid) is None for uid in uid_N[rows]]]
    advantage_N = np.zeros(len(reward_N))
    if len(rows) > 0:
        advantage_N[rows] = _learn(uid_N[rows], reward_N[rows], length_N[rows])
    kind = token_level_rewards.dtype if token_level_rewards.dtype.is_floating_point else torch.get_default_dtype()
    scalar_N1 = torch.as_tensor(advantage_N, dtype=kind, device=token_level_rewards.device).unsqueeze(-1)
    advantage_NT = scalar_N1 * response_mask
    return advantage_NT, advantage_NT


def _choose(preset: str, algorithm: Any) -> tuple[Estimator, dict[str, str]]:
    """The estimator that `algorithm.ebpo` describes, and the data-set columns asked for."""
    given = None if algorithm is None else algorithm.get("ebpo")
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"algorithm.ebpo must hold settings, got {given!r}: write +algorithm.ebpo.memory=0.95")
    settings = dict(given or {})
    columns = {label: str(settings.pop(option)) for label, option in COLUMNS.items() if option in settings}
    if "prior" in settings:
        raise InputError("algorithm.ebpo.prior cannot be given in a config: register a preset that holds it")
    estimator = make(preset, **settings)
    rungs.check(estimator.name, estimator.needs, rungs.VERL)
    check_columns(estimator, columns, "algorithm.ebpo.")
    return estimator, columns


def _learn(uid_N: NDArray[np.str_], reward_N: Array, length_N: Array) -> Array:
    """Advantages of the real rows; moves the process's memory on by one batch."""
    assert _process.chosen is not None
    estimator, columns = _process.chosen
    labels = {label: data_column(uid_N, column) for label, column in columns.items()}
    groups = group_rewards(reward_N, uid_N, lengths=length_N, **labels)
    advantage_N, info, state = estimator.step(_process.state, groups)
    if not _process.statistics and not _process.saved and _remembers(estimator, state):
        log.warning("nothing saves the memory of %s: a resumed run starts with none. %s", estimator.name, REMEDY)
    said = {"groups": float(len(groups.size_P)), "rollouts": float(len(uid_N)), **measure(info, groups, advantage_N)}
    _process.state, _process.statistics = state, {f"ebpo/{name}": value for name, value in said.items()}
    return np.asarray(advantage_N)


def _remembers(estimator: Estimator, state: Any) -> bool:
    """Whether anything of this state reaches the next batch."""
    return dump_state(estimator, estimator.forget(state)) != dump_state(estimator, estimator.init())


class StateCallback(CheckpointCallback):
    """verl's checkpoint callback: restores the memory when the trainer is built, saves it after each checkpoint.

    config: verl's whole config. With an estimator of verl's own it keeps nothing. Raises InputError for a checkpoint
    without the memory, or with that of another estimator or other settings, and for what `check_config` refuses.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        reset()
        check_config(config)
        preset = _presets.get(str(config.algorithm.adv_estimator))
        if preset is not None:
            estimator, columns = _choose(preset, config.algorithm)
            folder = resumed_folder(config.trainer)
            _process.state = estimator.init() if folder is None else read_state(folder, estimator)
            _process.chosen, _process.saved = (estimator, columns), True

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, **_: Any) -> None:
        """Write the memory into the checkpoint, complete or not at all; the statistics go to the trainer's logger."""
        if _process.chosen is not None:
            write_state(Path(checkpoint_dir), _process.chosen[0], _process.state)
            if _process.statistics and hasattr(trainer, "logger"):
                trainer.logger.log(data=last_statistics(), step=global_step)


def register_presets() -> None:
    """Put every preset into verl's registry; call it again after registering presets of your own."""
    plugins.enter()
    for preset in names():
        for name in {f"ebpo_sim.{preset}", preset} - _presets.keys():
            try:
                register_adv_est(name)(partial(advantages, preset))
                _presets[name] = preset
            except ValueError:  # the plain name is taken
                if name not in VERLS_OWN:
                    log.warning("%s in verl's registry is not this project's: use ebpo_sim.%s", name, preset)


register_presets()
