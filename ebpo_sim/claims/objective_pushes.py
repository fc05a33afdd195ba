"""Claims about objectives at single tokens and at one group: what a push shows, by a command of `methods`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ebpo_sim.claims.base import Case, Context, Finding
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards
from ebpo_sim.numbers import Array
from ebpo_sim.objectives import GBPO, REAL, Clip, DisCO, Objective, Tokens, make_objective

EXACT = 1e-9
RATIOS = tuple(np.round(np.geomspace(0.05, 9.0, 41), 4))


def least(variant: str, cases: Sequence[Case], condition: str = "", strict: bool = False) -> Finding:
    """The finding whose effect is the least margin."""
    return Finding(variant, cases, condition, "least margin", min(c.effect for c in cases), strict=strict)


def shown(objective: str, *answers: str, old: float = 0.1, column: str = "push") -> str:
    """The command that shows it."""
    given = " ".join(f"--answer {a}" for a in answers)
    return f'methods --push "{objective}" {given} --old {old:g}: {column}'


def token(ratio: float, advantage: float, old: float = 0.1) -> Tokens:
    """One token of this ratio."""
    cell = np.ones((1, 1))
    now, group = np.log(ratio * old) * cell, np.zeros(1, int)
    return Tokens(now, np.log(old) * cell, cell > 0, advantage * cell, group, behaviour_NT=np.log(old) * cell)


def pushed(objective: Objective, tokens: Tokens) -> Array:
    return np.asarray(objective.push(objective.init(), tokens).log_prob_NT)


def one(objective: Objective, ratio: float, advantage: float, old: float = 0.1) -> float:
    return float(pushed(objective, token(ratio, advantage, old))[0, 0])


def split(size: int, right: int, advantages: str) -> Tokens:
    """A group of answers of one token on-policy, `right` of them right, under this estimator's advantages."""
    groups = group_rewards([[1.0] * right + [0.0] * (size - right)])
    advantage_PG, _, _ = make(advantages).step((), groups)
    cell = np.full((size, 1), np.log(0.1))
    return Tokens(cell, cell, cell < 0, np.asarray(advantage_PG).reshape(size, 1), np.zeros(size, int))


def split_text(tokens: Tokens) -> list[str]:
    return [f"1:{a:.6g}" for a in tokens.advantage_NT[:, 0]]


def kept_gradient(_: Context) -> list[Finding]:
    """J2: pushes over a grid of ratios and both signs; effects along the advantage."""
    kept, further = [], {"cispo": [], "clip": []}  # type: tuple[list[Case], dict[str, list[Case]]]
    for ratio, advantage in product(RATIOS, (1.0, -1.0)):
        answer = f"{ratio:g}:{advantage:g}"
        kept.append(Case(shown("cispo", answer), abs(one(make_objective("cispo"), ratio, advantage)), x=ratio))
        if (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0):
            for name, cases in further.items():
                away = one(make_objective(name), ratio, advantage) * advantage
                cases.append(Case(shown(name, answer), -away, x=ratio))
    least = min(c.effect for c in kept)
    return [
        Finding("a gradient at every token", kept, "", "least |push| at |A| = 1", least),
        *(Finding(f"{name}, none further off", cases, "", "largest push beyond the bound",
                  -min(c.effect for c in cases), strict=False) for name, cases in further.items()),
    ]  # fmt: skip


def smooth(_: Context) -> list[Finding]:
    """J5: the largest change of the push between ratios 1e-4 nats apart; effect 0.01 less that."""
    grid, findings = np.arange(-3, 3, 1e-4), []
    for name in ("sapo", "mhpo", "vespo", "clip"):
        cases = []
        for advantage in (1.0, -1.0):
            ratio = np.exp(grid)[:, None]
            rows = Tokens(np.log(ratio) - 4, np.full_like(ratio, -4.0), ratio > 0, np.full_like(ratio, advantage))
            jumps = np.abs(np.diff(pushed(make_objective(name), rows)[:, 0]))
            at = int(np.argmax(jumps))
            pair = [f"{r:.6g}:{advantage:g}" for r in ratio[at : at + 2, 0]]
            cases.append(Case(shown(name, *pair, old=0.01), 0.01 - float(jumps.max()), x=advantage))
        findings.append(Finding(name, cases, "", "largest jump", 0.01 - min(c.effect for c in cases)))
    return findings


def on_policy(_: Context) -> list[Finding]:
    """J6: the push at ratio 1 is the advantage."""
    findings = []
    for name in ("sapo", "gspo", "gmpo", "vespo", "topr", "minpro", "dppo", "mhpo"):
        pushes = {a: one(make_objective(name), 1.0, a) for a in (1.0, -1.0)}
        cases = [Case(shown(name, f"1:{a:g}"), EXACT - abs(p - a)) for a, p in pushes.items()]
        findings.append(Finding(name, cases, "", "push at ratio 1, A = 1", pushes[1.0], strict=False))
    return findings


def targets(_: Context) -> list[Finding]:
    """J8: on-policy pushes of GBPO at tau 1e-4 on every binary group of up to 8, advantages as GRPO's."""
    found: dict[str, list[Case]] = {"wrong answers go down": [], "right answers go up": []}
    for size in range(2, 9):
        for right in range(1, size):
            tokens = split(size, right, "grpo")
            push = pushed(GBPO(tau=1e-4), tokens)[:, 0]
            command = shown("gbpo:tau=0.0001", *split_text(tokens))
            found["wrong answers go down"].append(Case(command, -push[-1], 2 * right >= size, right / size))
            found["right answers go up"].append(Case(command, push[0], 2 * right <= size, right / size))
    conditions = ("p ≥ 1/2", "p ≤ 1/2")
    return [
        Finding(name, cases, condition, "mean push", float(np.mean([c.effect for c in cases])))
        for (name, cases), condition in zip(found.items(), conditions, strict=True)
    ]


def question_weight(_: Context) -> list[Finding]:
    """J9: on-policy mass of pushes on a group's right answers, relative to that of an even group of 8."""
    findings = []
    rules: tuple[tuple[str, str, Objective], ...] = (
        ("disco", "disco:beta=0", DisCO(beta=0.0)), ("grpo", "clip", Clip()), ("dr_grpo", "clip", Clip()),
        ("real", "real", REAL()),
    )  # fmt: skip
    for name, text, objective in rules:
        masses = {}
        for right in (4, 1, 2, 3, 5, 6, 7):
            tokens = split(8, right, name if name in ("grpo", "dr_grpo") else "dr_grpo")
            push = pushed(objective, tokens)[:, 0]
            masses[right] = (float(push[:right].sum()), shown(text, *split_text(tokens)))
        cases = [Case(c, EXACT - abs(m / masses[4][0] - 1), x=k / 8) for k, (m, c) in masses.items() if k != 4]
        findings.append(
            Finding(name, cases, "", "weight at 1 of 8 over 4 of 8", masses[1][0] / masses[4][0], strict=False)
        )
    return findings


def balance(_: Context) -> list[Finding]:
    """J12: the good answer's share of the sum of |value|, or of |push|, at a lower bound of 0.9 less that at 0.6."""
    found: dict[str, list[Case]] = {"of the objective": [], "of the gradient": []}
    for good, bad in product((0.7, 1.0, 1.1, 1.5), (0.5, 0.7, 0.85, 1.0, 1.3)):
        cell = np.array([[good], [bad]])
        advantage = np.array([[1.0], [-1.0]])
        rows = Tokens(np.log(0.1 * cell), np.full((2, 1), np.log(0.1)), cell > 0, advantage)
        for name, column in (("of the objective", "value"), ("of the gradient", "push")):
            share = []
            for low in (0.9, 0.6):
                clip = Clip(1 - low, 1.0)
                size = np.abs(clip.value((), rows, rows) if column == "value" else pushed(clip, rows))[:, 0]
                share.append(float(size[0] / size.sum()))
            command = shown("clip:low=0.1,high=1", f"{good:g}:1", f"{bad:g}:-1", column=column)
            found[name].append(Case(command, share[0] - share[1], x=bad))
    return [least(*item) for item in found.items()]


def bounded(_: Context) -> list[Finding]:
    """J14: the largest |push| at |A| = 1 over ratios up to e^10, against the bound that is claimed."""
    bounds = (("vespo", 1.25), ("mhpo", float(np.exp(1.5))), ("topr", 1.0), ("cispo", 1.2),
                                           ("clip", 1.2))  # fmt: skip
    findings = []
    for name, bound in bounds:
        cases = []
        for ratio, advantage in product(np.exp(np.linspace(-4, 10, 57)), (1.0, -1.0)):
            command = shown(name, f"{ratio:.5g}:{advantage:g}", old=1e-5)
            cases.append(Case(command, bound - abs(one(make_objective(name), ratio, advantage, 1e-5)), x=ratio))
        largest = bound - min(c.effect for c in cases)
        findings.append(Finding(f"{name}, {bound:.4g}", cases, "", "largest |push|", largest, strict=False))
    return findings
