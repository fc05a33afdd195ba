"""The model-free check against all splits, all outcomes, and hand-made cross-fitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
import pytest

from ebpo_sim.counts.splits import split_ratio
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import Counts, observed_counts

PRIOR = Prior((0.1, 0.5, 0.8), (0.2, 0.5, 0.3))
MU = 0.02 + 0.25 + 0.24
W = 0.2 * 0.09 + 0.5 * 0.25 + 0.3 * 0.16
T2 = MU * (1 - MU) - W
Baseline = Callable[[Sequence[int]], list[float]]  # of a group's rewards, one number a rollout


def mean(x: Sequence[float]) -> float:
    return math.fsum(x) / len(x)


def others(group: Sequence[int]) -> list[float]:
    return [(sum(group) - r) / (len(group) - 1) for r in group]


def shrunk(group: Sequence[int]) -> list[float]:
    s = (W / len(group)) / (W / len(group) + T2)
    return [(1 - s) * mean(group) + s * MU] * len(group)


FIXED: dict[str, tuple[Estimator, Baseline]] = {
    "rloo": (make("rloo"), others),
    "ebpo_debiased": (make("ebpo_debiased", prior=PRIOR), shrunk),
}


def own_within(n: int, s: int, group_size: int) -> float:
    """A prompt's unbiased estimate of p(1-p)/G."""
    return s * (n - s) / (n * (n - 1)) / group_size


def difference(n: int, s: int, group_size: int, baseline: Baseline) -> float:
    """Average over all splits of mean_i (b_i - rest)^2 - (group mean - rest)^2, split by split."""
    rewards = [1] * s + [0] * (n - s)
    found = []
    for chosen in combinations(range(n), group_size):
        group = [rewards[i] for i in chosen]
        rest = mean([rewards[i] for i in range(n) if i not in chosen])
        found.append(mean([(b - rest) ** 2 for b in baseline(group)]) - (mean(group) - rest) ** 2)
    return mean(found)


def table_of(rows: Sequence[tuple[int, int, int]]) -> Counts:
    return Counts(*(tuple(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_ratio_equals_all_splits_written_out(name: str, group_size: int) -> None:
    """Guards the hypergeometric sum: prompts of 5, 7 and 8 rollouts, ones that are too short left out."""
    estimator, baseline = FIXED[name]
    rows = [(5, 2, 3), (5, 5, 1), (7, 0, 2), (7, 3, 1), (8, 6, 4), (2, 1, 50)]
    used = [row for row in rows if row[0] > group_size]
    total = sum(c for _, _, c in used)
    top = math.fsum(c * difference(n, s, group_size, baseline) for n, s, c in used) / total
    bottom = math.fsum(c * own_within(n, s, group_size) for n, s, c in used) / total
    assert split_ratio(estimator, table_of(rows), group_size).ratio == pytest.approx(1 + top / bottom, rel=1e-12)


@pytest.mark.parametrize("name", FIXED)
def test_difference_of_risks_is_unbiased_for_every_prompt(name: str) -> None:
    """Guards unbiasedness exactly: over all outcomes of two prompts (p = 0.3 and 0.85, n = 3 and 5) the expected
    numerator is the exact difference of E (b - p)^2. A third prompt with a known outcome keeps the ratio defined."""
    estimator, baseline = FIXED[name]
    group_size, prompts, known = 2, ((3, 0.3), (5, 0.85)), (4, 2)
    expected = 0.0
    for outcome in product(*(range(n + 1) for n, _ in prompts)):
        chance = math.prod(
            math.comb(n, s) * p**s * (1 - p) ** (n - s) for (n, p), s in zip(prompts, outcome, strict=True)
        )
        rows = [*((n, s, 1) for (n, _), s in zip(prompts, outcome, strict=True)), (*known, 1)]
        within = math.fsum(own_within(n, s, group_size) for n, s, _ in rows)
        numerator = (split_ratio(estimator, table_of(rows), group_size).ratio - 1) * within
        expected += chance * (numerator - difference(*known, group_size, baseline))
    exact = 0.0
    for _, p in prompts:
        for group in product((0, 1), repeat=group_size):
            chance = math.prod(p if r else 1 - p for r in group)
            exact += chance * (mean([(b - p) ** 2 for b in baseline(group)]) - (mean(group) - p) ** 2)
    assert expected == pytest.approx(exact, rel=1e-9)


def test_what_was_learnt_comes_from_other_prompts() -> None:
    """Guards cross-fitting: with a fold for each prompt, its global mean is the mean of the others' pass rates."""
    rows = [(4, 1, 1), (5, 5, 1), (6, 2, 1), (6, 5, 1), (9, 0, 1)]
    top = 0.0
    for i, (n, s, _) in enumerate(rows):
        elsewhere = mean([t / m for j, (m, t, _) in enumerate(rows) if j != i])
        top += difference(n, s, 3, lambda group, mu=elsewhere: [mu] * len(group))
    bottom = math.fsum(own_within(n, s, 3) for n, s, _ in rows)
    found = split_ratio(make("global_mean"), table_of(rows), 3, folds=5)
    assert found.ratio == pytest.approx(1 + top / bottom, rel=1e-12)


def test_prompts_of_one_row_are_dealt_out_to_all_folds() -> None:
    """Guards the folds of a histogram: 7 prompts in rows of 2, 4 and 1 are dealt 0 1 | 2 0 1 2 | 0 to 3 folds."""
    rows = [(4, 1, 2), (4, 3, 4), (4, 4, 1)]
    successes, fold = [1, 1, 3, 3, 3, 3, 4], [0, 1, 2, 0, 1, 2, 0]
    top = 0.0
    for s, f in zip(successes, fold, strict=True):
        elsewhere = mean([t / 4 for t, g in zip(successes, fold, strict=True) if g != f])
        top += difference(4, s, 2, lambda group, mu=elsewhere: [mu] * len(group))
    bottom = math.fsum(own_within(4, s, 2) for s in successes)
    found = split_ratio(make("global_mean"), table_of(rows), 2, folds=3)
    assert found.ratio == pytest.approx(1 + top / bottom, rel=1e-12)


def test_standard_error_is_the_jackknifes() -> None:
    """Guards the delta method: delete-one jackknife of the ratio over 12,500 real prompts, equal to order 1/N."""
    counts = observed_counts("Qwen2.5-1.5B/MATH")
    rows = list(zip(counts.rollouts, counts.successes, counts.prompts, strict=True))
    estimator, _ = FIXED["ebpo_debiased"]
    found = split_ratio(estimator, counts, 4)
    left_out = []
    for i, (n, s, c) in enumerate(rows):
        rest = rows[:i] + ([(n, s, c - 1)] if c > 1 else []) + rows[i + 1 :]
        left_out.append(split_ratio(estimator, table_of(rest), 4).ratio)
    total, weights = sum(counts.prompts), np.array(counts.prompts)
    centre = weights @ left_out / total
    jackknife = math.sqrt((total - 1) / total * (weights @ (np.array(left_out) - centre) ** 2))
    assert found.se == pytest.approx(jackknife, rel=0.01)


@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_the_group_mean_against_itself(group_size: int) -> None:
    """Guards the reference: ratio exactly 1, standard error exactly 0."""
    counts = table_of([(6, 1, 3), (6, 4, 2), (9, 9, 5)])
    assert split_ratio(make("grpo"), counts, group_size) == (1.0, 0.0)


def test_no_ratio_without_a_rest() -> None:
    """Guards None: no prompt with more than G rollouts, or no within-prompt spread at all; one fold is refused."""
    counts = table_of([(4, 1, 3), (4, 2, 2)])
    assert split_ratio(make("rloo"), counts, 3) is not None
    assert split_ratio(make("rloo"), counts, 4) is None
    assert split_ratio(make("rloo"), counts, 9) is None
    assert split_ratio(make("rloo"), table_of([(4, 0, 3), (4, 4, 2)]), 2) is None
    with pytest.raises(InputError, match="folds must be at least 2, got 1"):
        split_ratio(make("rloo"), counts, 2, folds=1)
