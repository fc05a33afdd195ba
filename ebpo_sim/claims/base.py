"""What a claim is, and how evidence becomes a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import stdtr

from ebpo_sim.counts.streams import Design
from ebpo_sim.estimators import Estimator
from ebpo_sim.numbers.mixing import Prior

Word = Literal["holds", "holds_if", "fails"]
Subject = Callable[[Prior], Estimator]


class Case(NamedTuple):
    """One place where a claim is checked.

    command: what a reader types to see it. effect: above 0 where the claim holds, by how much; at or below 0 where
    it does not. expected: whether the candidate condition says that it holds here. x: abscissa for the figure.
    """

    command: str
    effect: float
    expected: bool = True
    x: float = float("nan")


class Check(NamedTuple):
    """Exact value and Monte Carlo confirmation of one number; se 0 means that the two must be equal.

    freedom: the degrees of freedom of the standard error.
    """

    exact: float
    simulated: float
    se: float
    freedom: int

    @property
    def z(self) -> float:
        gap = self.simulated - self.exact
        if self.se <= 0:
            return 0.0 if abs(gap) < 1e-9 else float("inf")
        return gap / self.se

    @property
    def p_value(self) -> float:
        """Two-sided, Student's with this check's degrees of freedom; 1 or 0 where the two must be equal."""
        return float(2 * stdtr(self.freedom, -abs(self.z)))


class Verdict(NamedTuple):
    """The decision over all cases, with the first violation in their order."""

    word: Word
    condition: str
    counterexample: str
    violations: int


@dataclass(frozen=True)
class Context:
    """What the ledger runs on: estimators by variant, worlds in search order, group sizes, the simulations' size."""

    subjects: dict[str, Subject]
    worlds: tuple[str, ...]
    group_sizes: tuple[int, ...]
    reference: str
    reference_size: int
    design: Design
    threads: int = 1
    quick: bool = False


@dataclass(frozen=True)
class Finding:
    """A claim under one variant: verdict, effect size, Monte Carlo check, and the cases for the figure."""

    variant: str
    cases: Sequence[Case]
    condition: str
    effect_name: str
    effect: float
    check: Check | None = None
    repaired_by: str = ""
    verdict: Verdict = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", decide(self.cases, self.condition))


class Claim(NamedTuple):
    """A statement, where it is from, what its proof assumes, and the function that checks it.

    meaning: what the verdict means for a practitioner, one line.
    """

    id: str
    source: str
    statement: str
    assumptions: str
    meaning: str
    check: Callable[[Context], list[Finding]]


def decide(cases: Sequence[Case], condition: str) -> Verdict:
    """holds: no violation anywhere. holds_if: violations only where the condition predicts them, and it predicts
    success somewhere. fails: a violation where the condition, or the claim as printed, says there is none.

    A case is violated when its effect is at or below 1e-12. The counterexample is the first violation in order.
    """
    violated = [c for c in cases if not c.effect > 1e-12]
    first = violated[0].command if violated else ""
    if not violated:
        return Verdict("holds", "", "", 0)
    explained = not any(c.expected for c in violated)
    if condition and explained and any(c.expected for c in cases):
        return Verdict("holds_if", condition, first, len(violated))
    return Verdict("fails", "", first, len(violated))


def to_row(claim: Claim, finding: Finding) -> dict[str, Any]:
    """One row of the ledger."""
    effects = [c.effect for c in finding.cases]
    check = finding.check
    return {
        "id": claim.id,
        "source": claim.source,
        "statement": claim.statement,
        "variant": finding.variant,
        "verdict": finding.verdict.word,
        "condition": finding.verdict.condition or None,
        "effect": finding.effect,
        "effect_se": None if check is None else check.se,
        "counterexample": finding.verdict.counterexample or None,
        "repaired_by": finding.repaired_by or None if finding.verdict.word != "holds" else None,
        "effect_name": finding.effect_name,
        "effect_mc": None if check is None else check.simulated,
        "effect_checked": None if check is None else check.exact,
        "z": None if check is None or not np.isfinite(check.z) else check.z,
        "cases": len(effects),
        "violations": finding.verdict.violations,
        "smallest_margin": float(min(effects)),
        "largest_margin": float(max(effects)),
    }
