"""Named presets: every published variant with its conventions spelled out, and our own beside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from ebpo_sim import typed
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators.base import Estimator, Order
from ebpo_sim.estimators.beta_binomial import BetaBinomial
from ebpo_sim.estimators.by_prompt import anchor, dbb, optimal, regression, spo, v05
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.conventions import CONVENTIONS, spelt_out
from ebpo_sim.estimators.group_mean import GroupMean, Singleton
from ebpo_sim.estimators.james_stein import JamesStein
from ebpo_sim.estimators.loo_table import LooTable
from ebpo_sim.estimators.nonparametric import PosteriorMean
from ebpo_sim.estimators.positive import Constant, PositiveShare
from ebpo_sim.estimators.published import PRESETS
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.estimators.transforms import Baseline, Centre, Reweigh, Scale, Subtract, Transform, Whiten
from ebpo_sim.estimators.transforms.spread import Ddof
from ebpo_sim.estimators.weighted_mean import WeightedGroupMean
from ebpo_sim.groups import Weights
from ebpo_sim.numbers.mixing import Prior

Factory = Callable[..., Estimator]
Centring = Literal["none", "batch"]
Scaling = Literal["none", "group", "batch", "batch_rewards", "prior"]
_PRESETS: dict[str, Factory] = {}


def register(factory: Factory) -> Factory:
    """Add a preset under the factory's own name; a second function of the same name is refused."""
    name = factory.__name__
    if _PRESETS.get(name, factory) is not factory:
        raise InputError(f"estimator {name!r} is already registered: choose another name")
    _PRESETS[name] = factory
    return factory


def names() -> tuple[str, ...]:
    """All registered presets, in order of registration."""
    return tuple(_PRESETS)


def factory_of(name: str) -> Factory:
    """The function that builds the preset."""
    return _PRESETS[name]


def make(name: str, **settings: Any) -> Estimator:
    """The preset `name` with `settings` over its defaults; "name:setting=value,..." carries settings in the text.

    make("ebpo", memory=0.9) and make("ebpo:memory=0.9") are the same rule; it, as "trl.grpo", goes by its text.
    Raises InputError for unknown names or settings, for a value that is not of the setting's declared type, and for
    an oracle without its prior.
    """
    if not isinstance(name, str):
        raise InputError(f"estimator must be a name, got {name!r}: as in 'ebpo' or 'ebpo:memory=0.9'")
    preset, colon, body = spelt_out(name).partition(":")
    if preset not in _PRESETS:
        near = CONVENTIONS if "." in preset else _PRESETS
        raise unknown_name("estimator", preset, near, "; one of your own comes with --load FILE.py")
    factory = _PRESETS[preset]
    kinds = typed.parameters(factory)
    if colon:
        settings = {**typed.parse_all(body, kinds, f"estimator {name!r}"), **settings}
    for setting in settings:
        if setting not in kinds:
            raise unknown_name(f"setting of {preset}", setting, kinds)
    settings = {s: typed.check(f"{preset}: {s}", kinds[s], value) for s, value in settings.items()}
    known = inspect.signature(factory).parameters
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in settings]
    if missing:
        raise InputError(f"estimator {preset!r} needs {', '.join(missing)}: an oracle is given the true prior")
    made = factory(**settings)
    return replace(made, name=name) if name != preset else made


def needs_prior(name: str) -> bool:
    """Whether the preset is an oracle: `make(name, prior=...)`. Raises InputError for unknown names."""
    preset = spelt_out(name).partition(":")[0]
    if preset not in _PRESETS:
        raise unknown_name("estimator", preset, CONVENTIONS if "." in preset else _PRESETS)
    parameter = inspect.signature(_PRESETS[preset]).parameters.get("prior")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def standardised(baseline: Baseline, centre: Centring, scale: Scaling, ddof: Ddof, eps: float) -> tuple[Transform, ...]:
    """Subtract, then centre and scale as named; centre and scale by the batch are one step, of one mean and spread."""
    if (centre, scale) == ("batch", "batch"):
        return (Subtract(baseline), Whiten(ddof, eps))
    centred = (Centre(),) if centre == "batch" else ()
    return (Subtract(baseline), *centred, *(() if scale == "none" else (Scale(scale, ddof, eps),)))


@register
def grpo(*, ddof: Ddof = 1, eps: float = 1e-6, singleton: Singleton = "zero") -> Estimator:
    """(r - group mean)/(group std + eps): verl's eps; TRL uses 1e-4, the paper's text ddof 0 (arXiv 2402.03300)."""
    scale = Scale("group", ddof, eps, singleton_std=1.0 if singleton == "raw" else None)
    return Estimator("grpo", (Subtract(GroupMean(singleton=singleton)), scale))


@register
def dr_grpo(*, singleton: Singleton = "zero") -> Estimator:
    """r - group mean, no scale (arXiv 2503.20783)."""
    return Estimator("dr_grpo", (Subtract(GroupMean(singleton=singleton)),))


@register
def rloo(*, singleton: Singleton = "zero") -> Estimator:
    """r - mean of the other rollouts (arXiv 2402.14740)."""
    return Estimator("rloo", (Subtract(GroupMean(leave_one_out=True, singleton=singleton)),))


@register
def grpo_batch_norm(
    *, scale: Scaling = "batch", ddof: Ddof = 1, eps: float = 1e-6, singleton: Singleton = "zero"
) -> Estimator:
    """(r - group mean)/(std of that over the batch + eps): EBPO at S = 0. scale="batch_rewards" is TRL's form."""
    chain = standardised(GroupMean(singleton=singleton), "batch", scale, ddof, eps)
    return Estimator("grpo_batch_norm", chain)


@register
def reinforce_pp_baseline(*, eps: float = 1e-8, singleton: Singleton = "raw") -> Estimator:
    """r - group mean, whitened over the batch's tokens with eps inside the root: verl's form (arXiv 2501.03262)."""
    whiten = Whiten(1, eps, "inside", weights="tokens")
    return Estimator("reinforce_pp_baseline", (Subtract(GroupMean(singleton=singleton)), whiten))


@register
def james_stein(*, finite_sample_factor: bool = True) -> Estimator:
    """Leave-one-out shrinkage within the batch, no scale (arXiv 2511.03710)."""
    return Estimator("james_stein", (Subtract(JamesStein(finite_sample_factor)),), "update_then_score")


@register
def ebpo(
    *, ddof: Ddof = 0, memory: Memory = "cumulative", order: Order = "update_then_score",
    centre: Centring = "batch", scale: Scaling = "batch", scale_ddof: Ddof = 1, eps: float = 1e-6,
    shrinkage: float | None = None,
) -> Estimator:  # fmt: skip
    """EBPO, Algorithm 1: total sigma2, raw tau2, cumulative trackers, batch standardisation (arXiv 2602.05165).

    The paper leaves both ddof open; the defaults are those of the authors' public code. shrinkage: a fixed weight
    instead of the estimated one; 0 and 1 are the arms that tell what the adaptive weight itself is worth.
    """
    baseline = Shrinkage(ddof=ddof, memory=memory, fixed_shrinkage=shrinkage)
    return Estimator("ebpo", standardised(baseline, centre, scale, scale_ddof, eps), order)


@register
def ebpo_released(*, standardise: bool = True, eps: float = 1e-6) -> Estimator:
    """The authors' public code (Tonyzhou98/verl): trackers live for one batch, mu = mean of the prompt means."""
    baseline = Shrinkage(prior_mean="group_means", memory="batch", floor=1e-6)
    chain = standardised(baseline, "batch", "batch" if standardise else "none", 1, eps)
    return Estimator("ebpo_released", chain, "update_then_score")


@register
def ebpo_within(
    *, ddof: Ddof = 0, memory: Memory = "cumulative", order: Order = "update_then_score", eps: float = 1e-6
) -> Estimator:
    """EBPO-G of the authors' draft: sigma2 = pooled within-group variance (ddof 1), tau2 raw; S -> S*/(1+S*)."""
    baseline = Shrinkage(sigma2="within", ddof=ddof, memory=memory)
    return Estimator("ebpo_within", standardised(baseline, "batch", "batch", 1, eps), order)


@register
def ebpo_beta_binomial(
    *,
    memory: Memory = "cumulative",
    per_cluster: bool = False,
    order: Order = "score_then_update",
    eps: float = 1e-6,
) -> Estimator:
    """EBPO-BB of the authors' draft: lagged Beta prior by moments, batch standardisation."""
    baseline = BetaBinomial(memory=memory, per_cluster=per_cluster)
    return Estimator("ebpo_beta_binomial", standardised(baseline, "batch", "batch", 1, eps), order)


@register
def ebpo_debiased(
    *, prior: Prior | None = None, memory: Memory = "cumulative", per_cluster: bool = False,
    leave_one_out: bool = False, order: Order = "score_then_update", centre: Centring = "none",
    scale: Scaling = "prior", eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """The repaired EBPO: within sigma2 and denoised tau2, so S -> S*; scored before its own batch is learnt.

    Not centred, and scaled by the spread the prior predicts, so a batch that fails as a whole keeps its signal.
    memory: a retention below 1 follows a moving policy. per_cluster: a prior per topic. leave_one_out: unbiased
    gradient, for a slightly noisier baseline. Groups of one become REINFORCE with the running mean.
    """
    baseline = Shrinkage("within", "denoised", "group_means", 1, memory, per_cluster, leave_one_out, prior)
    return Estimator("ebpo_debiased", standardised(baseline, centre, scale, 1, eps), order)


@register
def ebpo_nonparametric(
    *, memory: Memory = "cumulative", grid: int = 65, iterations: int = 20,
    order: Order = "score_then_update", centre: Centring = "none", scale: Scaling = "prior", eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """Posterior mean under a prior learnt without a parametric form; binary rewards only."""
    baseline = PosteriorMean(None, memory, grid, iterations)
    return Estimator("ebpo_nonparametric", standardised(baseline, centre, scale, 1, eps), order)


@register
def loo_table(
    *, weights: Weights = "none", memory: Memory = "cumulative", per_cluster: bool = False,
    centre: Centring = "none", scale: Scaling = "none", eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """The best function of the other rollouts' successes, learnt by counting; weights="score": of least noise (ours).

    Scored before its own batch is learnt; without a scale the expected gradient is that of the mean reward.
    """
    return Estimator("loo_table", standardised(LooTable(weights, memory, per_cluster), centre, scale, 1, eps))


for _factory in (optimal, regression, spo, dbb, anchor, v05):
    register(_factory)


@register
def opo(*, singleton: Singleton = "zero") -> Estimator:
    """r - mean of the group, a rollout counting once a token (arXiv 2505.23585); verl's code: singleton="raw"."""
    return Estimator("opo", (Subtract(WeightedGroupMean("length", singleton)),))


@register
def optimal_token_baseline(*, singleton: Singleton = "zero") -> Estimator:
    """r - mean of the group weighted by |grad log pi|^2: one baseline a group (arXiv 2602.07078).

    verl 0.9.1 has one a token: the weight of token t is the sum of 1 - 2 pi + sum pi^2 over tokens 1..t, only
    answers that reach t count, 1e-8 is added to the sum of weights, the longest answer's tokens beyond all others
    have baseline 0, as has a group of one (singleton="raw"), and importance weights may multiply. At the last token
    of answers of equal length both agree.
    """
    return Estimator("optimal_token_baseline", (Subtract(WeightedGroupMean("score", singleton)),))


@register
def reinforce(*, baseline: float = 0.0) -> Estimator:
    """r - a constant: without one, no baseline at all (Williams 1992); every group alike, groups of one too."""
    return Estimator("reinforce", (Subtract(Constant(baseline)),))


@register
def raft(*, divisor: Literal["positive", "rollouts"] = "positive") -> Estimator:
    """Positive answers alone: max(r, 0)/(share of the batch's rollouts with r > 0) (arXiv 2504.11343).

    So the mean over the batch is that over the positive rollouts, as published; divisor="rollouts" leaves the share
    out, and is `reinforce` for rewards 0 and 1. Groups without a success are silent, groups of successes are not.
    """
    share = (PositiveShare(),) if divisor == "positive" else ()
    return Estimator("raft", (Subtract(Constant()), Reweigh(1.0, 0.0), *share))


@register
def global_mean(*, memory: Memory = "cumulative", order: Order = "score_then_update") -> Estimator:
    """r - running mean of all rewards: shrinkage 1, the REINFORCE baseline; a reference."""
    baseline = Shrinkage(memory=memory, fixed_shrinkage=1.0)
    return Estimator("global_mean", (Subtract(baseline),), order)


@register
def oracle_linear(*, prior: Prior) -> Estimator:
    """The best line: S* and mu of the true prior; `ebpo_debiased` with the prior given, unscaled."""
    return Estimator("oracle_linear", (Subtract(Shrinkage(prior=prior)),))


@register
def oracle_bayes(*, prior: Prior) -> Estimator:
    """The best baseline there is from the counts: the posterior mean of the true prior; binary rewards."""
    return Estimator("oracle_bayes", (Subtract(PosteriorMean(prior=prior)),))


list(map(register, PRESETS))

SHIPPED = names()  # before anything is loaded
