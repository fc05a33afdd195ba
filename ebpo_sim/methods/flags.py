"""Settings of TRL 1.16 and verl 0.9.1 that mean a part of ours; "-" where none is known to be the same."""

from __future__ import annotations

from typing import Any, NamedTuple

from ebpo_sim.estimators import make
from ebpo_sim.methods.shaping import Overlong
from ebpo_sim.objectives import (
    CISPO,
    DPPO,
    DPPOKL,
    GMPO,
    GSPO,
    IPO,
    KL,
    SAPO,
    TIS,
    VESPO,
    Aggregation,
    Clip,
    ClipCov,
    EntropyBonus,
    IcePop,
    KLCov,
)
from ebpo_sim.sampling import Dynamic

TRL, VERL = (f"test_{library}s_own_losses_are_these_objectives" for library in ("trl", "verl"))
ACTOR = "actor_rollout_ref.actor"
RULES = {  # TRL's loss_type, verl's loss_agg_mode
    "token_mean": ("dapo", "token-mean"), "sequence_mean": ("grpo", "seq-mean-token-mean"),
    "constant_length": ("dr_grpo", "seq-mean-token-sum-norm"), "sequence_sum": ("luspo", "seq-mean-token-sum"),
}  # fmt: skip
_TRLS, _VERLS = "test_our_numbers_are_trls", "test_advantages_are_verls"
ESTIMATORS = {
    "grpo": ('scale_rewards="group"; its eps is 1e-4', "algorithm.adv_estimator=grpo", (_TRLS, _VERLS)),
    "dr_grpo": ('scale_rewards="none"', "algorithm.adv_estimator=grpo algorithm.norm_adv_by_std_in_grpo=False",
                (_TRLS, _VERLS)),
    "lite_ppo": ('scale_rewards="batch"; its eps is 1e-4', "-", (_TRLS,)),
    "rloo": ("RLOOTrainer", "algorithm.adv_estimator=rloo", (_TRLS, _VERLS)),
    "reinforce_pp_baseline": ("-", "algorithm.adv_estimator=reinforce_plus_plus_baseline", (_VERLS,)),
}  # fmt: skip


class Flags(NamedTuple):
    """trl: arguments of GRPOConfig, or what to use instead. verl: words of its command line. tests: what holds them."""

    trl: str = "-"
    verl: str = "-"
    tests: tuple[str, ...] = ()


def _bounds(low: float | None, high: float | None, mode: str, dual: float | None = 1e9) -> str:
    """verl's bounds of a ratio; none is one that is never met."""
    ends = f"{ACTOR}.clip_ratio_low={low or 1.0} {ACTOR}.clip_ratio_high={high or 1e9:g}"
    last = "" if dual is None else f" {ACTOR}.clip_ratio_c={dual:g}"
    return f"{_mode(mode)} {ends}{last}"


def _mode(mode: str) -> str:
    return f"{ACTOR}.policy_loss.loss_mode={mode}"


def flags(part: Any) -> Flags:
    """The settings that mean this part: an estimator's text, or a part with its settings."""
    match part:
        case str():
            known = [Flags(*row) for text, row in ESTIMATORS.items() if make(part).chain == make(text).chain]
            return known[0] if known else Flags()
        case Clip():
            delta = "" if part.dual is None else f", delta={part.dual:g}"
            trl = f"epsilon={part.low or 1.0}, epsilon_high={part.high or 1e9:g}{delta}"
            return Flags(trl, _bounds(part.low, part.high, "vanilla", part.dual or 1e9), (TRL, VERL))
        case GSPO():
            trl = f'importance_sampling_level="sequence", epsilon={part.low}, epsilon_high={part.high}'
            return Flags(trl, _bounds(part.low, part.high, "gspo", None), (TRL, VERL))
        case CISPO(low=None, high=float(high)):
            return Flags(f'loss_type="cispo", epsilon_high={1 + high:g}', "-", (TRL,))
        case CISPO():
            return Flags("-", _bounds(part.low, part.high, "cispo", None), (VERL,))
        case SAPO() if part == SAPO():
            return Flags('loss_type="sapo"', _mode("sapo"), (TRL, VERL))
        case VESPO() if part == VESPO():
            return Flags('loss_type="vespo"', "-", (TRL,))
        case GMPO():
            trl = f"trl.experimental.gmpo.GMPOTrainer with epsilon={part.low}, epsilon_high={part.high}"
            held = ("test_trls_gmpo_is_this_objective", VERL)
            return Flags(trl, _bounds(part.low, part.high, "geo_mean", None), held)
        case DPPO() if not isinstance(part, IPO):
            width, mode = part.divergence, "dppo_kl" if isinstance(part, DPPOKL) else "dppo_tv"
            both = _bounds(width, width, mode, part.cap or 1e9)
            return Flags("-", f"{both} {ACTOR}.clip_ratio={width}", (VERL,))
        case ClipCov():
            more = {"clip_cov_ratio": part.share, "clip_cov_lb": part.least, "clip_cov_ub": part.most}
            words = " ".join(f"{ACTOR}.policy_loss.{k}={v}" for k, v in more.items())
            return Flags("-", f"{_bounds(part.low, part.high, 'clip_cov', None)} {words}", (VERL,))
        case KLCov():
            section = f"{ACTOR}.policy_loss"
            words = f"{section}.kl_cov_ratio={part.share} {section}.ppo_kl_coef={part.coef}"
            return Flags("-", f"{_mode('kl_cov')} {words}", (VERL,))
        case KL(kind="k3", clamp=None):
            return Flags(f"beta={part.coef}", "-", (TRL,))
        case KL(kind=kind) if kind != "k3" or part.clamp == 10:
            words = f"{ACTOR}.use_kl_loss=True {ACTOR}.kl_loss_coef={part.coef} {ACTOR}.kl_loss_type={kind}"
            return Flags("-", words, ("test_verls_divergences_are_these_objectives",))
        case EntropyBonus():
            return Flags("-", f"{ACTOR}.entropy_coeff={part.coef}")
        case TIS(level="token") if type(part) in (TIS, IcePop):
            masked = isinstance(part, IcePop)
            least = f", vllm_importance_sampling_clip_min={part.low}" if masked else ""
            trl = f'vllm_importance_sampling_mode="token_{"mask" if masked else "truncate"}"{least}, ' + (
                f"vllm_importance_sampling_clip_max={part.high}"
            )
            section = "algorithm.rollout_correction"
            words = f"{section}.rollout_is=token {section}.rollout_is_threshold=" + (
                f"{part.low}_{part.high}" if masked else f"{part.high}"
            )
            return Flags(trl, words, ("test_verls_corrections_are_these",))
        case Aggregation() if part.rule in RULES:
            loss_type, mode = RULES[part.rule]
            return Flags(f'loss_type="{loss_type}"', f"{ACTOR}.loss_agg_mode={mode}", (TRL, VERL))
        case Dynamic(drop="uniform", learn="kept", batches=batches) if batches > 1:
            section = "algorithm.filter_groups"
            return Flags("-", f"{section}.enable=True {section}.max_num_gen_batches={batches}")
        case Overlong(factor=1.0):
            section = "reward.reward_kwargs"
            buffer = {"enable": True, "len": part.cache, "penalty_factor": 1.0}
            words = " ".join(
                (
                    f"{section}.max_resp_len={part.longest}",
                    *(f"{section}.overlong_buffer_cfg.{k}={v}" for k, v in buffer.items()),
                )
            )
            return Flags(f"a second reward, get_soft_overlong_punishment({part.longest}, {part.cache})", words)
    return Flags()
