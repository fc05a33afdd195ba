"""Claims about objectives at small policies: expectations in full, over families whose simplest members come first."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from ebpo_sim.claims.base import Case, Context, Finding
from ebpo_sim.claims.objective_pushes import EXACT, least, one, pushed, shown
from ebpo_sim.numbers import Array
from ebpo_sim.objectives import TIS, Aggregation, Clip, IcePop, MinPRO, Tokens, make_objective

LENGTHS = (1, 2, 4, 16)


@lru_cache(maxsize=1)
def policies() -> tuple[tuple[Array, Array, Array], ...]:
    """(before, after, advantage of every action), with advantages centred under the policy before."""
    rng = np.random.default_rng(0)
    by_hand = [([0.5, 0.5], [0.9, 0.1]), ([0.9, 0.1], [0.5, 0.5]), ([0.99, 0.01], [0.8, 0.2]), ([0.25] * 4,
               [0.35, 0.35, 0.15, 0.15]), ([0.6, 0.3, 0.1], [0.3, 0.3, 0.4])]  # fmt: skip
    drawn = [rng.dirichlet(np.full(k, 0.7), size=2) + 1e-3 for k in (2, 3, 5) for _ in range(20)]
    found: list[tuple[Array, Array, Array]] = []
    pairs = [[np.array(x) for x in pair] for pair in by_hand] + [list(pair) for pair in drawn]
    for before, after in pairs:
        old, new = before / before.sum(), after / after.sum()
        raw = np.eye(len(old))[0] if len(found) < len(by_hand) else rng.normal(size=len(old))
        found.append((old, new, raw - old @ raw))
    return tuple(found)


def named(*arrays: Array) -> str:
    """Policies in a text: 0.5/0.5 0.9/0.1."""
    return " ".join("/".join(f"{x:.3g}" for x in array) for array in arrays)


def sequence_ratio(_: Context) -> list[Finding]:
    """J1: exact moments of s for tokens of one law; those of a single ratio r are s's at one token."""

    def moments(old: Array, new: Array, length: int) -> tuple[float, float]:
        first, second = (float((old @ (new / old) ** (k / length)) ** length) for k in (1, 2))
        return first, second - first**2

    found: dict[str, list[Case]] = {"independent tokens": [], "one ratio for all tokens": [], "mean one": []}
    for (old, new, _a), length in product(policies(), LENGTHS):
        at = f"at {named(old, new)}, tokens {length}"
        (mean, variance), (_first, single) = moments(old, new, length), moments(old, new, 1)
        found["independent tokens"].append(
            Case(f"claims J1: independent tokens, {at}", single - variance, length > 1, length)
        )
        found["one ratio for all tokens"].append(Case(f"claims J1: one ratio for all tokens, {at}", 0.0, x=length))
        gap = Case(f"claims J1: mean one, {at}", EXACT - abs(mean - 1), length == 1, length)
        found["mean one"].append(gap)
    effect = moments(*policies()[0][:2], 4)
    return [
        Finding("independent tokens", found["independent tokens"], "tokens ≥ 2", "Var s, 4 tokens", effect[1]),
        Finding("one ratio for all tokens", found["one ratio for all tokens"], "", "Var r - Var s", 0.0),
        Finding("mean one", found["mean one"], "tokens = 1", "E s, 4 tokens", effect[0], strict=False),
    ]


def every_action(old: Array, new: Array, advantage: Array) -> Tokens:
    """Every action once, a row each."""
    before, after, a = (x[:, None] for x in (np.log(old), np.log(new), advantage))
    return Tokens(after, before, np.ones(a.shape, bool), a)


def entropy(logits: Array) -> float:
    log_pi = logits - np.logaddexp.reduce(logits)
    return float(-np.exp(log_pi) @ log_pi)


def clip_higher(_: Context) -> list[Finding]:
    """J3: entropy after a small step with the upper bound at 1.28, less that at 1.2, for one action between them."""
    cases, step = [], 1e-3
    for old, _new, _a in policies():
        for action in range(len(old)):
            if 1.24 * old[action] >= 1 or len(old) == 1:
                continue
            rest = np.delete(np.arange(len(old)), action)
            new = old.copy()
            new[action] = 1.24 * old[action]
            new[rest] *= (1 - new[action]) / old[rest].sum()
            reached = []
            for high in (0.28, 0.2):
                tokens = every_action(old, new, np.eye(len(old))[:, action])
                update = (old * pushed(Clip(0.2, high), tokens)[:, 0]) @ (np.eye(len(old)) - new)
                reached.append(entropy(np.log(new) + step * update))
            excess = np.log(new) + entropy(np.log(new))
            expected = bool(new[action] * excess[action] < new**2 @ excess)
            at = f"claims J3: asymmetric, at {named(old)}, action {action}"
            cases.append(Case(at, (reached[0] - reached[1]) / step, expected, float(new[action])))
    condition = "log π(a) + H < Σπ²(log π + H)/π(a)"
    return [Finding("asymmetric", cases, condition, "mean entropy gained a unit step", float(np.mean([
        c.effect for c in cases])))]  # fmt: skip


def corrections(_: Context) -> list[Finding]:
    """J4: E_sampler[weight A] against E_old[A], both in full; A is centred under the sampler."""
    wide, truncated, masked = TIS(1e6), TIS(2.0), IcePop()
    names = ("untruncated", "truncated at 2", "truncated, bias below the mass cut off",
             "truncated, less bias than none", "masked, less bias than truncated")  # fmt: skip
    found: dict[str, list[Case]] = {name: [] for name in names}
    for sampler, old, advantage in policies():
        tokens = every_action(old, old, advantage)._replace(behaviour_NT=np.log(sampler)[:, None])
        exact = old @ advantage
        bias = [abs(float(sampler @ (part.weight(tokens)[:, 0] * advantage) - exact)) for part in (
            wide, truncated, masked)]  # fmt: skip
        cut = float(np.maximum(old - 2 * sampler, 0).sum() * np.abs(advantage).max())
        none = abs(float(sampler @ advantage - exact))
        effects = (EXACT - bias[0], EXACT - bias[1], cut - bias[1], none - bias[1], bias[1] - bias[2])
        within = bool(np.all(old <= 2 * sampler))
        for name, effect in zip(names, effects, strict=True):
            at = f"claims J4: {name}, at {named(sampler, old, advantage)}"
            found[name].append(Case(at, effect, within or name != "truncated at 2", float((old / sampler).max())))
    conditions = {"truncated at 2": "old ≤ 2 sampler"}
    return [least(name, cases, conditions.get(name, "")) for name, cases in found.items()]


def divergences(_: Context) -> list[Finding]:
    """J7: the sampled token's divergence against the whole policies', and what a ratio's bound lets through."""
    below, above, clipped, pinsker = [], [], [], []
    for old, new, _a in policies():
        whole, largest = np.abs(new - old).sum() / 2, float(np.abs(new - old).max())
        below.append(Case(f"claims J7: at most the policies', at {named(old, new)}", whole - largest))
        above.append(Case(f"claims J7: at least the policies', at {named(old, new)}", largest - whole, len(old) == 2))
    for old_p, new_p in product(np.linspace(0.01, 0.99, 50), repeat=2):
        ratio, far = new_p / old_p, abs(new_p - old_p)
        for advantage in (1.0, -1.0):
            answer = f"{ratio:.4g}:{advantage:g}"
            away = (ratio - 1) * advantage > 0
            if away and one(make_objective("clip"), ratio, advantage, old_p):
                clipped.append(Case(shown("clip", answer, old=round(old_p, 4)), 0.15 - far, max(old_p, new_p) <= 0.75))
            if away and one(make_objective("dppo_kl"), ratio, advantage, old_p):
                pinsker.append(Case(shown("dppo_kl", answer, old=round(old_p, 4)), 0.025**0.5 - far))
    return [
        least("at most the policies'", below),
        least("at least the policies'", above, "two actions"),
        least("clip, at most 0.15", clipped, "π, old ≤ 0.75"),
        least("KL 0.05, at most 0.158", pinsker),
    ]


def covariance(_: Context) -> list[Finding]:
    """J10: dH a unit of a natural gradient step, -Cov(log π, A), with A of the action of the largest product of
    deviations set to 0, less that with all."""
    found: dict[str, list[Case]] = {"centred": [], "baseline too low": []}
    for _old, pi, advantage in policies():
        for (name, cases), shift in zip(found.items(), (0.0, 0.5), strict=True):
            log_pi, a = np.log(pi) - pi @ np.log(pi), advantage - pi @ advantage + shift
            products = log_pi * (a - shift)
            top = int(np.argmax(products))
            expected = bool(products[top] > 0 and a[top] * (a[top] - shift) >= 0)
            at = f"claims J10: {name}, at {named(pi, a)}"
            cases.append(Case(at, float(pi[top] * log_pi[top] * a[top]), expected))
    conditions = ("the largest is above 0", "the largest is above 0 and A has the sign of its deviation")
    return [least(*item, condition) for item, condition in zip(found.items(), conditions, strict=True)]


def prefixes(_: Context) -> list[Finding]:
    """J11: MinPRO's weight at the last of up to 5 tokens of one law, by enumeration, against the product's."""
    variance, mean, shrunk = [], [], []
    for old, new, _a in policies():
        if len(old) > 3:
            continue
        for length in range(1, 6):
            index = np.array(list(product(range(len(old)), repeat=length)))
            chance, ratio = old[index].prod(1), (new / old)[index]
            rows = Tokens(np.log(ratio) - 9, np.full(ratio.shape, -9.0), ratio > 0, np.ones((len(ratio), 1)))
            weight, exact = pushed(MinPRO(None, None), rows)[:, -1], ratio.prod(1)
            spread = [float(chance @ w**2 - (chance @ w) ** 2) for w in (exact, weight)]
            at = f"at {named(old, new)}, token {length}"
            variance.append(
                Case(f"claims J11: less variance than the product, {at}", spread[0] - spread[1], length > 2)
            )
            mean.append(Case(f"claims J11: mean one, {at}", EXACT - abs(chance @ weight - 1), length < 3))
            shrunk.append(Case(f"claims J11: never above one, {at}", 1 + EXACT - float(chance @ weight)))
    return [
        least("less variance than the product", variance, "from the third token on", strict=True),
        least("mean one", mean, "the first two tokens"),
        least("mean never above one", shrunk),
    ]


def lengths(_: Context) -> list[Finding]:
    """J13: sum of (weight * answer)^2 of ΔL at power 1 against other powers, and its weights' mean of answers."""
    sets = [np.array(x, dtype=float) for x in ((2, 2), (1, 4), (1, 2, 8), (3, 5, 7, 30), (1, 1, 1, 100))]
    powers = np.linspace(0, 2, 41)
    found: dict[str, list[Case]] = {"independent tokens": [], "one number for all tokens": [], "mean of answers": []}
    for length in sets:
        at = f"at lengths {'/'.join(f'{x:g}' for x in length)}"
        weight = [Aggregation("delta_l", power=float(p)).rows(length) for p in (1.0, *powers)]
        same = bool(np.all(length == length[0]))
        for name, variance in (("independent tokens", length), ("one number for all tokens", length**2)):
            own, *others = (float(w**2 @ variance) for w in weight)
            cases = found[name]
            cases.append(Case(f"claims J13: {name}, {at}", min(others) + 1e-12 - own, same or name[0] == "i"))
        gap = float(np.abs(weight[0] @ length - length.mean()))  # answers whose gradient is their length
        found["mean of answers"].append(Case(f"claims J13: mean of answers, {at}", EXACT - gap, same))
    return [least(name, cases, "" if name[0] == "i" else "one length") for name, cases in found.items()]
