"""pass@k, maj@k, avg@k and distinct@k of evaluated answers, each with its error and where the error comes from.

Of a measure whose value on prompt i is v_i, over P prompts:

    se^2 = var(v) / P                        another set of prompts, with other answers: what is printed
    se_samples^2 = sum of var(v_i | i) / P^2         other answers to the same prompts, as on a fixed benchmark
    se_prompts^2 = se^2 - se_samples^2       the prompts alone, with endless answers to each; at least 0

var(v_i | i) is s^2/n for means of n answers, the jackknife over answers for pass@k and distinct@k (k below n), and
the variance over the runs for maj@k (two runs at least); it is None where it cannot be told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ebpo_sim import report
from ebpo_sim.errors import InputError
from llm.outcomes import Outcome, pass_rates
from llm.tasks import Problem, compared_text, has_many
from llm.tasks.final_answer import contents

POOLED = "pooled"
Value = tuple[float, float | None]  # of one prompt, and its variance over the answers


class Estimate(NamedTuple):
    """A mean over prompts; se, se_samples, se_prompts: see the module's docstring, None where there is no telling."""

    value: float
    se: float | None
    se_samples: float | None
    se_prompts: float | None


def estimate(values: Sequence[Value]) -> Estimate:
    """The mean over prompts with the parts of its error."""
    mean, se = mean_and_error([value for value, _ in values])
    variances = [variance for _, variance in values if variance is not None]
    samples = math.sqrt(sum(variances)) / len(values) if len(variances) == len(values) else None
    prompts = None if se is None or samples is None else math.sqrt(max(0.0, se**2 - samples**2))
    return Estimate(mean, se, samples, prompts)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over prompts and its standard error (None for a single prompt)."""
    n = len(values)
    mean = sum(values) / n
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) / math.sqrt(n) if n > 1 else None


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a success: unbiased for k <= n."""
    if not 1 <= k <= n or not 0 <= successes <= n:
        raise InputError(f"pass@k needs 1 <= k <= n and 0 <= successes <= n, got k {k}, n {n}, successes {successes}")
    return 1.0 - math.comb(n - successes, k) / math.comb(n, k)


def distinct_at_k(right: Sequence[str | None], k: int) -> float:
    """Expected number of different right answers among k of the n samples, drawn without replacement; unbiased.

    right: what each sample answered, None where it is wrong. 0 to k; pass@k where there is one right answer.
    """
    return sum(pass_at_k(len(right), count, k) for count in Counter(x for x in right if x is not None).values())


def maj_at_k(texts: Sequence[str | None], rewards: Sequence[float], k: int) -> float:
    """Reward of the majority vote, averaged over the n // k disjoint runs of k answers: unbiased for the vote of k.

    Votes are counted by `final_answer`, spelled the same or not at all. Answers that never ended or are empty do not
    vote; a tie is the mean over the tied.
    """
    return math.fsum(votes := _votes(texts, rewards, k)) / len(votes)


def _votes(texts: Sequence[str | None], rewards: Sequence[float], k: int) -> list[float]:
    if not 1 <= k <= len(texts):
        raise InputError(f"maj@k needs 1 <= k <= the number of samples, got k {k}, samples {len(texts)}")
    parts = [slice(i * k, (i + 1) * k) for i in range(len(texts) // k)]
    return [_vote(texts[part], rewards[part]) for part in parts]


def _vote(texts: Sequence[str | None], rewards: Sequence[float]) -> float:
    cast: dict[str, list[float]] = {}
    for text, reward in zip(texts, rewards, strict=True):
        if text:
            cast.setdefault(final_answer(text), []).append(reward)
    most = max(map(len, cast.values()), default=0)
    first = [sum(given) / len(given) for given in cast.values() if len(given) == most]
    return sum(first) / len(first) if first else 0.0


def final_answer(text: str) -> str:
    """What an answer votes for: the contents of its last \\boxed{...}, without spaces, else its whole text."""
    box = contents(text)
    return "".join(box.split()) if box else text.strip()


def variance_of_mean(values: Sequence[float]) -> float | None:
    """Unbiased variance of the mean of independent values; None for one."""
    error = mean_and_error(values)[1]
    return None if error is None else error**2


def jackknife(kinds: Sequence[Any], statistic: Callable[[list[Any]], float]) -> float:
    """Variance of a statistic of n answers by leaving each out: (n - 1)/n * sum of (theta_-i - their mean)^2."""
    listed, n = list(kinds), len(kinds)
    without = {kind: statistic([*listed[:i], *listed[i + 1 :]]) for kind in set(listed) for i in [listed.index(kind)]}
    left_out = [without[kind] for kind in listed]
    mean = sum(left_out) / n
    return (n - 1) / n * sum((x - mean) ** 2 for x in left_out)


def scores(outcomes: Sequence[Outcome], ks: Sequence[int], dataset: str) -> list[dict[str, Any]]:
    """One row for all problems, each topic, and each level of a topic: measures with their errors."""
    binary = all(r in (0.0, 1.0) for o in outcomes for r in o.rewards)
    many = binary and all(has_many(o.problem) for o in outcomes)
    groups: dict[tuple[str, str], list[Outcome]] = {("all", "all"): list(outcomes)}
    for by_level in (False, True) if dataset != POOLED else ():
        for o in outcomes:
            level = str(o.problem.cell.level) if by_level else "all"
            groups.setdefault((o.problem.cell.topic, level), []).append(o)
    rows = []
    for (topic, level), members in groups.items():
        row: dict[str, Any] = {"dataset": dataset, "topic": topic, "level": level, "prompts": len(members)}
        for name, values in _measured(members, ks, binary, many):
            names = (name, f"{name} se", f"{name} se samples", f"{name} se prompts")
            row |= zip(names, estimate(values), strict=True)
        rows.append(row)
    return rows


def _measured(
    outcomes: Sequence[Outcome], ks: Sequence[int], binary: bool, many: bool
) -> Iterator[tuple[str, list[Value]]]:
    means = list(zip(pass_rates(outcomes), [variance_of_mean(o.rewards) for o in outcomes], strict=True))
    yield "pass@1", means
    for k in ks:
        if k > 1 and binary:
            yield f"pass@{k}", [_drawn([r or None for r in o.rewards], k, _passes) for o in outcomes]
        if k > 1:
            votes = [_votes([t and compared_text(o.problem, t) for t in o.texts], o.rewards, k) for o in outcomes]
            yield f"maj@{k}", [(math.fsum(v) / len(v), variance_of_mean(v)) for v in votes]
        if many:
            yield f"distinct@{k}", [_drawn(right_answers(o), k, distinct_at_k) for o in outcomes]
    yield f"avg@{len(outcomes[0].rewards)}", means


def right_answers(o: Outcome) -> list[str | None]:
    """What each right answer says; None for a wrong one."""
    return [
        compared_text(o.problem, text) if text and reward == 1.0 else None
        for text, reward in zip(o.texts, o.rewards, strict=True)
    ]


def diversity_names(problems: Sequence[Problem]) -> tuple[str, ...]:
    """The measures of `diversity`: none where a problem may have one right answer alone."""
    return ("validation_distinct",) if all(map(has_many, problems)) else ()


def diversity(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """How many different right answers a prompt's answers hold, mean over prompts, where there can be many."""
    names = diversity_names([o.problem for o in outcomes])
    held = [len({*right_answers(o)} - {None}) for o in outcomes]
    return dict.fromkeys(names, sum(held) / len(held))


def _passes(right: Sequence[float | None], k: int) -> float:
    return pass_at_k(len(right), sum(x is not None for x in right), k)


def _drawn(kinds: Sequence[Any], k: int, measure: Callable[[Sequence[Any], int], float]) -> Value:
    return measure(kinds, k), jackknife(kinds, lambda left: measure(left, k)) if k < len(kinds) else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `scores` as text, value ± standard error; the data set where there are several."""
    names = list(dict.fromkeys(key for row in rows for key in row if "@" in key and " se" not in key))
    several = len({row["dataset"] for row in rows}) > 1
    body = [
        [
            *([row["dataset"]] if several else []), row["topic"], row["level"], str(row["prompts"]),
            *(report.with_error(row.get(n), row.get(f"{n} se")) for n in names),
        ]
        for row in rows
    ]  # fmt: skip
    return report.text_table([*(["dataset"] if several else []), "topic", "level", "prompts", *names], body)


def errors_text(rows: Sequence[dict[str, Any]]) -> str:
    """A line a data set: what other answers and other prompts would change of its avg@k."""
    lines = []
    for row in rows:
        name = next(key for key in row if key.startswith("avg@") and " se" not in key)
        parts = (report.number(row[f"{name} {part}"]) for part in ("se samples", "se prompts"))
        if (row["topic"], row["level"]) == ("all", "all"):
            lines.append("{}: {} {}, of its standard error {} from samples and {} from prompts".format(
                row["dataset"], name, report.with_error(row[name], row[f"{name} se"]), *parts))  # fmt: skip
    return "\n".join(lines)
