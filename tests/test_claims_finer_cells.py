"""What finer baselines could save: exact moments are those of drawn answers, cells are nested, verdicts as presumed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ebpo_sim.chains.population import parse_population, success_gradient
from ebpo_sim.chains.update import sample
from ebpo_sim.claims import claims, default_context, finer_cells
from ebpo_sim.claims.base import meaning
from ebpo_sim.claims.finer_cells import Weights, noise, saved, weights

DRAWS = 3000


def test_the_moments_are_those_of_drawn_answers() -> None:
    """Guards E W r and E W (1-r) by what came before: sums over steps of 3000 answers of each of 12 prompts, after some
    training. 36 comparisons at 4.5 standard errors: false alarm 3e-4."""
    people = parse_population("observed:Qwen2.5-7B", 12, 3, 4)
    theta_SK = people.start_SK + 20 * success_gradient(people.start_SK, people.prompts)
    exact = weights(theta_SK, people.prompts)
    rolled = sample(theta_SK, people.prompts, DRAWS, np.random.default_rng(5))
    pi_PLG = np.take_along_axis(rolled.pi_PLK, rolled.actions_PGL.transpose(0, 2, 1), axis=2)
    norm_PLG = 1 - 2 * pi_PLG + np.sum(rolled.pi_PLK**2, axis=2)[..., None]
    norm_PLG *= people.prompts.live_PL[..., None]
    right_PLG = rolled.actions_PGL.transpose(0, 2, 1) == people.prompts.right_PL[..., None]
    before_PLG = np.cumprod(right_PLG, axis=1) == 1
    inside_PLG = np.concatenate([np.ones_like(before_PLG[:, :1]), before_PLG[:, :-1]], axis=1)
    reward_P1G = rolled.reward_PG[:, None]
    drawn = (reward_P1G, inside_PLG * (1 - reward_P1G), ~inside_PLG * (1 - reward_P1G))
    for part_PLG, exact_PL in zip(drawn, exact[:3], strict=True):
        sums_PG = (norm_PLG * part_PLG).sum(axis=1)
        se_P = sums_PG.std(axis=1, ddof=1) / DRAWS**0.5
        assert np.all(np.abs(sums_PG.mean(axis=1) - exact_PL.sum(axis=1)) < 4.5 * se_P + 1e-4)
    np.testing.assert_allclose(rolled.reward_PG.mean(axis=1), exact.p_P, atol=5 * 0.5 / DRAWS**0.5)


def test_the_least_noise_is_that_of_the_best_baseline() -> None:
    """x y/(x + y) is the minimum over b of x (1-b)^2 + y b^2, cell by cell, and finer cells never have more."""
    rng = np.random.default_rng(0)
    x, y, cell = rng.random((6, 4)), rng.random((6, 4)), rng.integers(0, 3, (6, 4))
    b = np.linspace(0, 1, 100_001)
    least = sum(
        np.min(x[cell == c].sum() * (1 - b) ** 2 + y[cell == c].sum() * b**2) for c in np.unique(cell)
    )  # fmt: skip
    assert noise(x, y, cell) == pytest.approx(least, rel=1e-8)
    assert noise(x, y, np.arange(24).reshape(6, 4)) < noise(x, y, cell) < noise(x, y, 0 * cell)


@pytest.mark.parametrize("policy", finer_cells.ASCENT)
def test_one_cell_saves_nothing_and_finer_ones_more(policy: str) -> None:
    """Guards the cells: one bin is the plain constant, exactly; prompts hold tenths, steps hold prompts and positions;
    a wrong prefix is worth knowing."""
    of = finer_cells.policies("observed:Qwen2.5-7B")[policy]
    one, tenths, prompts = finer_cells._one, finer_cells._tenths, finer_cells._prompts

    def share(cells: Callable[[Weights], np.ndarray], prefix: bool = False) -> float:
        return saved(of, cells, one, prefix)

    assert share(one) == 0.0
    for coarse, fine in ((one, finer_cells._topics), (one, tenths), (tenths, prompts), (prompts, finer_cells._steps),
                         (one, finer_cells._positions), (finer_cells._positions, finer_cells._steps)):  # fmt: skip
        assert share(fine) >= share(coarse) - 1e-12
        assert share(coarse, prefix=True) > share(coarse)


def test_equal_steps_have_equal_weights() -> None:
    """At the start all steps of a prompt are alike, so position adds nothing to what its prompt says."""
    of = finer_cells.policies("observed:Qwen2.5-7B")["at the start"]
    plain = of.prompts.right_PL.max(axis=1) == 0
    share = saved(
        Weights(*(part[plain] for part in of[:4]), of.prompts.take(np.flatnonzero(plain))), finer_cells._steps,
        finer_cells._prompts,
    )  # fmt: skip
    assert share == pytest.approx(0, abs=1e-12)


def test_the_verdicts_are_those_of_the_texts() -> None:
    """Guards E10 and E11: verdicts as presumed, and the numbers that the texts give."""
    known, context = claims(), default_context(quick=False, seed=0, threads=1)
    found = {name: known[name].check(context) for name in ("E10", "E11")}
    for name, findings in found.items():
        assert [(f.variant, f.verdict.word) for f in findings] == list(known[name].presumes)
        assert meaning(known[name], findings) == known[name].meaning and all(len(f.cases) == 11 for f in findings)
    effects = {f.variant: f.effect for findings in found.values() for f in findings}
    for variant, share in {
        "topics, trained": 0.004, "tenths of the pass rate, at the start": 0.03,
        "tenths of the pass rate, trained": 0.06, "prompts, at the start": 0.05, "prompts, trained": 0.15,
        "by position, trained": 0.02, "prefix right or wrong, at the start": 0.02,
        "prefix right or wrong, trained": 0.05,
    }.items():  # fmt: skip
        assert effects[variant] == pytest.approx(share, abs=0.005), variant
