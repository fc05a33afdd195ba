"""From numbers to a recommendation in plain language: what to do, how sure that is, what would change it.

Everything here is text made from estimates: no data, no printing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ebpo_sim import labels
from ebpo_sim.diagnose.intervals import Components, Estimate
from ebpo_sim.diagnose.ratios import Ratio, Table
from ebpo_sim.diagnose.traps import Component, Silence
from ebpo_sim.estimators import needs_prior
from ebpo_sim.numbers import formulas

Verdict = Literal["shrink", "shrink a little", "keep the group mean", "undecided", "no signal"]
WORTH = 0.05  # a smaller gain in error than this does not pay for a prior that has to be learnt
LARGE = 0.15  # from here on the gain is called large
BETTER = 0.005  # a curve must beat the line by more than this, for certain, to be preferred to it
LARGEST = 1024  # group size: more rollouts a prompt are not told apart
LINE = "ebpo_debiased"
FEW = 50  # prompts below which bootstrap intervals are rough


class Advice(NamedTuple):
    """verdict in a word, the baseline it names, its ratio, GRPO's matching G (None: no finite one), the text."""

    verdict: Verdict
    estimator: str
    ratio: Estimate | None
    matching_size: Estimate | None
    certain: bool
    sentences: tuple[str, ...]


def advise(
    table: Table, found: Components, group_size: int, prompts: int, zero: Estimate | None,
    gap: list[float], notes: tuple[str, ...],
) -> Advice:  # fmt: skip
    """The recommendation at this group size. Sizes above `LARGEST` are infinite: no one trains with them."""
    rows = {row.estimator: row for row in table.at(group_size) if row.best is not None}
    if not found.within.value > 0:
        said = "no group has two different rewards: no baseline and no normalisation makes a signal of that. "
        said += "Change the prompts (easier or harder ones), the temperature or the reward."
        return Advice("no signal", labels.REFERENCE, None, None, True, (said,))
    if not rows:
        return Advice("undecided", "", None, None, False, ("none of the estimators asked for suits these rewards.",))
    row = _preferred(rows, table, group_size)
    ratio = row.best
    assert ratio is not None
    verdict, certain = _verdict(ratio)
    matching = _matching(ratio, group_size)
    sentences = [
        _what(verdict, row, ratio, group_size),
        _sure(verdict, certain, row, prompts, notes),
        *_published(rows, group_size),
        _size(verdict, matching, group_size, row.estimator),
        _normalise(zero, gap, group_size),
        _change(verdict, found.icc, group_size),
    ]
    named = row.estimator if verdict.startswith("shrink") or verdict == "undecided" else labels.REFERENCE
    return Advice(verdict, named, ratio, matching, certain, tuple(s for s in sentences if s))


def of_parts(gain: Estimate | None, first: Estimate | None, last: Estimate | None) -> tuple[str, ...]:
    """What clusters and steps add: whether a prior for each cluster pays, and whether the policy moved."""
    said = []
    if gain is not None and gain.low is not None and gain.high is not None:
        if gain.high < 1 - WORTH:
            said.append(f"Clusters: keep a prior for each (per_cluster=True); it leaves {span(gain)} of the error.")
        elif gain.low > 1 - WORTH:
            said.append(f"Clusters: one prior for all is enough; one for each leaves {span(gain)} of the error.")
        else:
            said.append(f"Clusters: undecided; a prior for each leaves {span(gain)} of the error.")
    if first is not None and last is not None and None not in (first.low, first.high, last.low, last.high):
        apart = max(first.low or 0.0, last.low or 0.0) > min(first.high or 0.0, last.high or 0.0)
        if apart:
            said.append(
                f"Training: the ICC moved from {span(first)} to {span(last)}. The recommendation is for all steps "
                "together; look at the last ones, and let the prior forget (memory=0.95)."
            )
        else:
            said.append("Training: the ICC of the first and the last steps is not told apart.")
    return tuple(said)


def of_limit(icc: Sequence[tuple[str, Estimate]], group_size: int) -> str:
    """Which windows of steps are certainly above, which below the ICC from which EBPO as published loses."""
    limit, placed = formulas.critical_icc(group_size), {"above": 0, "below": 0, "not told apart": 0}
    first = ""
    for name, e in icc:
        above = e.low is not None and e.low > limit
        below = e.high is not None and e.high < limit
        placed["above" if above else "below" if below else "not told apart"] += 1
        first = first or (name if above else "")
    told = ", ".join(f"{number} {word}" for word, number in placed.items() if number)
    since = f"; above it for certain first in steps {first}" if first else ""
    return (
        f"Critical ICC at G = {group_size}: {limit:.3f}, above which EBPO as published loses to the group mean. Of "
        f"{len(icc)} windows {told}{since}."
    )


def of_error(ratio: Estimate | None, group_size: int) -> str:
    """What error alone says of noise where rewards take more than two values: a bound under equally long scores.

    A baseline b independent of the scored rollout has E(r - b)^2 = w + E(b - p)^2; GRPO's noise is w G/(G-1). So a
    rollout is worth at most G/(G-1)/(1 + ratio/G) of GRPO's.
    """
    if ratio is None or group_size < 2:
        return ""
    bound = group_size / (group_size - 1) / (1 + max(ratio.value, 0.0) / group_size)
    return (
        "Noise: rewards take more than two values, so only its bound from error is known: if all scores are equally "
        f"long, a rollout is worth at most {bound:.2f} of GRPO's."
    )


def of_filtered(found: Silence | None) -> str:
    """Why a log that was filtered decides nothing; `found`: how it was noticed, None where the user stated it."""
    ask = "diagnose the log from before the filter"
    if found is None:
        return (
            "Confidence: none. Of groups kept because their rewards differ the pass rates of their own prompts can be "
            "known. How many prompts are never or always solved cannot, so neither can the mean, the ICC, the silent "
            f"groups at any G, nor any rule's error: {ask}."
        )
    silent = f"{found.silent or 'no'} silent group{'s' if found.silent > 1 else ''}"
    return (
        f"Confidence: none. This log looks filtered (dynamic sampling): {silent} of {found.groups}, where even the "
        f"prior fitted to it expects {found.expected:.1%} (P = {found.probability:.0e}). All estimates assume that "
        f"every group was logged: {ask}, or state --filtered for what the kept groups can tell."
    )


def of_rewards(found: tuple[Component, ...]) -> tuple[str, ...]:
    """Groups whose whole gradient comes from the lesser rewards, where they are many."""
    if not found or found[0].others.value < WORTH:
        return ()
    main, others = found[0], ", ".join(c.name for c in found[1:])
    return (
        f"Rewards: {span(main.silent, 100, ' %')} of the groups are silent in {main.name}; "
        f"{span(main.others, 100, ' %')} of all groups get their whole gradient from {others}, which a group's own std "
        "scales up to full size. Subtract the baseline of each reward apart, or use one scale for the batch.",
    )


def span(e: Estimate | None, scale: float = 1.0, unit: str = "") -> str:
    """`0.745 [0.739, 0.752]`, to the interval's leading digits."""
    if e is None or not math.isfinite(e.value):
        return "-"
    if e.low is None or e.high is None:
        return f"{e.value * scale:.3g}{unit} [no interval]"
    value, low, high = (x * scale for x in (e.value, e.low, e.high))
    half, size = (high - low) / 2, max(abs(value), abs(low), abs(high))
    if 0 < size < 5e-4:  # would be printed as 0
        return f"{value:.2g}{unit}" + (f" [{low:.2g}, {high:.2g}]" if half > 1e-9 * size else "")
    digits = 3 if half <= 1e-9 else min(4, max(0, 1 - math.floor(math.log10(half))))
    if half <= 1e-9:
        return f"{value:.{digits}f}{unit}"
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _preferred(rows: Mapping[str, Ratio], table: Table, group_size: int) -> Ratio:
    """The line, unless another rule is better for certain in a paired comparison; without the line, the best."""
    usable = {n: r for n, r in rows.items() if not needs_prior(n)}
    best = min((usable or dict(rows)).values(), key=lambda r: r.best.value if r.best else math.inf)
    line = rows.get(LINE)
    if line is None or best is line:
        return best
    gain = table.gain(group_size, best.estimator, LINE)
    return best if gain is not None and gain.low is not None and gain.low > BETTER else line


def _verdict(ratio: Estimate) -> tuple[Verdict, bool]:
    if ratio.low is None or ratio.high is None:
        return "undecided", False
    least, most = 1 - ratio.high, 1 - ratio.low
    if least >= WORTH:
        return ("shrink" if 1 - ratio.value >= LARGE else "shrink a little"), True
    if most < WORTH:
        return "keep the group mean", True
    if least > 0:
        return "shrink a little", False
    return "undecided", False


def _matching(ratio: Estimate, group_size: int) -> Estimate | None:
    """Smallest G' with w/G' <= ratio w/G, and the same at the ends of its interval; infinite above `LARGEST`."""
    if ratio.value <= 0 or ratio.low is None or ratio.high is None:
        return None

    def size(r: float) -> float:
        return float(max(1, math.ceil(group_size / r - 1e-6))) if r * LARGEST >= group_size else math.inf

    return Estimate(size(ratio.value), size(ratio.high), size(ratio.low))


def _what(verdict: Verdict, row: Ratio, ratio: Estimate, g: int) -> str:
    numbers = f"its error is {span(ratio)} of the group mean's at G = {g}"
    if verdict == "keep the group mean":
        return (
            f"Keep the group mean (GRPO, Dr. GRPO, RLOO): the best rule, {row.estimator}, gains too little; {numbers}."
        )
    if verdict == "undecided":
        return f"Undecided: {row.estimator} may beat the group mean; {numbers}, which the log cannot tell from 1."
    how = "Shrink" if verdict == "shrink" else "Shrinking helps a little"
    return f"{how}: use {row.estimator} in place of the group mean; {numbers}."


def _sure(verdict: Verdict, certain: bool, row: Ratio, prompts: int, notes: tuple[str, ...]) -> str:
    source = "rollouts held back (no model)" if row.model_free else row.basis
    over = row.held if row.model_free else prompts
    if row.best is None or row.best.low is None:
        return "Confidence: none, too few groups have different rewards for an interval."
    said = "Confidence: high" if certain else "Confidence: low"
    if certain and (prompts < FEW or any("depend on the rewards" in n for n in notes)):
        said = "Confidence: moderate"
    side = f"one side of {1 - WORTH:g}" if certain else f"both sides of {1 - WORTH:g}"
    said += f". The 95 % interval over {over} prompts, from {source}, lies on {side}, where the gain starts to pay."
    if prompts < FEW:
        said += f" Below {FEW} prompts intervals are rough."
    return said


def _published(rows: Mapping[str, Ratio], g: int) -> list[str]:
    row = rows.get("ebpo")
    if row is None or row.best is None or row.best.low is None or row.best.high is None:
        return []
    if row.best.low > 1:
        return [f"Do not use EBPO as published: {span(row.best)} times the group mean's error at G = {g}."]
    if row.best.high < 1:
        return [f"EBPO as published also beats the group mean here: {span(row.best)}."]
    return [f"EBPO as published is not told apart from the group mean: {span(row.best)}."]


def _size(verdict: Verdict, matching: Estimate | None, g: int, name: str) -> str:
    if matching is None or matching.low is None or matching.high is None or verdict in ("undecided", "no signal"):
        return ""
    value = _many(matching.value)
    if verdict == "keep the group mean":
        return f"Group size: shrinking would be worth less than going from G = {g} to {value} with GRPO."
    ends = f" ({matching.low:.0f} to {_many(matching.high)})" if math.isfinite(matching.low) else ""
    return (
        f"Group size: GRPO needs G = {value}{'' if matching.low == matching.high else ends} to match {name} at G = {g}."
    )


def _many(size: float) -> str:
    return f"{size:.0f}" if math.isfinite(size) else f"more than {LARGEST}"


def _normalise(zero: Estimate | None, gap: list[float], g: int) -> str:
    if zero is None:
        return ""
    said = f"Normalisation: {span(zero, 100, ' %')} of groups of {g} have all rewards equal; a group's own std gives "
    said += "them nothing"
    if len(gap) == 2 and gap[1] > gap[0] > 0:
        said += ", and the others a gap between right and wrong answers that differs from prompt to prompt"
    if zero.value > 0.5:
        return said + ". One scale for the batch is the safer choice; other prompts would help more than any baseline."
    if zero.value > 0.2:
        return said + ". One scale for the batch keeps the gap equal."
    return said + ". Group std or one scale for the batch: little depends on it."


def _change(verdict: Verdict, icc: Estimate, g: int) -> str:
    pays = (1 - WORTH) / (1 + WORTH * (g - 1))  # S* = WORTH
    loses = formulas.critical_icc(g)
    said = (
        f"What would change it: the ICC is {span(icc)}. Shrinking pays (by {WORTH:.0%} at G = {g}) below {pays:.2f}, "
    )
    said += f"EBPO as published loses to the group mean above {loses:.2f}; a smaller G moves both up."
    if verdict == "undecided":
        said += " More prompts would decide it."
    return said
