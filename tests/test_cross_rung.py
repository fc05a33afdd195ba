"""One objective on every rung: NumPy by hand, torch's autograd through llm's loss, the compiled chains, and inside TRL
and verl, whose own losses are held to it where they have the same. TRL and verl are skipped where they are missing.

The same tokens give the same gradient in the parameters of the chains' policy, to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from ebpo_sim.chains.policy import step_distributions
from ebpo_sim.chains.population import skill_chain
from ebpo_sim.chains.update import Learner, Rollouts, batch_of, gradient, layout_of, sample, tokens_of, update
from ebpo_sim.errors import InputError
from ebpo_sim.objectives import (
    BAPO,
    CISPO,
    DPPO,
    DPPOKL,
    GBPO,
    GMPO,
    GSPO,
    IPO,
    KL,
    MHPO,
    REAL,
    SAPO,
    TIS,
    TOPR,
    VESPO,
    Aggregation,
    Clip,
    ClipCov,
    DisCO,
    EntropyBonus,
    IcePop,
    KLCov,
    KLOld,
    MinPRO,
    Objective,
    Push,
    R2VPOFixed,
    Tokens,
    needs,
)
from ebpo_sim.objectives.aggregation import Rule
from ebpo_sim.objectives.base import Scope
from ebpo_sim.part import Draw, Need, Stateless
from llm.objectives import Loss
from needs import require

OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "clip": (Clip(),),
    "clip higher": (Clip(0.2, 0.28),),
    "no clip": (Clip(None, None),),
    "dual clip": (Clip(dual=1.5),),
    "k1": (KL(0.3, "k1"),),
    "k2": (KL(0.3, "k2"),),
    "k3": (KL(0.3, "k3", clamp=0.5),),
    "clip and k3": (Clip(), KL(0.3, "k3")),
    "cispo": (CISPO(),),
    "dppo": (DPPO(0.05),),
    "dppo capped": (DPPO(0.05, cap=1.5),),
    "sapo": (SAPO(),),
    "mhpo": (MHPO(),),
    "r2vpo, fixed": (R2VPOFixed(0.4),),
    "gspo": (GSPO(0.2, 0.28),),
    "gmpo": (GMPO(),),
    "vespo": (VESPO(),),
    "topr": (TOPR(),),
    "minpro": (MinPRO(),),
    "dppo kl capped": (DPPOKL(0.05, cap=1.5),),
    "ipo": (IPO(0.1),),
    "no clip, kl to the old policy": (Clip(None, None), KLOld(0.3)),
}
WHOLE: dict[str, tuple[Objective, ...]] = {  # those that look at groups or batches, which the chains alone hand over
    "real": (REAL(),),
    "disco": (DisCO(beta=1.0),),
    "gbpo": (GBPO(),),
    "bapo": (BAPO(),),
    "clip_cov": (ClipCov(1.0, 0.1, 2.0, 0.2, 0.28),),
    "kl_cov": (KLCov(0.3),),
}
GROUP, LONGEST = 6, 4
RULES: dict[Rule, tuple[str, str]] = {  # a token's weight, and the names that TRL and verl have for it
    "token_mean": ("dapo", "token-mean"),
    "sequence_mean": ("grpo", "seq-mean-token-mean"),
    "constant_length": ("dr_grpo", "seq-mean-token-sum-norm"),
    "sequence_sum": ("luspo", "seq-mean-token-sum"),
}


class Scene(NamedTuple):
    """Answers drawn at start_SK, the policy now, the reference policy, and the answers' advantages."""

    rolled: Rollouts
    rolled_at: np.ndarray
    theta_SK: np.ndarray
    reference_PLK: np.ndarray
    advantage_PG: np.ndarray


@pytest.fixture(scope="module")
def scene() -> Scene:
    """40 prompts of 1 to 4 steps, 6 answers each, far enough off-policy that every bound holds some tokens."""
    population = skill_chain(prompts=40, actions=5, seed=3)
    rng = np.random.default_rng(3)
    rolled = sample(population.start_SK, population.prompts, GROUP, rng)
    advantage_PG = rng.normal(size=(40, GROUP)) * (rng.random((40, GROUP)) < 0.8)
    moved, reference = (population.start_SK + 0.7 * rng.normal(size=population.start_SK.shape) for _ in range(2))
    return Scene(rolled, population.start_SK, moved, step_distributions(reference, population.prompts), advantage_PG)


def log_policy(theta_SK: torch.Tensor, rolled: Rollouts) -> torch.Tensor:
    """(N, T, K) log pi of every step, from its definition."""
    prompts = rolled.prompts
    right = torch.arange(theta_SK.shape[1]) == torch.from_numpy(prompts.right_PL)[..., None]
    logits = theta_SK[torch.from_numpy(prompts.skills_PL)] + torch.from_numpy(prompts.offset_PL)[..., None] * right
    return torch.log_softmax(logits, -1).repeat_interleave(GROUP, 0)


def log_probs(theta_SK: torch.Tensor, rolled: Rollouts) -> torch.Tensor:
    """(N, T) of the answers."""
    actions = torch.from_numpy(rolled.actions_PGL.reshape(-1, rolled.actions_PGL.shape[-1]))
    return log_policy(theta_SK, rolled).gather(-1, actions[..., None])[..., 0]


def rows(scene: Scene, objectives: tuple[Objective, ...]) -> Tokens:
    """The tokens as the chains build them, a rollout a row, at the policy now."""
    layout = layout_of(scene.rolled, objectives, rollouts=True)
    tokens = tokens_of(scene.rolled, layout, scene.advantage_PG, objectives, scene.reference_PLK)
    return tokens._replace(log_prob_NT=log_probs(torch.from_numpy(scene.theta_SK), scene.rolled).numpy())


def by_hand(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    """sum over tokens of alpha push (e_action - pi), in a loop; alpha by its formula."""
    tokens, prompts = rows(scene, objectives), scene.rolled.prompts
    pushes = [o.push((), tokens) for o in objectives]
    push_NT = sum(p.log_prob_NT for p in pushes)
    pi_NTK = np.exp(log_policy(torch.from_numpy(scene.theta_SK), scene.rolled).numpy())
    total, count, found = int(tokens.mask_NT.sum()), len(tokens.mask_NT), np.zeros_like(scene.theta_SK)
    for n in range(count):
        p, g = divmod(n, GROUP)
        length = int(prompts.length_P[p])
        alpha = {"token_mean": 1 / total, "sequence_mean": 1 / (count * length),
                 "constant_length": 1 / (count * LONGEST), "sequence_sum": 1 / count}[rule]  # fmt: skip
        for step in range(length):
            score = -pi_NTK[n, step]
            score[scene.rolled.actions_PGL[p, g, step]] += 1
            found[prompts.skills_PL[p, step]] += alpha * push_NT[n, step] * score
    return found, sum(int(p.counts.get("clipped", 0)) for p in pushes)


def by_autograd(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    """Minus the gradient of llm's loss, the policy a torch program."""
    loss, tokens = Loss(objectives, Aggregation(rule, LONGEST)), rows(scene, objectives)
    theta = torch.from_numpy(scene.theta_SK.copy()).requires_grad_()
    weight_NT = loss.weights(torch.from_numpy(tokens.mask_NT).double())
    old, advantage, reference = (torch.from_numpy(np.array(x)) for x in (tokens.old_NT, tokens.advantage_NT[:, 0],
                                                                         tokens.reference_NT))  # fmt: skip
    worth, clipped = loss.loss(log_probs(theta, scene.rolled), old, advantage, weight_NT, reference)
    worth.backward()
    return -theta.grad.numpy(), clipped


def by_chains(scene: Scene, objectives: tuple[Objective, ...], rule: Rule) -> tuple[np.ndarray, int]:
    learner = Learner(objectives, Aggregation(rule, LONGEST), True, 0.1)
    return gradient(scene.theta_SK, scene.rolled, scene.advantage_PG, learner, scene.reference_PLK)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_tokens_give_the_same_gradient(scene: Scene, name: str, rule: Rule) -> None:
    """Guards every host of objectives against the others: 1e-12 of the largest component, and equal counts."""
    expected, held = by_hand(scene, OBJECTIVES[name], rule)
    scale = np.max(np.abs(expected))
    assert scale > 1e-3
    for found, count in (by_autograd(scene, OBJECTIVES[name], rule), by_chains(scene, OBJECTIVES[name], rule)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
        assert count == held


@pytest.mark.parametrize("name", WHOLE)
def test_groups_and_batches_on_the_chains(scene: Scene, name: str) -> None:
    """Guards what those objectives are handed: rows of whole groups, in the order of their numbers; and that they are
    refused where some rows come at a time."""
    expected, held = by_hand(scene, WHOLE[name], "sequence_mean")
    found, count = by_chains(scene, WHOLE[name], "sequence_mean")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))
    assert count == held and np.max(np.abs(expected)) > 1e-3
    with pytest.raises(InputError, match=r"looks at a whole (group|batch)"):
        Loss(WHOLE[name])


def test_the_scene_tries_every_bound(scene: Scene) -> None:
    """Guards the test above: each objective differs from the unclipped one here, by bounds that hold tokens."""
    free, none_held = by_hand(scene, OBJECTIVES["no clip"], "token_mean")
    assert none_held == 0
    gradients = {name: by_hand(scene, objectives, "token_mean") for name, objectives in OBJECTIVES.items()}
    for name, (found, held) in gradients.items():
        if name != "no clip":
            assert np.max(np.abs(found - free)) > 1e-4, name
        if name in (
            "clip",
            "clip higher",
            "dual clip",
            "cispo",
            "dppo",
            "dppo capped",
            "gspo",
            "gmpo",
            "topr",
            "minpro",
            "ipo",
        ):
            assert held > 20, name
    assert gradients["dual clip"][1] > gradients["clip"][1]
    assert not np.array_equal(gradients["dppo"][0], gradients["dppo capped"][0])
    sums = by_hand(scene, OBJECTIVES["clip"], "sequence_mean")[0]
    assert np.max(np.abs(sums - gradients["clip"][0])) > 1e-4


class Trainers(NamedTuple):
    """TRL's trainer and ours; what its loss is given is theirs, the forward pass alone is replaced."""

    own: Any
    pushed: Any


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    require("trl")
    from trl import GRPOTrainer

    import trl_toy
    from ebpo_sim.integrations.trl import MethodTrainer

    folder: Path = tmp_path_factory.mktemp("trl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", lambda self, *a, **k: self.forward())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what transformers says about its own settings
            made = Trainers(*(trl_toy.trainer(folder, kind=kind) for kind in (GRPOTrainer, MethodTrainer)))
        for one in made:
            one.current_gradient_accumulation_steps = 1
            one.max_completion_length = LONGEST
        yield made


def by_trl(made: Any, scene: Scene, reference: bool, **more: Any) -> np.ndarray:
    """Minus the gradient of a trainer's `_compute_loss`; the batch as TRL's generation hands it over."""
    tokens = rows(scene, (KL(),))
    theta = torch.from_numpy(scene.theta_SK.copy()).requires_grad_()
    now_NT = log_probs(theta, scene.rolled)
    made.forward = lambda: (now_NT, torch.zeros_like(now_NT), None)
    mask_NT, ids = torch.from_numpy(tokens.mask_NT).long(), torch.zeros_like(now_NT).long()
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask_NT,
        "advantages": torch.from_numpy(tokens.advantage_NT[:, 0].copy()),
        "old_per_token_logps": torch.from_numpy(np.array(tokens.old_NT)), "num_items_in_batch": mask_NT.sum(), **more,
    }  # fmt: skip
    if reference:
        inputs["ref_per_token_logps"] = torch.from_numpy(np.array(tokens.reference_NT))
    made._compute_loss(made.model, inputs).backward()
    return -theta.grad.numpy()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_inside_trl(trl: Trainers, scene: Scene, name: str, rule: Rule) -> None:
    """Guards MethodTrainer: every objective under every weight of tokens that TRL has, and what it logs."""
    made, objectives = trl.pushed, OBJECTIVES[name]
    made.objectives, made.loss_type = objectives, RULES[rule][0]
    made.beta = 1.0 if "reference" in needs(objectives) else 0.0
    expected, held = by_hand(scene, objectives, rule)
    made._metrics["train"].clear()
    found = by_trl(made, scene, made.beta != 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))
    logged = made._metrics["train"]
    assert not [metric for metric in logged if metric.startswith("clip_ratio")]
    if any("clipped" in o.push((), rows(scene, objectives)).counts for o in objectives):
        assert logged["ebpo/clipped"] == [pytest.approx(held / rows(scene, objectives).mask_NT.sum(), rel=1e-12)]
    tokens = rows(scene, (KL(),))
    d = (tokens.reference_NT - tokens.log_prob_NT)[tokens.mask_NT]
    assert logged.get("kl") == ([pytest.approx(np.mean(np.expm1(d) - d))] if made.beta else None)


TRL_OWN: dict[str, dict[str, Any]] = {  # the options of TRL that mean the same as these objectives
    "clip": {"epsilon_low": 0.2, "epsilon_high": 0.2},
    "clip higher": {"epsilon_low": 0.2, "epsilon_high": 0.28},
    "no clip": {"epsilon_low": 1.0, "epsilon_high": 1e9},
    "dual clip": {"epsilon_low": 0.2, "epsilon_high": 0.2, "delta": 1.5},
    "clip and plain k3": {"epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.3},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
    "sapo": {"loss_type": "sapo"},
    "gspo": {"importance_sampling_level": "sequence", "epsilon_low": 0.2, "epsilon_high": 0.28},
    "vespo": {"loss_type": "vespo"},
}
LOSSES: list[tuple[str, Rule]] = [  # with cispo and sapo comes one weight of tokens each
    *((name, rule) for name in TRL_OWN for rule in RULES if "loss_type" not in TRL_OWN[name]),
    ("cispo", "token_mean"),
    ("sapo", "sequence_mean"),
    ("vespo", "token_mean"),
]
PLAIN = {"clip and plain k3": (Clip(), KL(0.3))}


OFF = {"beta": 0.0, "delta": None, "use_bias_correction_kl": False, "importance_sampling_level": "token"}


def set_own(made: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """The options in TRL's trainer, its arguments where they are read from there."""
    for option, value in {**OFF, **options}.items():
        where = made if hasattr(made, option) else made.args
        monkeypatch.setattr(where, option, value, raising=option == "delta")


@pytest.mark.parametrize(("name", "rule"), LOSSES)
def test_trls_own_losses_are_these_objectives(
    trl: Trainers, scene: Scene, name: str, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the claim that TRL's flags mean the same: its own loss, by its own flags, to rounding."""
    options = {"loss_type": RULES[rule][0], **TRL_OWN[name]}
    set_own(trl.own, monkeypatch, options)
    expected, _ = by_hand(scene, {**OBJECTIVES, **PLAIN}[name], rule)
    found = by_trl(trl.own, scene, "beta" in options)
    within = 1e-6 if name == "sapo" else 1e-12  # its temperatures are float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=within * np.max(np.abs(expected)))


def test_trls_gmpo_is_this_objective(trl: Trainers, scene: Scene, tmp_path: Path) -> None:
    """Guards GMPO against TRL's experimental trainer of that name, whose bounds are in nats as well."""
    from trl.experimental.gmpo import GMPOTrainer

    import trl_toy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = trl_toy.trainer(tmp_path, kind=GMPOTrainer)
    made.current_gradient_accumulation_steps, made.epsilon_low, made.epsilon_high = 1, 0.4, 0.4
    expected, _ = by_hand(scene, OBJECTIVES["gmpo"], "sequence_mean")
    found = by_trl(made, scene, False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


@pytest.mark.parametrize("sequence", [False, True])
def test_trls_correction_for_vllm(trl: Trainers, scene: Scene, sequence: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what TRL does to the ratio of trainer and sampler: it weights the policy's loss and no divergence."""
    mask_NT = rows(scene, ()).mask_NT
    ratio = torch.from_numpy(
        np.random.default_rng(5).uniform(0, 2, (len(mask_NT), 1 if sequence else mask_NT.shape[1]))
    )
    for made in trl:
        monkeypatch.setattr(made, "use_vllm", True)
        monkeypatch.setattr(made, "vllm_importance_sampling_correction", True)
        monkeypatch.setattr(made, "loss_type", "grpo")
    set_own(trl.own, monkeypatch, TRL_OWN["clip and plain k3"])
    trl.pushed.objectives, trl.pushed.beta = PLAIN["clip and plain k3"], 1.0
    theirs = by_trl(trl.own, scene, True, importance_sampling_ratio=ratio)
    ours = by_trl(trl.pushed, scene, True, importance_sampling_ratio=ratio)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.max(np.abs(theirs)))
    assert np.max(np.abs(ours - by_trl(trl.pushed, scene, True))) > 1e-4


def test_trls_choice_of_tokens(trl: Trainers, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards top_entropy_quantile and accumulation: both apply to the pushes as to TRL's own loss."""
    tokens = rows(scene, ())
    entropies = torch.from_numpy(np.random.default_rng(6).random(tokens.mask_NT.shape))
    set_own(trl.own, monkeypatch, TRL_OWN["clip"])
    trl.pushed.objectives, trl.pushed.beta = OBJECTIVES["clip"], 0.0
    found = []
    for made in trl:
        monkeypatch.setattr(made, "loss_type", "grpo")
        monkeypatch.setattr(made, "top_entropy_quantile", 0.5)
        monkeypatch.setattr(made, "current_gradient_accumulation_steps", 4)
        monkeypatch.setattr(made, "get_high_entropy_mask", lambda e, mask, q: (entropies > 0.5) & mask.bool())
        found.append(by_trl(made, scene, False))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-12 * np.max(np.abs(found[0])))
    whole, _ = by_hand(scene, OBJECTIVES["clip"], "sequence_mean")
    assert np.max(np.abs(found[1] - whole / 4)) > 1e-4


@pytest.fixture(scope="module")
def verl() -> Any:
    require("verl")
    import verl_driver

    return verl_driver


def by_verl(function: Callable[..., Any], scene: Scene, rule: Rule, policy_loss: Any, **config: Any) -> Any:
    """(minus the gradient of a policy loss of verl's registry, its metrics), by the arguments that verl hands over."""
    from verl.workers.config import ActorConfig

    tokens = rows(scene, (KL(),))
    theta = torch.from_numpy(scene.theta_SK.copy()).requires_grad_()
    section = {} if policy_loss is None else {"policy_loss": policy_loss}
    actor = ActorConfig(
        strategy="fsdp", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=RULES[rule][1],
        global_batch_info={"loss_scale_factor": LONGEST}, **section, **config,
    )  # fmt: skip
    worth, metrics = function(
        old_log_prob=torch.from_numpy(np.array(tokens.old_NT)),
        log_prob=log_probs(theta, scene.rolled),
        advantages=torch.from_numpy(np.broadcast_to(tokens.advantage_NT, tokens.mask_NT.shape).copy()),
        response_mask=torch.from_numpy(tokens.mask_NT),
        loss_agg_mode=RULES[rule][1],
        config=actor,
        rollout_is_weights=None,
    )
    worth.backward()
    return -theta.grad.numpy(), metrics


TEXTS = {  # the objectives above, but for those that need a reference, as verl's config spells them
    "clip": "clip",
    "clip higher": "clip:high=0.28",
    "no clip": "clip:low=none,high=none",
    "dual clip": "clip:dual=1.5",
    "cispo": "cispo",
    "dppo": "dppo:divergence=0.05",
    "dppo capped": "dppo:divergence=0.05,cap=1.5",
    "sapo": "sapo",
    "mhpo": "mhpo",
    "r2vpo, fixed": "r2vpo_fixed:penalty=0.4",
    "gspo": "gspo:low=0.2,high=0.28",
    "gmpo": "gmpo",
    "vespo": "vespo",
    "topr": "topr",
    "minpro": "minpro",
    "dppo kl capped": "dppo_kl:cap=1.5",
    "ipo": "ipo:divergence=0.1",
    "no clip, kl to the old policy": "clip:low=none,high=none + kl_old:coef=0.3",
}
WITHIN = {"sequence_mean": 1e-7}  # verl divides by length + 1e-8


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", TEXTS)
def test_inside_verl(verl: Any, scene: Scene, name: str, rule: Rule) -> None:
    """Guards the registered policy loss: every objective under every weight of tokens that verl shares with us."""
    named = verl.adapter.PolicyLoss(loss_mode="ebpo_sim", objectives=TEXTS[name])
    found, metrics = by_verl(verl.core_algos.get_policy_loss_fn("ebpo_sim"), scene, rule, named)
    expected, held = by_hand(scene, OBJECTIVES[name], rule)
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN.get(rule, 1e-12) * np.max(np.abs(expected)))
    tokens = rows(scene, ())
    assert metrics.get("actor/clipped", 0) == pytest.approx(held / tokens.mask_NT.sum(), rel=1e-6)
    assert metrics["actor/ppo_kl"] == pytest.approx(np.mean((tokens.old_NT - tokens.log_prob_NT)[tokens.mask_NT]))


VERL_OWN: dict[str, tuple[str, dict[str, Any]]] = {  # verl's losses and settings that mean the same
    "clip": ("vanilla", {"clip_ratio_c": 1e9}),
    "clip higher": ("vanilla", {"clip_ratio_high": 0.28, "clip_ratio_c": 1e9}),
    "no clip": ("vanilla", {"clip_ratio_low": 1.0, "clip_ratio_high": 1e9, "clip_ratio_c": 1e9}),
    "dual clip": ("vanilla", {"clip_ratio_c": 1.5}),
    "cispo both ways": ("cispo", {}),
    "dppo capped": ("dppo_tv", {"clip_ratio": 0.05, "clip_ratio_low": 0.05, "clip_ratio_high": 0.05,
                                "clip_ratio_c": 1.5}),
    "sapo": ("sapo", {}),
    "gspo": ("gspo", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}),
    "gmpo": ("geo_mean", {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}),
    "dppo kl capped": ("dppo_kl", {"clip_ratio": 0.05, "clip_ratio_low": 0.05, "clip_ratio_high": 0.05,
                                   "clip_ratio_c": 1.5}),
    "clip_cov": ("clip_cov", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}),
    "kl_cov": ("kl_cov", {}),
}  # fmt: skip
VERL_SECTIONS: dict[str, dict[str, float]] = {
    "clip_cov": {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 2.0},
    "kl_cov": {"kl_cov_ratio": 0.3, "ppo_kl_coef": 1.0},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", VERL_OWN)
def test_verls_own_losses_are_these_objectives(verl: Any, scene: Scene, name: str, rule: Rule) -> None:
    """Guards the claim that verl's settings mean the same: its own loss, by its own settings."""
    mode, settings = VERL_OWN[name]
    from verl.workers.config import PolicyLossConfig

    section = PolicyLossConfig(**VERL_SECTIONS[name]) if name in VERL_SECTIONS else None
    found, _ = by_verl(verl.core_algos.get_policy_loss_fn(mode), scene, rule, section, **settings)
    due = "sequence_mean" if mode in ("sapo", "geo_mean") else rule  # whatever loss_agg_mode is
    expected, _ = by_hand(scene, {**OBJECTIVES, **WHOLE, "cispo both ways": (CISPO(0.2, 0.2),)}[name], due)
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN.get(due, 1e-12) * np.max(np.abs(expected)))


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_verls_divergences_are_these_objectives(verl: Any, scene: Scene, kind: Any) -> None:
    """Guards the remedy that a refused kl names: use_kl_loss with kl_loss_type is this KL; verl's k3 has a clamp."""
    objectives = (KL(0.3, kind, clamp=10.0 if kind == "k3" else None),)
    tokens = rows(scene, objectives)
    theta = torch.from_numpy(scene.theta_SK.copy()).requires_grad_()
    reference = torch.from_numpy(np.array(tokens.reference_NT))
    kl_NT = verl.core_algos.kl_penalty(log_probs(theta, scene.rolled), reference, kind)
    mask_NT = torch.from_numpy(tokens.mask_NT)
    (0.3 * verl.core_algos.agg_loss(kl_NT, mask_NT, "token-mean")).backward()
    expected, _ = by_hand(scene, objectives, "token_mean")
    np.testing.assert_allclose(-theta.grad.numpy(), expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


@dataclass(frozen=True)
class AsRows(Stateless):
    """Another objective, declared to look at whole sequences: the chains then hand it rollouts as padded rows."""

    inner: Objective
    scope: ClassVar[Scope] = "sequence"
    zero_at_zero: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return self.inner.needs

    def __post_init__(self) -> None:
        """Nothing to check: the inner objective has checked its own settings."""

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        assert tokens.mask_NT.shape == tokens.advantage_NT.shape
        assert not tokens.mask_NT.all()
        assert len(tokens.group_N) == len(tokens.mask_NT)
        return self.inner.push(state, tokens, draw)


@dataclass(frozen=True)
class Declared(Stateless):
    """Another objective that is never handed an empty mini-batch, and whether the chains may skip advantages of 0."""

    inner: Objective
    zero_at_zero: bool
    scope: ClassVar[Scope] = "token"

    def __post_init__(self) -> None:
        """Nothing to check: the inner objective has checked its own settings."""

    def push(self, state: Any, tokens: Tokens, draw: Draw | None = None) -> Push:
        assert tokens.mask_NT.size
        return self.inner.push(state, tokens, draw)


@pytest.mark.parametrize("objective", [Clip(), Clip(dual=1.5), DPPO(), CISPO()])
def test_prompts_that_push_nothing_are_left_out_exactly(scene: Scene, objective: Objective) -> None:
    """Guards what is skipped: with two prompts of three silent, a whole mini-batch among them, the policy reached and
    the gradients' norm are those of computing every prompt, to the bit, from a third of the tokens."""
    advantage_PG = scene.advantage_PG * (np.arange(40) % 3 == 0)[:, None]
    advantage_PG[10:20] = 0.0
    reached, computed = [], []
    for objectives in ((Declared(objective, True),), (Declared(objective, False),)):
        learner = Learner(objectives, Aggregation("sequence_mean"), True, 0.1, 4, 2)
        theta = scene.rolled_at.copy()
        zero = np.zeros_like(theta)
        made = update(theta, zero, zero.copy(), 0, scene.rolled, advantage_PG, learner)
        reached.append((theta, made.updates, made.norm))
        computed.append(len(batch_of(scene.rolled, advantage_PG, learner, None, 4).tokens.old_NT))
    (some, *rest), (every, *others) = reached
    np.testing.assert_array_equal(some, every)
    assert rest == others
    assert np.max(np.abs(every - scene.rolled_at)) > 0.1
    assert 0 < computed[0] < 0.5 * computed[1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_arrangements_of_tokens_give_the_same_bits(scene: Scene, name: str) -> None:
    """Guards where tokens stand: steps as rows without padding, and rollouts as padded rows; over two epochs of three
    mini-batches of unequal size the policy reached, the gradients' norm and the tokens held are equal."""
    reached = []
    for objectives in (OBJECTIVES[name], tuple(AsRows(o) for o in OBJECTIVES[name])):
        learner = Learner((*objectives, EntropyBonus(0.1)), Aggregation("sequence_mean"), False, 30.0, 3, 2)
        theta = scene.rolled_at.copy()
        zero = np.zeros_like(theta)
        made = update(theta, zero, zero.copy(), 0, scene.rolled, scene.advantage_PG, learner, scene.reference_PLK)
        reached.append((theta, made))
    (plain, one), (padded, other) = reached
    np.testing.assert_array_equal(plain, padded)
    assert one == other
    assert one.updates == 6
    assert np.max(np.abs(plain - scene.rolled_at)) > 0.1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_verls_corrections_are_these(verl: Any, scene: Scene, level: Any) -> None:
    """Guards the remedy that a refused correction names: verl's rollout_is with one threshold is TIS, with two
    IcePop."""
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    tokens = rows(scene, ())
    sampler = tokens.old_NT + np.random.default_rng(4).normal(size=tokens.old_NT.shape) * tokens.mask_NT
    mask_NT, ratio = torch.from_numpy(tokens.mask_NT), torch.from_numpy(tokens.old_NT - sampler)
    for correction, threshold in ((TIS(2.0, level), 2.0), (IcePop(level=level), "0.5_5.0")):
        theirs, _ = compute_rollout_correction_weights(ratio, mask_NT.double(), level, threshold)
        ours = np.where(tokens.mask_NT, correction.weight(tokens._replace(behaviour_NT=sampler)), 0.0)
        np.testing.assert_allclose(ours, np.where(tokens.mask_NT, theirs.numpy(), 0.0), rtol=1e-12)
        assert np.mean(ours[tokens.mask_NT] != np.exp(ratio.numpy())[tokens.mask_NT]) > 0.02
