"""`ebpo_sim.integrations.verl` against verl itself: registry, config, rows, padding, columns, refusals."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import verl_driver
from ebpo_sim import InputError, group_rewards, make, names
from ebpo_sim.estimators import registry
from norm_baseline import LESS_NORM
from verl_driver import (  # noqa: F401  fresh is for every test
    adapter,
    compose,
    compute_advantage,
    config_of,
    core_algos,
    driver,
    fresh,
    memory,
    padded,
    proto,
    rows,
    take,
    torch,
)  # fmt: skip


def test_registry_holds_every_preset_and_keeps_verls() -> None:
    """Guards names: all presets as ebpo_sim.X, as X where verl has none, verl's functions untouched."""
    for preset in names():
        ours = core_algos.get_adv_estimator_fn(f"ebpo_sim.{preset}")
        plain = core_algos.get_adv_estimator_fn(preset)
        assert ours.args == (preset,)
        if preset in adapter.VERLS_OWN:
            assert plain.__module__ == "verl.trainer.ppo.core_algos"
        else:
            assert plain is not None and plain.func is ours.func and plain.args == (preset,)


def test_presets_registered_later_are_taken_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the open registry: presets of one's own follow with another call; a name that is taken is told of."""
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))
    monkeypatch.setattr(adapter, "_presets", dict(adapter._presets))
    monkeypatch.setattr(core_algos, "ADV_ESTIMATOR_REGISTRY", dict(core_algos.ADV_ESTIMATOR_REGISTRY))
    core_algos.register_adv_est("theirs")(print)
    before = dict(core_algos.ADV_ESTIMATOR_REGISTRY)

    def mine() -> Any:
        return make("dr_grpo")

    def theirs() -> Any:
        return make("dr_grpo")

    registry.register(mine)
    registry.register(theirs)
    adapter.register_presets()
    new = core_algos.ADV_ESTIMATOR_REGISTRY.keys() - before.keys()
    assert new == {"mine", "ebpo_sim.mine", "ebpo_sim.theirs"}
    assert before.items() <= core_algos.ADV_ESTIMATOR_REGISTRY.items()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line == "theirs in verl's registry is not this project's: use ebpo_sim.theirs"


def test_score_norms_are_refused_as_verl_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the refusal: when the callback is built, with the remedy; and its reason, that verl gives the sum of
    squared probabilities to no function but its own, even where it was computed."""
    monkeypatch.setattr(adapter, "make", lambda *_, **__: LESS_NORM)
    with pytest.raises(InputError, match=r"less_norm needs score_norms, which verl .* use weights=length"):
        verl_driver.build_checkpoint_callback(config_of("ebpo"))
    given: dict[str, Any] = {}

    def probe(**columns: Any) -> Any:
        given.update(columns)
        return columns["token_level_rewards"], columns["token_level_rewards"]

    monkeypatch.setitem(core_algos.ADV_ESTIMATOR_REGISTRY, "probe", probe)
    data = proto(rows(0))
    data.batch["sum_pi_squared"] = data.batch["old_log_probs"] = data.batch["token_level_rewards"]
    compute_advantage(data, adv_estimator="probe", config=config_of("probe").algorithm)
    assert set(given) == {"token_level_rewards", "response_mask", "config", "index"}


def test_no_critic_is_built() -> None:
    """Guards the v1 trainer's start: verl takes the name for one that needs no critic."""
    with pytest.warns(UserWarning, match="Disabled critic"):
        assert verl_driver.need_critic(config_of("ebpo")) is False


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ebpo", {}), ("ebpo", {"memory": 0.5, "order": "score_then_update"}), ("ebpo_debiased", {"memory": 0.95}),
     ("ebpo_sim.grpo", {"singleton": "raw", "eps": 1e-4}), ("reinforce_pp_baseline", {"eps": 1e-6})],
    ids=str,
)  # fmt: skip
def test_config_to_advantages(name: str, settings: dict[str, Any]) -> None:
    """Guards the whole way: overrides composed by verl's hydra, rows through its driver, our estimator's numbers."""
    config = compose(
        f"algorithm.adv_estimator={name}", *(f"+algorithm.ebpo.{key}={value}" for key, value in settings.items())
    )
    estimator = make(name.removeprefix("ebpo_sim."), **settings)
    state = estimator.init()
    for seed in range(3):
        batch = rows(seed, values=(0.0, 0.1, 0.7, 1.0))
        found = driver(batch, config).numpy()
        reward = batch.reward.astype(np.float32).astype(np.float64)
        expected, info, state = estimator.step(state, group_rewards(reward, batch.uid.tolist(), lengths=batch.length))
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-7)
        mask = np.arange(8) < batch.length[:, None]
        np.testing.assert_array_equal(found, found[:, :1] * mask)
        said = adapter.last_statistics()
        assert (said["ebpo/groups"], said["ebpo/rollouts"]) == (6, 18)
        assert said["ebpo/shrinkage"] == pytest.approx(np.mean(info.shrinkage_P), rel=1e-12)
        assert said["ebpo/uniform_groups"] == np.mean(info.degenerate_P) > 0


@pytest.mark.parametrize("name", ["ebpo", "ebpo_debiased", "reinforce_pp_baseline"])
def test_row_order_changes_nothing(name: str) -> None:
    """Guards against verl's balancing by length: shuffled batches give the same bits, advantages and memory."""
    config = config_of(name)
    batches = [rows(seed, sizes=(4, 3, 5, 1) * 10, values=(0.1, 0.35, 0.95, 1 / 3)) for seed in range(3)]
    straight = [driver(batch, config, dtype=torch.float64).numpy() for batch in batches]
    remembered = memory()
    adapter.reset()
    for seed, batch in enumerate(batches):
        order = np.random.default_rng(seed).permutation(len(batch.uid))
        shuffled = driver(take(batch, order), config, dtype=torch.float64).numpy()
        np.testing.assert_array_equal(shuffled, straight[seed][order])
    assert memory() == remembered


@pytest.mark.parametrize("name", ["ebpo", "ebpo_sim.grpo", "reinforce_pp_baseline", "james_stein"])
def test_padding_rows_are_not_there(name: str) -> None:
    """Guards the running statistics: verl's synthetic rows get 0 and change no other row and no memory."""
    config = config_of(name)
    plain = [driver(rows(seed), config).numpy() for seed in range(2)]
    remembered, said = memory(), adapter.last_statistics()
    adapter.reset()
    for seed in range(2):
        batch = padded(rows(seed), 6)
        order = np.random.default_rng(seed).permutation(len(batch.uid))
        found = np.empty((len(order), 8), dtype=np.float32)
        found[order] = driver(take(batch, order), config).numpy()
        np.testing.assert_array_equal(found[:-6], plain[seed])
        np.testing.assert_array_equal(found[-6:], 0)
    assert (memory(), adapter.last_statistics()) == (remembered, said)
    nothing = take(padded(rows(0), 5), slice(-5, None))
    np.testing.assert_array_equal(driver(nothing, config).numpy(), np.zeros((5, 8)))
    assert memory() == remembered


def test_masked_real_rows_still_count() -> None:
    """Guards the other side: rows that rollout_correction masked are learnt from, and only their advantage is 0."""
    config = config_of("ebpo")
    batch = rows(1)
    whole = driver(batch, config).numpy()
    remembered = memory()
    adapter.reset()
    masked = batch._replace(length=np.where(np.arange(18) < 4, 0, batch.length))
    found = driver(masked, config).numpy()
    np.testing.assert_array_equal(found[:4], 0)
    np.testing.assert_array_equal(found[4:], whole[4:])
    assert memory() == remembered


def test_contract_of_tensors() -> None:
    """Guards dtype and purity: results in the rewards' dtype, bool masks taken, inputs as they were."""
    function = core_algos.get_adv_estimator_fn("ebpo_released")
    results = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        data = proto(rows(1), dtype=dtype)
        before = {key: value.clone() for key, value in data.batch.items()}
        found, returns = function(**data.batch, index=data.non_tensor_batch["uid"], config=None, reward_baselines=None)
        assert found is returns and found.dtype == dtype and not found.requires_grad
        assert all(torch.equal(data.batch[key], before[key]) for key in before)
        as_bool = function(
            token_level_rewards=data.batch["token_level_rewards"],
            response_mask=data.batch["response_mask"].bool(),
            index=list(data.non_tensor_batch["uid"]),
        )
        assert torch.equal(as_bool[0], found)
        results[dtype] = found.double()
    assert torch.allclose(results[torch.float32], results[torch.float64], atol=1e-6)
    assert torch.allclose(results[torch.bfloat16], results[torch.float64], atol=1e-2)


def call(function: str = "ebpo", batch: Any = None, **more: Any) -> Any:
    """A function of verl's registry on a batch, without config unless `more` has one."""
    return core_algos.get_adv_estimator_fn(function)(**proto(batch or rows(1)).batch, **more)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown setting": (lambda: driver(rows(1), config_of("ebpo", memry=0.9)), "unknown setting of ebpo 'memry'"),
    "bad value": (lambda: driver(rows(1), config_of("ebpo", memory=2)), "memory must be"),
    "not settings": (lambda: call(index=rows(1).uid, config={"ebpo": 0.9}), "algorithm.ebpo must hold settings"),
    "oracle": (lambda: driver(rows(1), config_of("oracle_linear")), "needs prior"),
    "prior": (lambda: driver(rows(1), config_of("ebpo_debiased", prior={"nodes": [0.5]})), "prior cannot be given"),
    "no clusters": (lambda: driver(rows(1), config_of("ebpo_debiased", per_cluster=True)), "cluster_column must name"),
    "domain": (lambda: driver(rows(1, values=(-1.0, 1.0)), config_of("ebpo_beta_binomial")), r"rewards in \[0, 1\]"),
    "group of one": (lambda: driver(rows(1), config_of("dr_grpo", singleton="error")), "group of one"),
    "no uids": (call, "a uid for each of 18 rows, got None"),
    "too few uids": (lambda: call(index=["a"]), "a uid for each of 18 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    """Guards against silent nonsense: each is our own error, with the argument's name in it."""
    refused, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        refused()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rewards_that_are_not_finite_are_refused_and_not_learnt(bad: float) -> None:
    """Guards the memory: one NaN would stay in it for ever; the message names row and uid."""
    config = config_of("ebpo")
    driver(rows(1), config)
    remembered, said = memory(), adapter.last_statistics()
    batch = rows(2)
    batch.reward[7] = bad
    with pytest.raises(InputError, match=rf"row 7 \(uid {batch.uid[7]}\) sums to {bad}"):
        driver(batch, config)
    assert (memory(), adapter.last_statistics()) == (remembered, said)


def test_one_estimator_a_process() -> None:
    """Guards the single memory: other settings in the same process are refused until reset()."""
    driver(rows(1), config_of("ebpo"))
    with pytest.raises(InputError, match="a process has one estimator"):
        driver(rows(2), config_of("ebpo", memory=0.9))
    adapter.reset()
    assert adapter.last_statistics() == {}
    driver(rows(2), config_of("ebpo", memory=0.9))


def test_data_set_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards clusters and prompt ids: fetched by uid, nested ones by their path, and handed to the estimator."""
    batch = rows(1)
    told = {uid: {"topic": "abc"[n % 3], "index": n} for n, uid in enumerate(sorted(set(batch.uid)))}
    seen: list[Any] = []
    queue = SimpleNamespace(
        kv_list=lambda part: {part: {key: {} for u in told for key in (f"{u}_0_0", f"{u}_1_0", f"{u}_1_1", u)}},
        kv_batch_get=lambda keys, part, select_fields: {
            "extra_info": [told[key.rsplit("_", 2)[0]] for key in keys if key.count("_") == 2]
        },
    )
    monkeypatch.setitem(sys.modules, "transfer_queue", queue)
    monkeypatch.setattr(adapter, "group_rewards", lambda *a, **k: seen.append(k) or group_rewards(*a, **k))
    columns = {"cluster_column": "extra_info.topic", "prompt_id_column": "extra_info.index"}
    config = config_of("ebpo_debiased", per_cluster=True, **columns)
    found = driver(padded(batch, 2), config).numpy()[:-2, 0]
    order = np.lexsort((batch.length, batch.reward, batch.uid.astype(str)))
    assert seen[0]["clusters"] == [told[uid]["topic"] for uid in batch.uid[order]]
    assert seen[0]["prompt_ids"] == [told[uid]["index"] for uid in batch.uid[order]]
    estimator = make("ebpo_debiased", per_cluster=True)
    clusters = [told[uid]["topic"] for uid in batch.uid]
    groups = group_rewards(batch.reward, batch.uid.tolist(), lengths=batch.length, clusters=clusters)
    expected, _, _ = estimator.step(estimator.init(), groups)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    missing = take(batch, slice(None))
    missing.uid[missing.uid == missing.uid[0]] = "unknown"
    with pytest.raises(InputError, match=r"column 'extra_info.topic' is not in verl's TransferQueue .*unknown"):
        driver(missing, config)
