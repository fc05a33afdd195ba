"""`MethodTrainer` with named objectives: it trains as TRL does by its own flags, and refuses what cannot work there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from needs import require

require("trl")

import torch  # noqa: E402

from ebpo_sim import InputError, make  # noqa: E402
from ebpo_sim.estimators import dump_state  # noqa: E402
from ebpo_sim.integrations.shared import STATE_FILE, check_columns, method_of  # noqa: E402
from ebpo_sim.integrations.trl import EBPOTrainer, MethodTrainer  # noqa: E402
from ebpo_sim.methods.method import Method  # noqa: E402
from ebpo_sim.objectives import CISPO, KL, Clip  # noqa: E402
from ebpo_sim.rungs import TRL  # noqa: E402
from trl_toy import NEWS, Graded, Remembering, model, trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(line) for line in NEWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's model on disk: TRL reads its reference policy by name."""
    where = tmp_path_factory.mktemp("model")
    model().save_pretrained(where)
    return where


def trained(folder: Path, out: Path, **changes: Any) -> tuple[torch.Tensor, list[dict[str, float]], Any]:
    """(weights, log, trainer) after the toy's steps by plain gradient descent, far enough off-policy to clip."""

    def kind(_: Any, **keywords: Any) -> Any:
        return Remembering(str(folder), **keywords)

    steps = {"optim": "sgd", "learning_rate": 0.5, "num_iterations": 3, "gradient_accumulation_steps": 2,
             "per_device_train_batch_size": 8, "steps_per_generation": 4, "max_steps": 6}  # fmt: skip
    made = trainer(out, kind=kind, **{**steps, **changes})
    made.train()
    weights = torch.cat([w.detach().flatten() for w in made.model.parameters()])
    return weights, [row for row in made.state.log_history if "entropy" in row], made


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_objectives_train_as_trls_own_flags(loss_type: str, folder: Path, tmp_path: Path) -> None:
    """Guards the whole way, several optimizer steps a batch and micro-batches among it: the weights are TRL's own."""
    own = {"epsilon": 0.01, "epsilon_high": 0.02, "delta": 1.05, "beta": 0.05}
    if "use_bias_correction_kl" in __import__("trl").GRPOConfig.__dataclass_fields__:
        own["use_bias_correction_kl"] = False
    theirs, heard, _ = trained(folder, tmp_path, estimator="grpo", loss_type=loss_type, **own)
    method = "grpo + clip:low=0.01,high=0.02,dual=1.05 + kl:coef=0.05"
    ours, logged, made = trained(folder, tmp_path, method=method, loss_type=loss_type)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert made.args.beta == 1.0 and made.beta == 1.0 and made.ref_model is not None
    assert [row["kl"] for row in logged] == pytest.approx([row["kl"] for row in heard], abs=1e-6)
    assert logged[-1]["kl"] > 0 and logged[-1]["ebpo/clipped"] > 0
    assert logged[-1]["ebpo/clipped"] >= heard[-1]["clip_ratio/region_mean"] - 1e-6
    assert not [name for name in logged[-1] if name.startswith("clip_ratio")]
    free, _, _ = trained(folder, tmp_path, method="grpo + clip:low=none,high=none", loss_type=loss_type)
    assert (ours - free).abs().max() > 1e-4


def test_an_objective_that_trl_does_not_have(folder: Path, tmp_path: Path) -> None:
    """Guards the point of it: another objective trains another model, evaluation is scored, and kl needs no clip."""
    plain, _, _ = trained(folder, tmp_path, method="rloo + clip")
    for method in ("rloo + mhpo", "rloo + r2vpo_fixed:penalty=0.4", "rloo + clip + kl:coef=0.3,kind=k2"):
        found, _, made = trained(folder, tmp_path, method=method)
        assert torch.isfinite(found).all() and (found - plain).abs().max() > 1e-5, method
    scores = made.evaluate()
    assert scores["eval_kl"] > 0 and "eval_ebpo/clipped" in scores and not [n for n in scores if "clip_ratio" in n]


def test_old_and_new_names_are_one_class(tmp_path: Path) -> None:
    """Guards scripts: EBPOTrainer, its argument `estimator`, estimators and methods as objects."""
    assert EBPOTrainer is MethodTrainer
    assert trainer(tmp_path, kind=EBPOTrainer).estimator == make("ebpo")
    for given in ({"estimator": make("grpo")}, {"method": "grpo"}, {"method": Method("mine", make("grpo"), ())}):
        made = trainer(tmp_path, kind=MethodTrainer, **given)
        assert (made.estimator, made.objectives) == (make("grpo"), ())
    made = trainer(tmp_path, method=Method("mine", make("rloo"), (CISPO(high=0.2),)))
    assert made.objectives == (CISPO(high=0.2),) and made.args.beta == 0.0 and made.ref_model is None
    with pytest.raises(InputError, match="method and estimator are one argument"):
        trainer(tmp_path, method="rloo", estimator="rloo")


NAMED = {"method": "rloo + clip"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**NAMED, "beta": 0.1}, "beta must be 0.0 where objectives are named, got 0.1: name kl:coef"),
    ({**NAMED, "delta": 3.0}, "delta must be None .* name clip:dual"),
    ({**NAMED, "epsilon_high": 0.3}, "epsilon_high must be None .* name clip:high"),
    ({**NAMED, "importance_sampling_level": "sequence"}, "importance_sampling_level must be 'token'"),
    ({**NAMED, "off_policy_mask_threshold": 0.1}, "off_policy_mask_threshold must be None"),
    ({**NAMED, "loss_type": "cispo"}, "loss_type must be one of grpo, .* got 'cispo'"),
    ({"method": "rloo + clip + kl", "top_entropy_quantile": 0.5}, "top_entropy_quantile must be 1 .* divergence"),
    ({"method": "rloo + clip + entropy"}, "entropy needs entropy, which trl .* set GRPOConfig's entropy_coef"),
    ({"method": "rloo + clup"}, "unknown part of a method 'clup': did you mean 'clip'"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_what_named_objectives_replace_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Guards the constructor: an option without effect, or with another one than in TRL, is told of before any work."""
    with pytest.raises(InputError, match=said):
        trainer(tmp_path, **changes)


def test_liger_and_a_missing_configuration_are_refused() -> None:
    """Guards two more: a fused loss, which is not installed here, and a reference that no configuration asks for."""
    given = SimpleNamespace(
        beta=0.0, delta=None, epsilon_high=None, importance_sampling_level="token", off_policy_mask_threshold=None,
        use_liger_kernel=True,
    )  # fmt: skip
    with pytest.raises(InputError, match="use_liger_kernel must be False where objectives are named"):
        MethodTrainer(model(), Graded(), given, method="rloo + clip")
    with pytest.raises(InputError, match="args must be a GRPOConfig"):
        MethodTrainer(model(), Graded(), method="rloo + clip + kl")


def test_parts_that_cannot_stand_in_trl_are_refused_as_objects_too() -> None:
    """Guards methods made in Python: a state, a whole group, a label without its column."""

    class Remembers(Clip):
        def init(self) -> Any:
            return {"seen": 0.0}

    class Wide(Clip):
        scope = "group"

    for objective, said in ((Remembers(), "keeps a state"), (Wide(), "looks at a whole group.*token or a sequence")):
        with pytest.raises(InputError, match=f"{type(objective).__name__} {said}"):
            method_of(Method("mine", make("grpo"), (objective,)), TRL)
    needing: Any = SimpleNamespace(name="mine", needs=frozenset({"prompt_ids", "lengths"}))
    with pytest.raises(InputError, match="prompt_id_column must name a data-set column: mine needs prompt_ids"):
        check_columns(needing, {"clusters"})
    check_columns(needing, {"prompt_ids"})


def test_a_resumed_method_is_the_whole_run(folder: Path, tmp_path: Path) -> None:
    """Guards checkpoints: one codec with and without objectives, the reference policy back, and old files refused."""
    method = "ebpo_debiased:memory=0.9 + clip:high=0.02 + kl:coef=0.05"
    steps = {"num_iterations": 1, "steps_per_generation": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole, _, made = trained(folder, tmp_path / "whole", method=method, **steps)
    state = tmp_path / "whole" / "checkpoint-2" / STATE_FILE

    def resumed(method: str) -> Any:
        again = trainer(
            tmp_path / "again", kind=lambda _, **k: Remembering(str(folder), **k), method=method, optim="sgd",
            learning_rate=0.5, gradient_accumulation_steps=2, per_device_train_batch_size=8, **steps,
        )  # fmt: skip
        again.train(resume_from_checkpoint=str(state.parent))
        return again

    again = resumed(method)
    assert torch.equal(torch.cat([w.detach().flatten() for w in again.model.parameters()]), whole)
    assert again.estimator_state == made.estimator_state
    assert (
        dump_state(again.estimator, again.estimator_state)
        == (tmp_path / "whole" / "checkpoint-4" / STATE_FILE).read_text()
    )
    bare = resumed("ebpo_debiased:memory=0.9")  # objectives remember nothing, so they may change
    assert bare.estimator_state != made.estimator.init()
    with pytest.raises(InputError, match="belongs to 'ebpo_debiased"):
        resumed("ebpo + clip")
    state.write_text(state.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(InputError, match=r"format and version .*1.* this code reads version 2"):
        resumed(method)


def test_settings_of_an_objective_are_part_of_the_text() -> None:
    """Guards the text that reaches the trainer: each setting of each objective, none of TRL's."""
    made = method_of("rloo + cispo:high=0.2 + kl:coef=0.01,kind=k2", TRL)
    assert made.objectives == (replace(CISPO(), high=0.2), KL(0.01, "k2"))
