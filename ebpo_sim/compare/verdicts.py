"""The words for a difference, the same in every study, comparison, figure and table; decided nowhere else.

    not studied              no such runs, or no number
    no interval              one seed
    no difference seen       the 95 % interval holds 0
    no resolving power       it holds 0, and half of it is wider than the margin: such an effect would be missed; or a
                             tie where the reference's nu/N is below 1 (`in_regime`)
    before correction only   it excludes 0, but Holm's p in the declared family is not below 0.05
    negligible               it excludes 0 and lies within the margin; an exact number within rounding of 0
    appears, the opposite    the difference is there, with the claimed sign or against it

A margin is stated by who compares (the least effect worth a claim), or there is none. Differences without sampling
error (exact sums) are judged by `judge_exact`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from ebpo_sim.compare.differences import Difference

Verdict = Literal[
    "appears", "the opposite", "negligible", "before correction only", "no difference seen", "no resolving power",
    "no interval", "not studied",
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LEVEL = 0.05
POWER = 1.0  # nu/N of the reference below which a tie of methods that differ in noise says nothing
EXACT_ZERO = 1e-6  # exact sums are good to more digits than this


def judge(found: Difference | None, sign: int = 1, margin: float | None = None, p_holm: float | None = None) -> Verdict:
    """The word for a difference; sign: the claimed direction. p_holm: where a family is declared, it decides."""
    if found is None or math.isnan(found.value):
        return "not studied"
    if found.low is None or found.high is None:
        return "no interval"
    if found.low <= 0 <= found.high:
        return "no difference seen" if margin is None or found.high - found.value <= margin else "no resolving power"
    if p_holm is not None and p_holm >= LEVEL:
        return "before correction only"
    if margin is not None and max(-found.low, found.high) <= margin:
        return "negligible"
    return _direction(found.value, sign)


def in_regime(word: Verdict, ratio: float) -> Verdict:
    """The word where the reference's nu/N is `ratio`: below POWER, or unknown (NaN), a tie has no resolving power."""
    return "no resolving power" if word in ("no difference seen", "negligible") and not ratio >= POWER else word


def judge_exact(difference: float | None, sign: int = 1) -> Verdict:
    """The word for a difference without sampling error."""
    if difference is None:
        return "not studied"
    return "negligible" if abs(difference) <= EXACT_ZERO else _direction(difference, sign)


def _direction(value: float, sign: int) -> Verdict:
    return "appears" if value * sign > 0 else "the opposite"
