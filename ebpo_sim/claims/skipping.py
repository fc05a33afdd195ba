"""Rows left out without bias, cells by topic, and entropy, in training: read from skipping.csv, paired by seed.

skipping.csv: what the far target cost each seed, of runs.csv of `python -m ebpo_sim.prediction_study --setup adam
--group-size 2 --group-size 4 --seeds 8` with the table's world and methods as --world and --estimator. A cell counts
where at least LEAST seeds of both methods met the target, with those. Predicted from the noise at the start, before
the runs: a bound of 1.2 costs up to a fifth more rollouts and saves half of the rows; whole groups save less; at a
share of .15 rows chosen by |A| alone cost 1.2 to 1.3 times the rollouts of those chosen by |A| and the score; topics
gain nothing. The first and the last came true where steps are noisy, the third nowhere.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ebpo_sim.claims.base import Case, Claim, Context, Finding, Word, enter
from ebpo_sim.claims.training import finding
from ebpo_sim.labels import REFERENCE

TABLE = Path(__file__).with_name("skipping.csv")
SCORE, PLAIN = "loo_table:weights=score,memory=0.95", "reinforce"
REGIMES = ("plateau", "balanced", "noisy")
BASES = {"table": SCORE, "no baseline": PLAIN}
BOUND = "keep_rows:weights=score,noise=1.2"
LEAST = 6  # of eight seeds
Costs = dict[str, dict[str, float | None]]  # by method and seed


@lru_cache(maxsize=8)
def costs(column: str) -> dict[tuple[str, str, str], Costs]:
    """A column of the table by (world, regime, group size)."""
    found: dict[tuple[str, str, str], Costs] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for r in csv.DictReader(file):
            cell = found.setdefault((r["world"], r["regime"], r["group_size"]), {})
            cell.setdefault(r["estimator"], {})[r["seed"]] = float(r[column]) if r[column] else None
    return found


def cases(regime: str, mine: str, other: str, column: str, effect: Callable[[float], float]) -> Iterator[Case]:
    """The effect of the mean log ratio of what `mine` and `other` cost, a case a cell."""
    for (world, where, size), found in costs(column).items():
        pairs = [(found[mine][seed], found[other][seed]) for seed in found[mine]]
        logs = [math.log(a / b) for a, b in pairs if a and b and min(a, b) > 0]
        if where == regime and len(logs) >= LEAST:
            asked = " ".join(f"--estimator '{name}'" for name in (mine, other) if name != REFERENCE)
            command = (
                f"prediction_study --world {world} --regime {regime} --setup adam --group-size {size} --seeds 8 "
                f"{asked}: runs.csv, {column}"
            )
            se = float(np.std(logs, ddof=1)) / len(logs) ** 0.5
            yield Case(command, effect(float(np.mean(logs))), True, float(size), se)


def _found(
    names: dict[str, tuple[str, str]], column: str, effect: Callable[[float], float], name: str
) -> list[Finding]:
    """A finding a regime and pair of methods (mine, other)."""
    return [
        finding(f"{regime}{variant}", cases(regime, mine, other, column, effect), name)
        for regime in REGIMES
        for variant, (mine, other) in names.items()
    ]


def bound(context: Context) -> list[Finding]:
    """E12: log 1.2 less the log ratio of rollouts to those with all rows; -log ratio of rows to those and to GRPO's."""
    within = {f", {name}, rollouts": (f"{base} + {BOUND}", base) for name, base in BASES.items()}
    saved = {f", {name}, rows": (f"{base} + {BOUND}", base) for name, base in BASES.items()}
    saved |= {f", {name}, rows, GRPO's": (f"{base} + {BOUND}", REFERENCE) for name, base in BASES.items()}
    allowed = math.log(1.2)
    return [
        *_found(within, "rollouts", lambda x: allowed - x, "log 1.2 less log ratio of rollouts"),
        *_found(saved, "rows", lambda x: -x, "-log ratio of rows trained on"),
    ]


def by_score(context: Context) -> list[Finding]:
    """E13: -log ratio of rollouts, rows chosen by |A| and the score over those chosen by |A| alone."""
    pair = (f"{SCORE} + keep_rows:weights=score,share=0.15", f"{SCORE} + keep_rows:share=0.15")
    return _found({"": pair}, "rollouts", lambda x: -x, "-log ratio of rollouts")


def one_by_one(context: Context) -> list[Finding]:
    """E14: -log ratio of rows trained on, one by one over whole groups."""
    pair = (f"{SCORE} + {BOUND}", f"{SCORE} + {BOUND},level=groups")
    return _found({"": pair}, "rows", lambda x: -x, "-log ratio of rows trained on")


def by_topic(context: Context) -> list[Finding]:
    """E15: -log ratio of rollouts, cells by topic over one table."""
    return _found({"": (f"{SCORE},per_cluster=true", SCORE)}, "rollouts", lambda x: -x, "-log ratio of rollouts")


def entropy(context: Context) -> list[Finding]:
    """E16: log ratio to GRPO of the entropy lost on the way to one pass@1."""
    pairs = {f", {name}": (base, REFERENCE) for name, base in BASES.items()}
    pairs |= {f", {name}, rows skipped": (f"{base} + {BOUND}", REFERENCE) for name, base in BASES.items()}
    return _found(pairs, "entropy lost", lambda x: x, "log ratio of entropy lost to the far target")


def _words(words: str, *variants: str) -> tuple[tuple[str, Word], ...]:
    """Verdicts of the regimes (h: holds, f: fails), by variants within each: the order of `_found`."""
    names = [f"{regime}{variant}" for regime in REGIMES for variant in variants or ("",)]
    return tuple((name, "holds" if word == "h" else "fails") for name, word in zip(names, words, strict=True))


WHERE = "skill chains, Adam, each method at its own rate, Qwen2.5-7B, G = 2 and 4"
OURS = "this project"
SAVED = (", table, rows", ", no baseline, rows", ", table, rows, GRPO's", ", no baseline, rows, GRPO's")
LOST = (", table", ", no baseline", ", table, rows skipped", ", no baseline, rows skipped")
enter(
    Claim(
        "E12", OURS, "Rows skipped to a bound on the noise cost no more rollouts than the bound, and fewer rows",
        f"{WHERE}; 1.2 times the noise of all rows",
        "Where steps are noisy, half of the table's rows; beyond it, under Adam, only right answers alone skip well.",
        bound,
        (
            *_words("fhffff", ", table, rollouts", ", no baseline, rollouts"),
            *_words("fhfhfhfhhhfh", *SAVED),
        ),
    ),
    Claim(
        "E13", OURS, "At one share of the rows, choosing them by score norms too trains faster than by |A| alone",
        f"{WHERE}; a share of .15", "No, though noise is less: both take two to three times the rollouts of all rows.",
        by_score, _words("fff"),
    ),
    Claim(
        "E14", OURS, "At one bound on the noise rows one by one need fewer trained rows than whole groups",
        f"{WHERE}; exact at the bound: a property of `keep_rows`",
        "At G = 4 where steps are noisy; on the plateau fewer steps of whole groups make up for it.", one_by_one,
        _words("fff"),
    ),
    Claim(
        "E15", OURS, "A leave-one-out table for each topic trains faster than one for all",
        f"{WHERE}; topics of equal pass rates, memory 0.95",
        "No: topics share no pass rate here, and many tables learn more slowly than one.", by_topic, _words("fff"),
    ),
    Claim(
        "E16", OURS, "Less noisy rules lose more entropy than GRPO on the way to one pass@1",
        f"{WHERE}; entropy a token, held out, from the start to the far target",
        "No: about as much, a quarter less at G = 2 where steps are noisy; on the plateau skipped rows may cost more.",
        entropy, _words("f" * 12, *LOST),
    ),
)  # fmt: skip
