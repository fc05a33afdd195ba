"""Named presets: every published variant with its conventions spelled out, and our own beside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ebpo_sim import typed
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators.base import Estimator, Order
from ebpo_sim.estimators.beta_binomial import BetaBinomial
from ebpo_sim.estimators.components import Memory
from ebpo_sim.estimators.group_mean import GroupMean, Singleton
from ebpo_sim.estimators.james_stein import JamesStein
from ebpo_sim.estimators.nonparametric import PosteriorMean
from ebpo_sim.estimators.normalise import Centre, Ddof, Normalise, Scale
from ebpo_sim.estimators.shrinkage import Shrinkage
from ebpo_sim.mixing import Prior

Factory = Callable[..., Estimator]
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


def make(name: str, **settings: Any) -> Estimator:
    """The preset `name` with `settings` over its defaults; "name:setting=value,..." carries settings in the text.

    make("ebpo", memory=0.9) and make("ebpo:memory=0.9") are the same rule; the latter is named by its text.
    Raises InputError for unknown names or settings, for a value that is not of the setting's declared type, and for
    an oracle without its prior.
    """
    if not isinstance(name, str):
        raise InputError(f"estimator must be a name, got {name!r}: as in 'ebpo' or 'ebpo:memory=0.9'")
    preset, colon, body = name.partition(":")
    if preset not in _PRESETS:
        raise unknown_name("estimator", preset, _PRESETS)
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
    return replace(made, name=name) if colon else made


def needs_prior(name: str) -> bool:
    """Whether the preset is an oracle: `make(name, prior=...)`. Raises InputError for unknown names."""
    preset = name.partition(":")[0]
    if preset not in _PRESETS:
        raise unknown_name("estimator", preset, _PRESETS)
    parameter = inspect.signature(_PRESETS[preset]).parameters.get("prior")
    return parameter is not None and parameter.default is inspect.Parameter.empty


@register
def grpo(*, ddof: Ddof = 1, eps: float = 1e-6, singleton: Singleton = "zero") -> Estimator:
    """(r - group mean)/(group std + eps): verl's eps; TRL uses 1e-4, the paper's text ddof 0 (arXiv 2402.03300)."""
    spread = Normalise(scale="group", ddof=ddof, eps=eps, singleton_std=1.0 if singleton == "raw" else None)
    return Estimator("grpo", GroupMean(singleton=singleton), spread, "score_then_update")


@register
def dr_grpo(*, singleton: Singleton = "zero") -> Estimator:
    """r - group mean, no scale (arXiv 2503.20783)."""
    return Estimator("dr_grpo", GroupMean(singleton=singleton), Normalise(), "score_then_update")


@register
def rloo(*, singleton: Singleton = "zero") -> Estimator:
    """r - mean of the other rollouts (arXiv 2402.14740)."""
    return Estimator("rloo", GroupMean(leave_one_out=True, singleton=singleton), Normalise(), "score_then_update")


@register
def grpo_batch_norm(
    *, scale: Scale = "batch", ddof: Ddof = 1, eps: float = 1e-6, singleton: Singleton = "zero"
) -> Estimator:
    """(r - group mean)/(std of that over the batch + eps): EBPO at S = 0. scale="batch_rewards" is TRL's form."""
    spread = Normalise(centre="batch", scale=scale, ddof=ddof, eps=eps)
    return Estimator("grpo_batch_norm", GroupMean(singleton=singleton), spread, "score_then_update")


@register
def reinforce_pp_baseline(*, eps: float = 1e-8, singleton: Singleton = "raw") -> Estimator:
    """r - group mean, whitened over the batch's tokens with eps inside the root: verl's form (arXiv 2501.03262)."""
    whiten = Normalise(centre="batch", scale="batch", ddof=1, eps=eps, eps_place="inside", weights="tokens")
    return Estimator("reinforce_pp_baseline", GroupMean(singleton=singleton), whiten, "score_then_update")


@register
def james_stein(*, finite_sample_factor: bool = True) -> Estimator:
    """Leave-one-out shrinkage within the batch, no scale (arXiv 2511.03710)."""
    return Estimator("james_stein", JamesStein(finite_sample_factor), Normalise(), "update_then_score")


@register
def ebpo(
    *, ddof: Ddof = 0, memory: Memory = "cumulative", order: Order = "update_then_score",
    centre: Centre = "batch", scale: Scale = "batch", scale_ddof: Ddof = 1, eps: float = 1e-6,
    shrinkage: float | None = None,
) -> Estimator:  # fmt: skip
    """EBPO, Algorithm 1: total sigma2, raw tau2, cumulative trackers, batch standardisation (arXiv 2602.05165).

    The paper leaves both ddof open; the defaults are those of the authors' public code. shrinkage: a fixed weight
    instead of the estimated one; 0 and 1 are the arms that tell what the adaptive weight itself is worth.
    """
    baseline = Shrinkage(ddof=ddof, memory=memory, fixed_shrinkage=shrinkage)
    return Estimator("ebpo", baseline, Normalise(centre, scale, scale_ddof, eps), order)


@register
def ebpo_released(*, standardise: bool = True, eps: float = 1e-6) -> Estimator:
    """The authors' public code (Tonyzhou98/verl): trackers live for one batch, mu = mean of the prompt means."""
    baseline = Shrinkage(prior_mean="group_means", memory="batch", floor=1e-6)
    spread = Normalise(centre="batch", scale="batch" if standardise else "none", ddof=1, eps=eps)
    return Estimator("ebpo_released", baseline, spread, "update_then_score")


@register
def ebpo_within(
    *, ddof: Ddof = 0, memory: Memory = "cumulative", order: Order = "update_then_score", eps: float = 1e-6
) -> Estimator:
    """EBPO-G of the authors' draft: sigma2 = pooled within-group variance (ddof 1), tau2 raw; S -> S*/(1+S*)."""
    baseline = Shrinkage(sigma2="within", ddof=ddof, memory=memory)
    return Estimator("ebpo_within", baseline, Normalise("batch", "batch", 1, eps), order)


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
    return Estimator("ebpo_beta_binomial", baseline, Normalise("batch", "batch", 1, eps), order)


@register
def ebpo_debiased(
    *, prior: Prior | None = None, memory: Memory = "cumulative", per_cluster: bool = False,
    leave_one_out: bool = False, order: Order = "score_then_update", centre: Centre = "none",
    scale: Scale = "prior", eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """The repaired EBPO: within sigma2 and denoised tau2, so S -> S*; scored before its own batch is learnt.

    Not centred, and scaled by the spread the prior predicts, so a batch that fails as a whole keeps its signal.
    memory: a retention below 1 follows a moving policy. per_cluster: a prior per topic. leave_one_out: unbiased
    gradient, for a slightly noisier baseline. Groups of one become REINFORCE with the running mean.
    """
    baseline = Shrinkage("within", "denoised", "group_means", 1, memory, per_cluster, leave_one_out, prior)
    return Estimator("ebpo_debiased", baseline, Normalise(centre, scale, 1, eps), order)


@register
def ebpo_nonparametric(
    *, memory: Memory = "cumulative", grid: int = 65, iterations: int = 20,
    order: Order = "score_then_update", centre: Centre = "none", scale: Scale = "prior", eps: float = 1e-6,
) -> Estimator:  # fmt: skip
    """Posterior mean under a prior learnt without a parametric form; binary rewards only."""
    baseline = PosteriorMean(None, memory, grid, iterations)
    return Estimator("ebpo_nonparametric", baseline, Normalise(centre, scale, 1, eps), order)


@register
def global_mean(*, memory: Memory = "cumulative", order: Order = "score_then_update") -> Estimator:
    """r - running mean of all rewards: shrinkage 1, the REINFORCE baseline; a reference."""
    baseline = Shrinkage(memory=memory, fixed_shrinkage=1.0)
    return Estimator("global_mean", baseline, Normalise(), order)


@register
def oracle_linear(*, prior: Prior) -> Estimator:
    """The best line: S* and mu of the true prior; `ebpo_debiased` with the prior given, unscaled."""
    return Estimator("oracle_linear", Shrinkage(prior=prior), Normalise(), "score_then_update")


@register
def oracle_bayes(*, prior: Prior) -> Estimator:
    """The best baseline there is from the counts: the posterior mean of the true prior; binary rewards."""
    return Estimator("oracle_bayes", PosteriorMean(prior=prior), Normalise(), "score_then_update")
