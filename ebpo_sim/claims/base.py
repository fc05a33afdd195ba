"""What a claim is, and how evidence becomes a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from scipy.special import stdtr

from ebpo_sim.counts.streams import Design, Mean
from ebpo_sim.estimators import Estimator
from ebpo_sim.numbers.mixing import Prior

Word = Literal["holds", "holds_if", "fails"]
Subject = Callable[[Prior], Estimator]
MARGIN = 1e-6  # of an effect: within it a claim neither holds nor fails, it is met with equality
UNTOLD = 5.0  # standard errors within which a simulated effect is not told from equality


class Case(NamedTuple):
    """One place where a claim is checked.

    command: what a reader types to see it, and after ": " the column to look at. effect: above 0 where the claim
    holds, by how much; below 0 where it does not. expected: whether the candidate condition says that it holds here.
    x: abscissa for the figure. se: standard error of an effect that is simulated.
    """

    command: str
    effect: float
    expected: bool = True
    x: float = float("nan")
    se: float = 0.0

    @property
    def sign(self) -> int:
        """1 where the claim holds, 0 where it is met with equality (within MARGIN and UNTOLD se), -1 where it fails."""
        if abs(self.effect) <= max(MARGIN, UNTOLD * self.se):
            return 0
        return 1 if self.effect > 0 else -1


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
    """The decision over all cases, with the first violation in their order.

    above, equal, below: in how many cases the claim holds, is met with equality, fails.
    """

    word: Word
    condition: str
    counterexample: str
    violations: int
    above: int = 0
    equal: int = 0
    below: int = 0

    @property
    def text(self) -> str:
        """The word with its condition, and the three counts where it does not simply hold."""
        word = f"{self.word.replace('_', ' ')} {self.condition}".rstrip()
        return word if self.word == "holds" else f"{word} ({self.above} / {self.equal} / {self.below})"


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

    @property
    def where(self) -> str:
        """The reference cell, as effects name it."""
        return f"{self.reference}, G={self.reference_size}"

    def confirmed(self, exact: float, simulated: Mean) -> Check:
        """The check by a mean over the design's replicates."""
        return Check(exact, *simulated, self.design.replicates - 1)


@dataclass(frozen=True)
class Finding:
    """A claim under one variant: verdict, effect size, Monte Carlo check, and the cases for the figure.

    strict: whether equality violates the claim. repaired_by: the variant of the same claim that should hold instead.
    """

    variant: str
    cases: Sequence[Case]
    condition: str
    effect_name: str
    effect: float
    check: Check | None = None
    repaired_by: str = ""
    strict: bool = True
    verdict: Verdict = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", decide(self.cases, self.condition, self.strict))


Decision = Callable[[Context], list[Finding]]


class Claim(NamedTuple):
    """A statement, where it is from, what its proof assumes, and the function that checks it.

    meaning: what the verdicts mean for a practitioner, one line. presumes: the verdicts that it speaks of, as
    (variant, word); where one of them is another, the line is not shown.
    """

    id: str
    source: str
    statement: str
    assumptions: str
    meaning: str
    check: Decision
    presumes: tuple[tuple[str, Word], ...] = ()


def presumed(text: str) -> tuple[tuple[str, Word], ...]:
    """What a claim presumes, from "variant = word; variant = word"."""
    pairs = (pair.rpartition(" = ") for pair in " ".join(text.split()).split("; "))
    return tuple((variant, cast(Word, word)) for variant, _, word in pairs)


CLAIMS: dict[str, Claim] = {}  # by id, as their modules are imported


def claim(
    id: str, source: str, statement: str, assumptions: str, meaning: str, presumes: tuple[tuple[str, Word], ...] = ()
) -> Callable[[Decision], Decision]:
    """Decorator: the function decides this claim; the fields are those of `Claim`."""

    def add(check: Decision) -> Decision:
        enter(Claim(id, source, statement, assumptions, meaning, check, presumes))
        return check

    return add


def enter(*claims: Claim) -> None:
    """Bring claims into the ledger."""
    CLAIMS.update({claim.id: claim for claim in claims})


def decide(cases: Sequence[Case], condition: str, strict: bool = True) -> Verdict:
    """holds: no violation anywhere. holds_if: violations only where the condition predicts them, and it predicts
    success somewhere. fails: a violation where the condition, or the claim as printed, says there is none.

    A case is violated when the claim fails there (`Case.sign`), a strict claim also where it is met with equality.
    An effect that is not a number violates. The counterexample is the first failure in order, or else the first
    equality.
    """
    signs = [c.sign for c in cases]
    violated = [c for c, sign in zip(cases, signs, strict=True) if sign < strict]
    counts = {"above": signs.count(1), "equal": signs.count(0), "below": signs.count(-1)}
    if not violated:
        return Verdict("holds", "", "", 0, **counts)
    first = next((c for c in violated if c.sign < 0), violated[0]).command
    explained = not any(c.expected for c in violated)
    if condition and explained and any(c.expected for c in cases):
        return Verdict("holds_if", condition, first, len(violated), **counts)
    return Verdict("fails", "", first, len(violated), **counts)


def repair(finding: Finding, beside: Sequence[Finding]) -> str:
    """The variant in `beside` that `finding` names as its repair, under the same option where there is one; "" where
    nothing needs repair or the repair does not hold either."""
    if finding.verdict.word == "holds" or not finding.repaired_by:
        return ""
    option = finding.variant.rpartition(", ")[2]
    words = {f.variant: f.verdict.word for f in beside}
    names = (f"{finding.repaired_by}, {option}", finding.repaired_by)
    return next((n for n in names if words.get(n) == "holds"), "")


def meaning(claim: Claim, findings: Sequence[Finding]) -> str:
    """The claim's line for a practitioner, or what stands in its place where a verdict it presumes has changed."""
    words = {f.variant: f.verdict.word for f in findings}
    moved = [variant for variant, word in claim.presumes if words.get(variant) != word]
    return f"(verdict changed: {', '.join(moved)}; read the table)" if moved else claim.meaning


def to_row(claim: Claim, finding: Finding, beside: Sequence[Finding] = ()) -> dict[str, Any]:
    """One row of the ledger; `beside`: all findings of the claim, among which is the repair."""
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
        "repaired_by": repair(finding, beside) or None,
        "effect_name": finding.effect_name,
        "effect_mc": None if check is None else check.simulated,
        "effect_checked": None if check is None else check.exact,
        "z": None if check is None or not np.isfinite(check.z) else check.z,
        "cases": len(effects),
        "violations": finding.verdict.violations,
        "above": finding.verdict.above,
        "equal": finding.verdict.equal,
        "below": finding.verdict.below,
        "smallest_margin": float(min(effects)),
        "largest_margin": float(max(effects)),
    }
