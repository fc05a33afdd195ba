"""From rows of a study to a verdict: a word, the difference behind it, and its interval. Pure functions.

The rule. A difference comes with an interval of two standard errors. Covering zero: "no difference seen", which is
no verdict. Else, within 1 % of GRPO's value on either side: "does not appear" (real but negligible). Else its
sign decides: "appears", or "the opposite". Exact sums have no interval: zero is "does not appear".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Rows = Sequence[dict[str, Any]]
Test = Callable[..., "Verdict"]

APPEARS, ABSENT, OPPOSITE = "appears", "does not appear", "the opposite"
UNSEEN = "no difference seen"
MISSING = "not studied"
NEGLIGIBLE = 0.01  # of GRPO's value: smaller differences are no effect worth a claim
EXACT_ZERO = 1e-6  # exact sums are good to more digits than this


class Verdict(NamedTuple):
    """A word, what was compared, and the difference with half of its interval (None: exact, or nothing there)."""

    word: str
    what: str
    difference: float | None = None
    half_width: float | None = None
    unit: float = 1.0

    @property
    def numbers(self) -> str:
        """The difference and its interval, to the interval's second digit."""
        if self.difference is None:
            return ""
        if self.half_width is None:
            shown = f"{self.difference * self.unit:+.3f}" if self.difference else "0"
            return f"{shown} (exact)".replace("-", "−")
        width = self.half_width * self.unit
        digits = 3 if width <= 0 else min(6, max(1, 1 - math.floor(math.log10(width))))
        return f"{self.difference * self.unit:+.{digits}f} ± {width:.{digits}f}".replace("-", "−")

    @property
    def line(self) -> str:
        """One line for a caption."""
        return f"{self.what}: {self.word}" + (f" ({self.numbers})" if self.numbers else "")


def judge(
    difference: float | None, se: float | None, sign: int, reference: float, what: str, unit: float = 1
) -> Verdict:
    """The verdict on a simulated difference; `reference` is GRPO's value, `sign` the claimed direction."""
    if difference is None or se is None or math.isnan(difference) or math.isnan(se):
        return Verdict(MISSING, what)
    half = 2 * se
    if abs(difference) <= half:
        word = UNSEEN
    elif abs(difference) + half <= NEGLIGIBLE * abs(reference):
        word = ABSENT
    else:
        word = APPEARS if difference * sign > 0 else OPPOSITE
    return Verdict(word, what, difference, half, unit)


def judge_exact(difference: float | None, sign: int, what: str) -> Verdict:
    """The verdict on a difference without sampling error."""
    if difference is None:
        return Verdict(MISSING, what)
    if abs(difference) <= EXACT_ZERO:
        return Verdict(ABSENT, what, 0.0)
    return Verdict(APPEARS if difference * sign > 0 else OPPOSITE, what, difference)


def select(rows: Rows, **where: Any) -> list[dict[str, Any]]:
    """The rows with these values, in the order of their steps where they have any."""
    found = [r for r in rows if all(r.get(k) == v for k, v in where.items())]
    return sorted(found, key=lambda r: r["step"]) if found and "step" in found[0] else found


def last(rows: Rows, **where: Any) -> dict[str, Any] | None:
    """The row of the last step that has a value."""
    found = [r for r in select(rows, **where) if r["value"] is not None]
    return found[-1] if found else None


def at_end(rows: Rows, sign: int, what: str, unit: float = 1, estimator: str = "ebpo", **cell: Any) -> Verdict:
    """EBPO minus GRPO, paired by seed, at the end of training. `cell` includes the metric."""
    mine, plain = last(rows, estimator=estimator, **cell), last(rows, estimator="grpo", **cell)
    if mine is None or plain is None:
        return Verdict(MISSING, what)
    return judge(mine["difference"], mine["difference_se"], sign, plain["value"], what, unit)


def over_training(rows: Rows, sign: int, what: str, estimator: str = "ebpo", **cell: Any) -> Verdict:
    """EBPO minus GRPO, paired by seed, averaged over all steps.

    The standard error is the mean of the steps' standard errors, an upper bound whatever the correlation of steps.
    """
    mine = [r for r in select(rows, estimator=estimator, **cell) if r["difference"] is not None]
    plain = [r["value"] for r in select(rows, estimator="grpo", **cell) if r["value"] is not None]
    if not mine or not plain or any(r["difference_se"] is None for r in mine):
        return Verdict(MISSING, what)
    difference, se = _mean(r["difference"] for r in mine), _mean(r["difference_se"] for r in mine)
    return judge(difference, se, sign, _mean(plain), what)


def kept(rows: Rows, sign: int, what: str, estimator: str = "ebpo", **cell: Any) -> Verdict:
    """What is kept of a positive quantity from the first record to the last: log ratio, EBPO's minus GRPO's.

    Free of scale. Errors are added as if the four values were independent: common seeds only make it better.
    """
    difference, square = 0.0, 0.0
    for name, weight in ((estimator, 1), ("grpo", -1)):
        found = select(rows, estimator=name, **cell)
        if len(found) < 2 or any(not r["value"] or r["value"] < 0 or r["se"] is None for r in (found[0], found[-1])):
            return Verdict(MISSING, what)
        difference += weight * math.log(found[-1]["value"] / found[0]["value"])
        square += sum((r["se"] / r["value"]) ** 2 for r in (found[0], found[-1]))
    return judge(difference, math.sqrt(square), sign, 1.0, what)


def between_orders(
    rows: Rows, sign: int, what: str, unit: float = 1, orders: tuple[str, str] = ("topic", "shuffled"), **cell: Any
) -> Verdict:
    """The first order minus the second at the end, for one estimator.

    The two are added as if independent: common seeds would only make the interval shorter.
    """
    first, second = (last(rows, order=order, **cell) for order in orders)
    if first is None or second is None or first["se"] is None or second["se"] is None:
        return Verdict(MISSING, what)
    se = math.hypot(first["se"], second["se"])
    return judge(first["value"] - second["value"], se, sign, second["value"], what, unit)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
