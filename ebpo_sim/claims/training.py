"""What is said of training, decided from a committed run of the prediction study (`training.csv`, ratios as logs).

`studies/prediction/evidence.py` says how the table is made again. An effect's sign counts from five standard errors of
its paired seeds on (`base.Case`); seeds, worlds and regimes are the study's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from ebpo_sim import tables
from ebpo_sim.claims.base import Case, Context, Finding, claim, presumed

TABLE = Path(__file__).with_name("training.csv")
NEAR_ONE = math.log(1.05)  # a predictor that says less than that says nothing
MARGIN = 0.01  # of an asymptote
STEP = math.log(1.1)  # of a ratio of steps
Line = dict[str, str]


@lru_cache(maxsize=1)
def table() -> tuple[Line, ...]:
    """The committed lines."""
    return tuple(row for _, row in tables.rows(TABLE))


def lines(column: str, *estimators: str, setup: str = "adam", regime: str = "") -> list[Line]:
    """Those with a number in `column`, of these methods (of all without names)."""
    return [
        x for x in table()
        if x[column] and x["setup"] == setup and regime in ("", x["regime"])
        and (not estimators or x["estimator"] in estimators)
    ]  # fmt: skip


def regimes() -> list[str]:
    return list(dict.fromkeys(x["regime"] for x in table()))


def case(line: Line, column: str, effect: Callable[[float], float]) -> Case:
    """An effect of the column's number, with its standard error where it has one."""
    what = {"near_ratio": "ratio of steps, near", "far_ratio": "ratio of steps, far"}.get(column, column)
    command = (
        f"prediction_study --world {line['world']} --regime {line['regime']} --setup {line['setup']} "
        f"--group-size {line['group_size']} --estimator '{line['estimator'].partition(' + dynamic')[0]}': {what}"
    )
    se = float(line.get(f"{column}_se") or 0)
    return Case(command, effect(float(line[column])), True, float(line["group_size"]), se)


def finding(variant: str, cases: Iterable[Case], effect_name: str, strict: bool = True) -> Finding:
    """With the mean effect over the cases."""
    listed = list(cases)
    mean = sum(c.effect for c in listed) / len(listed) if listed else float("nan")
    return Finding(variant, listed, "", f"mean {effect_name}", mean, strict=strict)


def _ordered(column: str) -> list[Finding]:
    """By regime: does a method that `column` puts on one side of GRPO need steps on that side?"""
    found = []
    for regime in regimes():
        told = [x for x in lines("far_ratio", regime=regime) if x[column] and abs(float(x[column])) > NEAR_ONE]
        cases = [case(x, "far_ratio", lambda y, x=x: math.copysign(y, y * float(x[column]))) for x in told]  # type: ignore[misc]
        found.append(finding(regime, cases, f"log ratio of steps to GRPO on the side that {column} says"))
    return found


@claim(
    "E1",
    "premise of shrunk baselines (arXiv 2511.03710, 2602.05165)",
    "A lower baseline error trains faster",
    "skill chains, Adam, each method at its own rate, errors measured at the start",
    "No: where steps are noisy it goes the other way more often than not.",
    presumed("plateau = fails; balanced = fails; noisy = fails"),
)
def lower_error(context: Context) -> list[Finding]:
    """E1: sign of log(error / GRPO's) times log(steps / GRPO's)."""
    return _ordered("error")


@claim(
    "E2",
    "arXiv 1812.06162",
    "Lower gradient noise trains faster",
    "as E1; noise scales measured at the start",
    "Mostly, where steps are noisy; where they are nearly free of noise there is little to see.",
    presumed("plateau = fails; balanced = fails; noisy = fails"),
)
def lower_noise(context: Context) -> list[Finding]:
    """E2: sign of log predicted times log measured ratio of steps."""
    return _ordered("predicted")


@claim(
    "E3",
    "EBPO (arXiv 2602.05165), small groups",
    "EBPO reaches a target with fewer rollouts than GRPO at G = 2, 4, 8",
    "as E1; Algorithm 1",
    "Nowhere seen under Adam at own rates; from G = 4 on EBPO mostly takes more rollouts.",
    presumed("plateau = fails; balanced = fails; noisy = fails"),
)
def small_groups(context: Context) -> list[Finding]:
    """E3: -log(rollouts / GRPO's) to the far target, at G = 2, 4, 8."""
    found = []
    for regime in regimes():
        mine = lines("far_ratio", "ebpo", regime=regime)
        cases = [case(x, "far_ratio", lambda y: -y) for x in mine]
        found.append(finding(regime, cases, "-log ratio of rollouts to GRPO"))
    return found


@claim(
    "E4",
    "RAFT (arXiv 2504.11343) as it is read",
    "Training on right answers alone starts faster and ends lower",
    "as E1; the end: twice the longest run, Qwen2.5-7B, G = 4, at a quarter of GRPO's rate",
    "It starts faster wherever steps are noisy, and at a slow rate does not end lower: it ends with less entropy.",
    presumed(
        "reinforce, starts faster = fails; reinforce, ends with less pass@1 = fails; "
        "reinforce, ends with less pass@16 = fails; raft, starts faster = fails; "
        "raft, ends with less pass@1 = fails; raft, ends with less pass@16 = fails"
    ),
)
def fast_then_slow(context: Context) -> list[Finding]:
    """E4: steps to the near target, and what is lost at the end of a run without a target, against GRPO."""
    found = []
    for name in ("reinforce", "raft"):
        near = [case(x, "near_ratio", lambda y: -y) for x in lines("near_ratio", name)]
        found.append(finding(f"{name}, starts faster", near, "-log ratio of steps to GRPO, near target"))
        for column, text in (("pass1", "pass@1"), ("pass16", "pass@16")):
            ends = [case(x, column, lambda y: -y) for x in lines(column, name)]
            found.append(finding(f"{name}, ends with less {text}", ends, f"GRPO's {text} at the end less its own"))
    return found


@claim(
    "E5",
    "ScaleRL (arXiv 2510.13786)",
    "Normalisation moves efficiency, not the asymptote",
    "GRPO against RLOO, sigmoids of pass@1 in steps; as the end of E4",
    "Under Adam the group's spread moved neither the asymptote nor the midpoint by much.",
    presumed("asymptote stays = holds; efficiency moves = fails"),
)
def normalisation(context: Context) -> list[Finding]:
    """E5: RLOO (Dr. GRPO times a constant) against GRPO: asymptotes within MARGIN, midpoints apart by STEP."""
    same = [case(x, "asymptote", lambda y: MARGIN - abs(y)) for x in lines("asymptote", "rloo")]
    apart = [case(x, "midpoint", lambda y: abs(y) - STEP) for x in lines("midpoint", "rloo")]
    return [
        finding("asymptote stays", same, f"{MARGIN} less |difference of asymptotes|", strict=False),
        finding("efficiency moves", apart, "|log ratio of midpoints| less log 1.1"),
    ]


@claim(
    "E6",
    "Dr. GRPO (arXiv 2503.20783) as it is read",
    "In training too the denominator is a step size",
    "GRPO against RLOO under plain SGD, rates matched by mean |advantage| at the start, Qwen2.5-7B, G = 4",
    "At G = 4 under plain SGD no difference beyond 10 % of the steps is told.",
    presumed("equal mean size = holds"),
)
def step_size(context: Context) -> list[Finding]:
    """E6: under plain SGD, RLOO at the rate that gives its advantages GRPO's mean size takes its steps, within STEP."""
    cases = [case(x, "equal_ratio", lambda y: STEP - abs(y)) for x in lines("equal_ratio", "rloo", setup="sgd")]
    return [finding("equal mean size", cases, "log 1.1 less |log ratio of steps|, far target", strict=False)]


@claim(
    "E7",
    "this project",
    "Leaving out the groups that all pass ends with a higher pass@k",
    "nothing drawn in their place, baselines learn from all; as the end of E4",
    "On the chains it does not: entropy rises a little, pass@16 by .004 at most, and pass@1 may fall.",
    presumed(
        "ebpo, pass@1 = fails; ebpo, pass@16 = fails; loo_table:weights=score,memory=0.95, pass@1 = fails; "
        "loo_table:weights=score,memory=0.95, pass@16 = fails; reinforce, pass@1 = fails; "
        "reinforce, pass@16 = fails"
    ),
)
def all_pass(context: Context) -> list[Finding]:
    """E7: what a method gains at the end of a run without a target by leaving groups that all pass out."""
    found = []
    for base in dict.fromkeys(
        x["estimator"].partition(" + dynamic")[0] for x in table() if "drop=passed" in x["estimator"]
    ):
        mine = f"{base} + dynamic:batches=1,drop=passed,learn=all"
        for column, text in (("pass1", "pass@1"), ("pass16", "pass@16")):
            cases = [case(x, column, lambda y: y) for x in lines(column, mine)]
            found.append(finding(f"{base}, {text}", cases, f"{text} at the end less that with all groups"))
    return found
