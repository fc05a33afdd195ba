"""Published advantage rules: what their papers say of bias, variance and hard prompts, decided on success counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np

from ebpo_sim.claims.base import Case, Context, Finding
from ebpo_sim.claims.family import cells, world
from ebpo_sim.claims.noise_rules import EXACT, NAMES
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.noise import ARMS, MODELS, Noise, baseline_noise, noise
from ebpo_sim.counts.updates import advantage_gap, limit_advantages
from ebpo_sim.estimators import make
from ebpo_sim.estimators.krpo import Filter
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers import Array

P = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
HARD, MIDDLE = 1, 3  # p = 0.1 and 0.5
ANYWHERE = "beta:1,1"  # for rules of single groups, whose weights no other prompt moves
K = 2  # of pass@k


def _small(context: Context) -> Iterator[tuple[str, int]]:
    return ((text, size) for text, _, size in cells(context) if size <= 8)


@lru_cache(maxsize=16384)
def _table(name: str, text: str, size: int) -> Array:
    return limit_advantages(make(name), world(text), size)


def _weights(name: str, size: int) -> Array:
    """The weight on grad p at every P."""
    return advantage_gap(_table(name, ANYWHERE, size), P)


@lru_cache(maxsize=65536)
def _noise(name: str, text: str, size: int, scores: str = "one_logit") -> Noise:
    return noise(_table(name, text, size), rule(world(text), max(size, 32)), MODELS[scores])


def _by_size(
    context: Context, name: str, variant: str, effect: Callable[[int], float],
    expected: Callable[[int], bool] = lambda size: True,
) -> list[Case]:  # fmt: skip
    """A case a group size, of a rule that looks at single groups."""
    return [Case(f"claims {name} --group-size {g}: {variant}", effect(g), expected(g), g) for g in context.group_sizes]


def _by_cell(
    context: Context, name: str, variant: str, effect: Callable[[str, int], float],
    expected: Callable[[str, int], bool] = lambda text, size: True,
) -> list[Case]:  # fmt: skip
    """A case a world and group size of up to 8."""
    return [
        Case(f"claims {name} --world {text} --group-size {size}: {variant}", effect(text, size), expected(text, size))
        for text, size in _small(context)
    ]


def _finding(
    context: Context, variant: str, cases: list[Case], what: str, condition: str = "", strict: bool = True,
    repaired_by: str = "",
) -> Finding:  # fmt: skip
    """The effect shown is the reference's where it is among the cases, else the last one."""
    here = f"--world {context.reference} --group-size {context.reference_size}:"
    shown = next((c.effect for c in cases if here in c.command), cases[-1].effect if cases else 0.0)
    return Finding(variant, cases, condition, what, shown, None, repaired_by, strict)


def _flat(ratio: Array) -> float:
    """0 where the numbers are one, below where they are not."""
    low, high = float(np.min(ratio)), float(np.max(ratio))
    return 1 - high / low if low > 0 else -1.0


def likelihood_order(context: Context) -> list[Finding]:
    """A1: weight on grad p over that of sum_{m <= G} (1-p)^(m-1) = (1 - (1-p)^G)/p."""
    found = []
    for variant, name in (("as shipped", "maxrl:eps=0"), ("-1 in all-fail groups", "maxrl:eps=0,all_fail=-1")):
        cases = _by_size(
            context, "A1", variant,
            lambda g, name=name: -float(np.max(np.abs(_weights(name, g) * P / (1 - (1 - P) ** g) - 1))),  # type: ignore[misc]
        )  # fmt: skip
        found.append(
            _finding(context, variant, cases, "largest relative error, negated", "", False, "-1 in all-fail groups")
        )
    return found


def _toward_likelihood(name: str, text: str, size: int) -> float:
    """cos of the expected update and the gradient of E log p, policies of one logit a prompt: grad log p = 1 - p."""
    prior = rule(world(text), max(size, 32))
    p, share = np.asarray(prior.nodes), np.asarray(prior.weights)
    update = advantage_gap(_table(name, text, size), p) * p * (1 - p)
    return float(share @ (update * (1 - p)) / np.sqrt((share @ update**2) * (share @ (1 - p) ** 2)))


def likelihood_direction(context: Context) -> list[Finding]:
    """A2: cosine of MaxRL's expected update with the gradient of the log-likelihood, less a rival's."""
    found = []
    for variant, rival in (("against GRPO", "grpo"), ("against RLOO", "rloo")):
        cases = _by_cell(
            context, "A2", variant,
            lambda t, g, r=rival: _toward_likelihood("maxrl", t, g) - _toward_likelihood(r, t, g),  # type: ignore[misc]
            lambda t, g: g > 2 and _several(t),
        )  # fmt: skip
        found.append(_finding(context, variant, cases, "cosine less the rival's", "G > 2 and two p in (0, 1)"))
    return found


def _several(text: str) -> bool:
    """Whether more than one pass rate strictly between 0 and 1 occurs."""
    return len({round(p, 9) for p in rule(world(text), 32).nodes if 1e-9 < p < 1 - 1e-9}) > 1


def sets_of_k(context: Context) -> list[Finding]:
    """A3: weight over k (1-p)^(k-1): 1 for pass@k's rules, constant for grpo_passk at k = G."""
    found = []
    for variant, name, enough in (("others, k = 2", "passk", K + 1), ("fewer, k = 2", "passk:baseline=fewer", K)):
        cases = _by_size(
            context, "A3", variant,
            lambda g, n=name: -float(np.max(np.abs(_weights(n, g) / (K * (1 - P) ** (K - 1)) - 1))),  # type: ignore[misc]
            lambda g, e=enough: g >= e,  # type: ignore[misc]
        )  # fmt: skip
        condition = "G > k" if enough > K else ""
        found.append(_finding(context, variant, cases, "largest relative error, negated", condition, False))
    for variant, name in (("best margin, k = G", "grpo_passk:scale=none"), ("over the spread, k = G", "grpo_passk")):
        cases = _by_size(
            context,
            "A3",
            variant,
            lambda g, n=name: _flat(_weights(n, g) / (1 - P) ** (g - 1)),  # type: ignore[misc]
        )
        found.append(_finding(context, variant, cases, "1 - largest / smallest ratio to the gradient", "", False))
    return found


def compared(
    claim: str, name: str, rival: str, context: Context, sizes: Iterable[int] = (2, 3, 4, 8), scale: bool = True
) -> list[Finding]:
    """A4, A7, A8, A14: 1 - noise over a rival's, for each model of scores: scales nu (at an equal number of rollouts),
    or with `scale` False the plain noise."""
    found = []
    for scores, variant in NAMES.items():
        cases = []
        for text, size in _small(context):
            if size not in sizes:
                continue
            mine, other = (_noise(n, text, size, scores) for n in (name, rival))
            ratio = mine.nu / other.nu if scale else mine.noise / other.noise
            cases.append(Case(f"claims {claim} --world {text} --group-size {size}: {variant}", 1 - ratio))
        found.append(_finding(context, variant, cases, f"1 - noise of {name} over {rival}'s, reference world"))
    return found


def spread_of_others(context: Context) -> list[Finding]:
    """A5: weights at all p alike."""
    return [
        _finding(
            context, v, _by_size(context, "A5", v, lambda g, n=n: _flat(_weights(n, g)), lambda g, m=m: g <= m),  # type: ignore[misc]
            "1 - largest / smallest weight", c, False,
        )
        for v, n, m, c in (("NeMo-RL", "nemo_rl.grpo", 2, "G = 2"), ("GRPO", "trl.grpo:ddof=0", 3, "G ≤ 3"))
    ]  # fmt: skip


def hard_prompts(context: Context) -> list[Finding]:
    """A6: weight at p = 0.1 over that at 0.5, less 1."""
    found = []
    for variant, name, least in (
        ("GRPO", "grpo", 4), ("NeMo-RL", "nemo_rl.grpo", 16), ("centred", "dr_grpo", 99), ("MaxRL", "maxrl", 3),
        ("BNPO", "bnpo", 4), ("HA-DW", "ha_dw", 3),
    ):  # fmt: skip
        cases = _by_size(context, "A6", variant, lambda g, n=name: _lift(n, g), lambda g, m=least: g >= m)  # type: ignore[misc]
        condition = f"G ≥ {least}" if least < 99 else ""
        found.append(_finding(context, variant, cases, "weight at p = .1 over .5, less 1", condition))
    return found


def _lift(name: str, size: int) -> float:
    found = _weights(name, size)
    return float(found[HARD] / found[MIDDLE] - 1)


def biased_estimates(context: Context) -> list[Finding]:
    """A9: the pass rate seen in live groups is drawn towards 1/2; the centred advantage weighs all p alike."""
    low = P[P < 0.5]

    def seen(g: int) -> float:
        live = 1 - (1 - low) ** g - low**g
        return float(np.min((low - low**g) / live - low))

    live = _by_size(context, "A9", "live groups", seen)
    centred = _by_size(context, "A9", "gradient", lambda g: -_lift("dr_grpo", g))
    return [
        _finding(context, "live groups", live, "least excess of the mean, p < 1/2"),
        _finding(context, "gradient", centred, "1 - weight at p = .1 over .5"),
    ]  # fmt: skip


def turned(claim: str, variant: str, name: str, rival: str, context: Context) -> list[Finding]:
    """A10, A16: cosine of the expected update with the gradient of the mean reward, less that of a rival."""
    cases = _by_cell(
        context, claim, variant, lambda t, g: _noise(name, t, g).cosine - _noise(rival, t, g).cosine
    )  # fmt: skip
    return [_finding(context, variant, cases, f"cosine less that of {rival}, reference world")]


def filtered_means(context: Context) -> list[Finding]:
    """A11: error of the filter's estimate, a line in the rewards so far, against that of the group's mean."""
    found = []
    for variant, chosen in (("every rollout", slice(None)), ("the last rollout", slice(-1, None))):
        cases = _by_cell(context, "A11", variant, lambda t, g, c=chosen: 1 - _filter_error(t, g, c))  # type: ignore[misc]
        found.append(_finding(context, variant, cases, "1 - error over the group mean's, reference world"))
    return found


def _filter_error(text: str, size: int, chosen: slice) -> float:
    prior = rule(world(text), size)
    p = np.asarray(prior.nodes)
    part_GG = Filter().run(group_rewards(np.eye(size)))[0]  # [j, i]: what reward j counts for in estimate i
    noise_J = p * (1 - p) * np.mean(np.sum(part_GG**2, axis=0)[chosen])
    bias_J = p**2 * np.mean((part_GG.sum(axis=0)[chosen] - 1) ** 2)
    return float(np.asarray(prior.weights) @ (noise_J + bias_J) / (prior.within / size))


def adaptive_spread(context: Context) -> list[Finding]:
    """A12: how much the filter's standard deviations differ between groups of different rewards."""

    def between(g: int) -> float:
        variance_PG = Filter().run(group_rewards(np.tri(g, g)))[1]
        return float(np.max(np.ptp(variance_PG, axis=0)))

    name = "spread of the divisor over groups of other rewards"
    return [_finding(context, "divisor", _by_size(context, "A12", "divisor", between), name)]


def global_whitening(context: Context) -> list[Finding]:
    """A13: cosine of the expected update with the gradient of the mean reward in a large batch."""
    cases = _by_cell(
        context, "A13", "large batch", lambda t, g: EXACT - (1 - _noise("reinforce_pp", t, g).cosine)
    )  # fmt: skip
    return [_finding(context, "large batch", cases, "1e-9 less 1 - cosine", "", False)]


def bundled_risk(context: Context) -> list[Finding]:
    """A15: of two prompts that share their bundles the weight of the harder one over the easier one's, less 1; exact
    over all rewards of groups of up to 3, quantiles those of the bundles themselves."""
    found = []
    for form in ("paper", "code"):
        cases = []
        for text, size in _small(context):
            p = sorted({round(x, 9) for x in rule(world(text), 2).nodes if 0 < x < 1})
            if size <= 3 and len(p) == 2 and text.startswith("points:"):
                hard, easy = _bundle_weights(form, size, p)
                cases.append(Case(f"claims A15 --world {text} --group-size {size}: {form}", hard / easy - 1))
        found.append(_finding(context, form, cases, "weight of the harder of two prompts over the other's, less 1"))
    return found


def _bundle_weights(form: str, size: int, p: list[float]) -> Array:
    """E[sum_i A_i (r_i - p)]/(G p (1-p)) of each of the prompts of a bundle, by enumeration of their rewards."""
    bits = np.arange(2 ** (2 * size))[:, None] >> np.arange(2 * size) & 1
    reward_RPG, p_P1 = bits.reshape(-1, 2, size).astype(np.float64), np.array(p)[:, None]
    chance_R = np.prod(np.where(reward_RPG == 1, p_P1, 1 - p_P1), axis=(1, 2))
    advantage_RPG = np.asarray(make(f"riskpo:prompts=2,form={form}").score((), group_rewards(reward_RPG))[0])
    along_P = chance_R @ np.sum(advantage_RPG * (reward_RPG - p_P1), axis=2)
    return np.asarray(along_P / (size * p_P1[:, 0] * (1 - p_P1[:, 0])))


def greedy_noise(context: Context) -> list[Finding]:
    """A17: noise with the greedy answer's reward as baseline, against none: right where it is the likeliest answer."""
    found = []
    for scores, limit in (("equal", 1 / 2), ("one_logit", 1 / 2), ("softmax", 1 / ARMS)):
        variant, cases = NAMES[scores], []
        for text in context.worlds:
            prior = rule(world(text), 32)
            greedy = (np.asarray(prior.nodes) > limit).astype(np.float64)
            mine, none = (baseline_noise(b, prior, MODELS[scores]) for b in (greedy, 0.0))
            cases.append(Case(f"claims A17 --world {text}: {variant}", 1 - mine / none, bool(greedy.any())))
        condition = "some p > 1/2" if scores == "equal" else ""
        found.append(_finding(context, variant, cases, "1 - noise over that without a baseline", condition))
    return found
