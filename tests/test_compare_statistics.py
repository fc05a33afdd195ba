"""The comparison engine's numbers and words: intervals by hand and by SciPy, one vocabulary, contrasts of a table."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t, ttest_ind, ttest_rel

from ebpo_sim.compare.contrasts import Contrast, between_orders, contrast, corrected, exact, judged, select
from ebpo_sim.compare.differences import Difference, Term, holm, independent, interval, mean_of, paired
from ebpo_sim.compare.verdicts import VERDICTS, in_regime, judge, judge_exact

NUMBERS = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=8)


def test_paired_differences_by_hand() -> None:
    """Guards the interval: mean, standard error and Student's t of 1, 2, 3, 6, over the seeds that both have."""
    mine, other = {0: 1.0, 1: 4.0, 2: 5.0, 3: 9.0, 7: 0.0}, {0: 0.0, 1: 2.0, 2: 2.0, 3: 3.0, 8: 5.0}
    found = paired(mine, other)
    assert found is not None and (found.value, found.seeds) == (3.0, 4)
    assert found.se == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert found.high == pytest.approx(3 + 3.182446305 * found.se) and found.low == pytest.approx(6 - found.high)
    assert found.p == pytest.approx(ttest_rel([1, 4, 5, 9], [0, 2, 2, 3]).pvalue)
    assert paired({0: 2.0}, {0: 1.0}) == (1.0, None, None, None, None, 1)
    assert paired({0: 2.0}, {1: 1.0}) is None
    assert [mean_of([x, x]).p for x in (0.0, 0.5)] == [1.0, 0.0]


def unpaired(mine: list[float], other: list[float]) -> Difference:
    means = mean_of(mine), mean_of(other)
    return independent([Term(w, m.value, m.se or 0.0, m.seeds) for w, m in zip((1, -1), means, strict=True)])


@given(NUMBERS, NUMBERS)
def test_independent_runs_are_compared_by_welch(mine: list[float], other: list[float]) -> None:
    """Guards unpaired differences: p and interval are those of SciPy's Welch test."""
    assume(min(max(x) - min(x) for x in (mine, other)) > 1e-3)  # SciPy warns of constant samples
    found = unpaired(mine, other)
    known = ttest_ind(mine, other, equal_var=False)
    assert found.p == pytest.approx(known.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)), abs=1e-9)


def test_single_runs_have_no_interval() -> None:
    """Guards honesty: a term of one seed, or a mean without an error, gives a value and nothing else."""
    assert unpaired([3.0], [1.0, 2.0])[:2] == (1.5, None)
    assert independent([Term(1, 2.0, 0.1, 5), Term(-1, 1.0, 0.1, 1)])[:2] == (1.0, None)
    assert interval(1.0, None, 5).low is None


def test_the_family_s_p_decides_in_a_table() -> None:
    """Guards corrected figures: a row's p of its family takes the word away at the end, not over the whole training."""
    rows = [r | {"p_holm": 0.2} for r in table(0.05, 0.01)]
    assert contrast(rows, 1, "x", **CELL).word == "before correction only"
    assert contrast(rows, 1, "x", "mean", **CELL).word == "appears"


def test_holm_by_hand() -> None:
    """Guards the correction: 3 x 0.01, then 2 x 0.02 kept above its predecessor, capped at 1, in the given order."""
    assert holm([0.02, 0.01, 0.9]) == pytest.approx([0.04, 0.03, 0.9])
    assert holm([0.03, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.8, 0.7]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "sign", "margin", "p_holm", "word"),
    [
        (1, 3, 1, None, None, "appears"),
        (1, 3, -1, None, None, "the opposite"),
        (-3, -1, 1, None, 0.01, "the opposite"),
        (-3, -1, -1, 0.5, 0.01, "appears"),
        (1, 3, 1, None, 0.05, "before correction only"),
        (1, 3, 1, 3.0, None, "negligible"),
        (-3, -1, 1, 3.0, None, "negligible"),
        (1, 3, 1, 2.9, None, "appears"),
        (-1, 3, 1, None, 0.9, "no difference seen"),
        (0, 2, 1, 1.0, None, "no difference seen"),
        (-1, 3, 1, 1.9, None, "no resolving power"),
    ],
)
def test_every_word(low: float, high: float, sign: int, margin: float | None, p_holm: float | None, word: str) -> None:
    """Guards the rule: each word comes out where it should, the corrected p deciding where there is a family."""
    assert judge(Difference((low + high) / 2, 1.0, low, high, 0.01, 5), sign, margin, p_holm) == word


def test_words_without_an_interval() -> None:
    """Guards the edges: no number, one seed, an exact zero, an exact number."""
    assert judge(None) == judge_exact(None) == "not studied" and judge(mean_of([1.0])) == "no interval"
    assert judge_exact(0.0, -1) == judge_exact(1e-7, 1) == "negligible"
    assert (judge_exact(-0.1, -1), judge_exact(0.1, -1)) == ("appears", "the opposite")
    assert exact(1e-9, 1, "x") == Contrast("negligible", "x", 0.0) and exact(0.0, 1, "x").numbers == "0 (exact)"
    assert len(VERDICTS) == len(set(VERDICTS)) == 8


@given(st.floats(-1, 1), st.floats(0.001, 1), st.integers(2, 30), st.sampled_from([-1, 1]), st.floats(0, 10))
def test_modesty(value: float, se: float, seeds: int, sign: int, margin: float) -> None:
    """Guards modesty: a direction is named only where the interval excludes 0, and turns with the claim's sign."""
    found = interval(value, se, seeds)
    word, turned = judge(found, sign, margin), judge(found, -sign, margin)
    assert found.low is not None and found.high is not None
    assert (word in ("appears", "the opposite", "negligible")) == (found.low > 0 or found.high < 0)
    assert {word, turned} == {"appears", "the opposite"} or word == turned


STEPS = (0, 20, 40, 60)
T19 = t.ppf(0.975, 19)
CELL = {"order": "shuffled", "metric": "pass1"}


def table(effect: float, se: float, orders: tuple[str, ...] = ("shuffled",)) -> list[dict[str, Any]]:
    """GRPO from 0.2 to 0.8, EBPO `effect` above it at the end, linear in steps; 20 seeds."""
    found = []
    for order in orders:
        for name in ("grpo", "ebpo"):
            for step in STEPS:
                gap = 0.0 if name == "grpo" else effect * step / 60
                row = {"estimator": name, "order": order, "metric": "pass1", "step": step, "se": se, "seeds": 20}
                row |= {"value": 0.2 + step / 100 + gap, "difference": gap, "difference_se": se}
                found.append(row | ({"difference": None, "difference_se": None} if name == "grpo" else {}))
    return found


@pytest.mark.parametrize(
    ("effect", "se", "sign", "word"),
    [
        (0.05, 0.01, 1, "appears"),
        (0.05, 0.01, -1, "the opposite"),
        (-0.05, 0.01, 1, "the opposite"),
        (0.004, 0.0001, 1, "negligible"),  # seen, but below 1 % of GRPO's 0.8
        (-0.004, 0.0001, 1, "negligible"),
        (0.05, 0.1, 1, "no resolving power"),
        (0.001, 0.001, 1, "no difference seen"),
    ],
)
def test_contrasts_of_a_table(effect: float, se: float, sign: int, word: str) -> None:
    """Guards the way from rows to words, at the end and over the whole training."""
    rows = table(effect, se)
    end, mean = (contrast(rows, sign, "x", measure, **CELL) for measure in ("end", "mean"))
    assert end.word == word and (end.difference, end.half_width) == pytest.approx((effect, T19 * se))
    assert (mean.difference, mean.half_width) == pytest.approx((effect / 2, T19 * se))  # as for fully correlated steps


def test_what_is_kept_is_free_of_scale() -> None:
    """Guards log(last / first) less the reference's: four independent errors, unchanged when values are scaled."""
    rows = table(0.3, 0.01)
    first, end = 0.2, {"grpo": 0.8, "ebpo": 1.1}
    found = contrast(rows, 1, "x", "kept", **CELL)
    assert found.difference == pytest.approx(math.log(end["ebpo"] / end["grpo"]))
    squares = [(0.01 / v) ** 2 for v in (first, first, *end.values())]
    freedom = 19 * sum(squares) ** 2 / sum(x * x for x in squares)
    assert found.half_width == pytest.approx(t.ppf(0.975, freedom) * math.sqrt(sum(squares)))
    assert found.word == "appears"
    scaled = [r | {"value": 7 * r["value"], "se": 7 * r["se"]} if r["estimator"] == "ebpo" else r for r in rows]
    assert contrast(scaled, 1, "x", "kept", **CELL)[2:4] == pytest.approx(found[2:4])
    assert contrast(rows[:-3], 1, "x", "kept", **CELL).word == "not studied"


def test_orders_are_compared_as_if_independent() -> None:
    """Guards the order contrast: errors add, a missing order is not studied."""
    rows = table(0.05, 0.01, ("blocked", "shuffled"))
    lifted = [r | {"value": r["value"] + 0.1} if r["order"] == "blocked" else r for r in rows]
    found = between_orders(lifted, 1, "x", 100, estimator="ebpo", metric="pass1")
    assert (found.difference, found.half_width) == pytest.approx((0.1, t.ppf(0.975, 38) * math.hypot(0.01, 0.01)))
    assert found.word == "appears" and found.numbers == "+10.0 ± 2.9"
    assert between_orders(table(0.05, 0.01), 1, "x", estimator="ebpo", metric="pass1").word == "not studied"


def test_a_tie_needs_noise() -> None:
    """Guards the regimes: ties below nu/N = 1, or where it is not known, have no resolving power; directions stay."""
    ties = ("no difference seen", "negligible")
    assert {in_regime(word, ratio) for word in ties for ratio in (0.3, math.nan)} == {"no resolving power"}
    assert [in_regime(word, 1.0) for word in ties] == [*ties] and in_regime("the opposite", 0.3) == "the opposite"
    rows = [r | {"regime": "plateau", "noise_ratio": 0.3} for r in table(0.001, 0.001)]
    found = contrast(rows, 1, "x", **CELL)
    assert (found.word, found.regime, found.scale) == ("no resolving power", "plateau", pytest.approx(0.8))


def test_a_regime_is_a_family() -> None:
    """Guards the correction: p = 0.02 and 0.04 fall alone within a family of two (0.04, 0.04) and of three with 0.03
    (0.06 each), each regime by itself; what has no p, or was corrected before, stays and does not count."""

    def made(p: float | None, regime: str) -> Contrast:
        return Contrast("appears", "x", 1.0, 0.5, regime=regime, p=p)

    two, three = [made(p, "a") for p in (0.02, 0.04)], [made(p, "b") for p in (0.02, 0.03, 0.04)]
    words = [x.word for x in corrected([*two, *three, made(None, "b")])]
    assert words == ["appears"] * 2 + ["before correction only"] * 3 + ["appears"]
    assert [x.p for x in corrected(two)] == [None, None] and corrected([]) == []


def test_missing_contrasts() -> None:
    """Guards partial tables: no rows, no difference or no error is not studied; numbers to the interval's digits."""
    assert contrast([], 1, "x", **CELL) == Contrast("not studied", "x")
    bare = [r | {"difference_se": None} for r in table(0.1, 0.01)]
    assert {contrast(bare, 1, "x", m, **CELL).word for m in ("end", "mean")} == {"not studied"}
    assert judged(interval(0.0512, 0.01, 20), 1, 1.0, "x").line == "x: appears (+0.051 ± 0.021)"
    assert judged(interval(0.0512, 0.01, 20), 1, 1.0, "x", 100).numbers == "+5.1 ± 2.1"
    assert [r["step"] for r in select(table(0.1, 0.01)[::-1], estimator="ebpo")] == list(STEPS)
