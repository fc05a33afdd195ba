"""The claims about allocation: their formulas by enumeration, their table whole, their commands read."""

from __future__ import annotations

import csv
import shlex
from itertools import product

import numpy as np
import pytest

from ebpo_sim import cli
from ebpo_sim.claims import allocation, claims, default_context, silent_groups
from ebpo_sim.sampling import Knapsack, MoPPS, Pool
from ebpo_sim.studies.allocation import study

NAMES = ("M4", "M5", "M6", "M7")
CONTEXT = default_context(quick=True, seed=0, threads=1)


@pytest.mark.parametrize("group_size", [2, 3])
def test_what_dropping_silent_groups_does_to_noise(group_size: int) -> None:
    """Guards `dynamic_cost`: over all outcomes of a group of RLOO on a one-logit prompt of two kinds, a kept group has
    the same expected direction, 1/L times as long, and nu = L nu - (1 - L) in groups; the cost follows."""
    rates, moments = (0.2, 0.7), np.zeros((2, 3))  # (all, kept) x (chance, g, g^2)
    for p, outcome in product(rates, product((0.0, 1.0), repeat=group_size)):
        r = np.array(outcome)
        others = (r.sum() - r) / (group_size - 1)
        g, chance = float(np.mean((r - others) * (r - p))), float(np.prod(np.where(r == 1, p, 1 - p))) / 2
        for row in range(1 + (0 < r.sum() < group_size)):
            moments[row] += chance * np.array([1, g, g * g])
    assert moments[0, 1] == pytest.approx(np.mean([p * (1 - p) for p in rates]))
    live = moments[1, 0]
    nu, kept = (m[2] * m[0] / m[1] ** 2 - 1 for m in moments)
    assert live < 1 and kept == pytest.approx(live * nu - (1 - live), rel=1e-12)
    m = 16
    expected = (1 + kept / m) * m / live / ((1 + nu / m) * m)
    assert silent_groups.dynamic_cost(live, nu / m, m, 1, 0, True) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(1 + (m - 1) * (1 / live - 1) / (m + nu), rel=1e-12)
    assert silent_groups.dynamic_cost(live, nu / m, m, 3, 5, True) == pytest.approx(expected, rel=1e-12)
    x = silent_groups.dynamic_cost(live, nu / m, m, 1, 2, False)
    assert x == pytest.approx((1 + kept / m) * (1 / live + 2) / ((1 + nu / m) * 3), rel=1e-12)


def test_what_is_lost_by_hand() -> None:
    """Guards M5: a prompt at 1/2 in groups of two is silent half of the time; two kinds, one certain."""
    assert silent_groups.still_lost("points:0.5", 2) == pytest.approx(1 - 0.5**silent_groups.VISITS)
    assert silent_groups.still_lost("points:0,0.5", 2) == pytest.approx(1 - 0.5**silent_groups.VISITS)
    whole, se = silent_groups.lost_signal(8, 99, "any")
    assert whole == 0 and se == 0
    losses = [silent_groups.lost_signal(8, streak, "any")[0] for streak in (1, 2, 4)]
    assert 1 > losses[0] > losses[1] > losses[2] > 0
    assert all(silent_groups.lost_signal(8, 1, kind)[0] < losses[0] for kind in ("passed", "failed"))


def test_knapsack_and_mopps_by_hand() -> None:
    """Guards M6's gain on quantiles of two points, M7's chance of the nearer of two prompts: 1/2 where they are alike,
    and as often as the part plans it (2,000 plans, 5 standard errors: 6e-7)."""
    p = np.array([0.25, 0.75]).repeat(allocation.PROMPTS // 2)
    n = Knapsack().sizes(p, 4)
    assert allocation.quantiles("points:0.25,0.75") == tuple(p)
    alive = 1 - p**n - (1 - p) ** n
    assert allocation.knapsack_gain("points:0.25,0.75", 4)[0] == pytest.approx(
        alive.mean() / (1 - 0.25**4 - 0.75**4) - 1
    )
    assert allocation.first_of_two(0.5) == pytest.approx(0.5, abs=1e-3)
    part, pool = MoPPS(), Pool(2)
    known = part.prior + np.array([32, 38.4]), part.prior + np.array([32, 25.6])
    drawn = [part.ranks(known, np.random.default_rng(seed)) for seed in range(2000)]
    chance = allocation.first_of_two(0.6)
    assert abs(np.mean([a < b for a, b in drawn]) - chance) < 5 * np.sqrt(chance * (1 - chance) / 2000)
    assert pool.count == 2 and chance > 0.6


def test_the_rows_are_whole_and_decide() -> None:
    """Guards allocation.csv: every method of the study in every regime and group size, each quantity once, eight seeds
    where there is a number; a verdict counts its rows, and texts presume the words of today."""
    with allocation.TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    training = study.SETTINGS.training
    places = {(r["world"], r["regime"], r["group_size"]) for r in rows}
    asked = {(w, r, str(g)) for w in training.worlds for r in training.regimes for g in training.group_sizes}
    assert places == asked - {(training.worlds[0], "noisy", "8")}  # which the committed table leaves out
    assert {r["estimator"] for r in rows} == set(training.arms[1:]) and {r["target"] for r in rows} == {"far"}
    assert all(int(r["seeds"]) == training.seeds for r in rows if r["value"])
    for name in NAMES:
        claim = claims()[name]
        found = claim.check(CONTEXT)
        words = {f.variant: f.verdict.word for f in found}
        assert all(words[variant] == word for variant, word in claim.presumes)
        for finding in found:
            assert finding.verdict.above + finding.verdict.equal + finding.verdict.below == len(finding.cases) > 0


def test_the_commands_are_read() -> None:
    """Guards the counterexamples: each names this ledger, or the study takes it as typed."""
    seen = set()
    for name in NAMES:
        for finding in claims()[name].check(CONTEXT):
            if finding.verdict.counterexample:
                program, *words = shlex.split(finding.verdict.counterexample.partition(": ")[0])
                seen.add(program)
                if program == "allocation_study":
                    study.check(study.settings_from(cli.parse(study.Options, program, study.__doc__, words)))
                else:
                    assert program == "claims" and words[0].rstrip(":") == name
    assert seen == {"allocation_study", "claims"}
