"""The prediction study's arithmetic, what it calls a tie, and that it predicts before it trains."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pages
from ebpo_sim.compare.differences import Difference, interval
from ebpo_sim.compare.plan import Series
from ebpo_sim.errors import InputError
from ebpo_sim.studies.prediction import study
from ebpo_sim.studies.prediction.cells import REGIMES, Cell, Ladder, Settings, plan, rates_of, reached, rollouts_of
from ebpo_sim.studies.prediction.dominance import dominance
from ebpo_sim.studies.prediction.ends import EQUAL, dropping
from ebpo_sim.studies.prediction.evidence import evidence
from ebpo_sim.studies.prediction.language_model import compared, measured
from ebpo_sim.studies.prediction.outcomes import Point, averages, fits, measured_rows, spent, word_of
from ebpo_sim.studies.prediction.predict import predicted, predictors

CELL = Cell("chain", "noisy", "adam", 4, 32, 0.3, 0.5)
TINY = Settings(
    worlds=("chain",), estimators=("ebpo",), group_sizes=(4,), regimes=("plateau",), setups=("adam",),
    population=64, validation=32, seeds=2, tuning_seeds=1, thin=4, redraws=8, warm=2,
)  # fmt: skip


def curve(*pass1: float) -> list[dict[str, float]]:
    """Records every second step, eight rollouts a step, of which a quarter is trained on; pass@1 costs entropy."""
    return [
        {"step": 2 * t, "pass1": p, "rollouts": 16.0 * t, "rows": 4.0 * t, "entropy": 2 - p}
        for t, p in enumerate(pass1)
    ]


def noise(**given: float | None) -> dict[str, float | None]:
    return {"nu": 60.0, "rollouts": 20.0, "silent": 0.5, "error": 0.04, "cosine": 1.0, "adam": 1.0, **given}


def test_a_target_is_met_between_records() -> None:
    """Guards steps, rollouts and rows to a target: linear between records, the first crossing, None where never met."""
    expected = {"step": 3.0, "rollouts": 24.0, "rows": 6.0, "entropy": 2 - 0.4}
    assert reached(curve(0.2, 0.3, 0.5, 0.4, 0.6), 0.4) == pytest.approx(expected, rel=1e-12)
    assert reached(curve(0.2, 0.3), 0.4) is None


def test_tuning_wants_the_far_target_soonest() -> None:
    """Guards the score: sooner is better, met is better than not met, nearer than farther."""
    ladder = Ladder(TINY)
    runs = [curve(0.2, 0.6), curve(0.2, 0.3, 0.6), curve(0.2, 0.49), curve(0.2, 0.1, 0.3)]
    scores = [ladder.score({"curve": run, "far": 0.5}) for run in runs]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4


def test_rollouts_give_the_ratio_to_whole_groups() -> None:
    """Guards N: nu / ratio to the next multiple of all group sizes, from two groups to half of the prompts."""
    regime, plain = REGIMES["noisy"], Settings((), (), (2, 8), (), ())
    assert rollouts_of(plain, regime, 30 * 401.0) == 400
    assert rollouts_of(plain, regime, 1.0) == 16
    assert rollouts_of(TINY, regime, 1e9) == 64 // 2 * 4


def test_predictions_are_their_formulas() -> None:
    """Guards the predictors: (1 + nu/N) ratios, error ratios, shares of live groups; None where a number is missing."""
    grpo, mine = noise(), noise(nu=20.0, silent=0.0, error=0.02, cosine=0.5, adam=2.0)
    assert predictors(mine, grpo, (noise(nu=100.0), grpo)) == {
        "noise": 0.5, "noise by coordinate": 0.25, "noise midway": 1.5, "baseline error": 0.5,
        "silent groups": 0.5, "cosine": 2.0,
    }  # fmt: skip
    assert predicted(noise(nu=None), grpo) is None
    assert predictors(noise(error=None), grpo, None)["baseline error"] is None


@pytest.mark.parametrize(
    ("found", "ratio", "word"),
    [
        (interval(0.01, 0.02, 30), 0.3, "no resolving power"),
        (interval(0.03, 0.01, 30), 0.3, "no resolving power"),
        (interval(0.01, 0.02, 30), 3.0, "no difference seen"),
        (interval(0.1, 0.3, 30), 3.0, "no resolving power"),
        (interval(-0.5, 0.02, 30), 0.3, "appears"),
        (interval(0.5, 0.02, 30), 3.0, "the opposite"),
        (None, 3.0, "not studied"),
    ],
)
def test_a_tie_without_noise_says_nothing(found: Difference | None, ratio: float, word: str) -> None:
    """Guards the verdicts: a tie where nu/N < 1, or with an interval beyond the margin, has no resolving power."""
    assert word_of(found, ratio) == word


def test_ratios_are_paired_and_need_all_seeds() -> None:
    """Guards the measured rows: exp of the mean log ratio; seconds weigh rollouts and rows; one seed that misses the
    target leaves no number."""

    def series(arm: str, *curves: list[dict[str, float]]) -> Series:
        return Series(arm, CELL._asdict(), 0.1, False, dict(enumerate(curves)))

    slow, fast, never = curve(0.1, 0.2, 0.3, 0.4, 0.5), curve(0.1, 0.3, 0.5), curve(0.1, 0.3, 0.4)
    found: dict[Any, Series] = {
        ("grpo", CELL, "own"): series("grpo", slow, slow), ("ebpo", CELL, "own"): series("ebpo", fast, slow),
        ("rloo", CELL, "own"): series("rloo", fast, never),
    }  # fmt: skip
    starts = {("grpo", CELL): noise()}
    rows = {(r["estimator"], r["quantity"], r["target"]): r for r in measured_rows(TINY, found, starts)}
    assert rows["ebpo", "ratio of steps", "far"]["value"] == pytest.approx(math.sqrt(0.5))
    assert rows["ebpo", "steps", "far"]["value"] == 6 and rows["grpo", "steps", "near"]["value"] == 4
    far = spent(found["grpo", CELL, "own"], "far")[0]
    assert far["seconds 4:1"] == 4 * 64 + 16 and far["entropy lost"] == pytest.approx(0.5 - 0.1)
    assert rows["rloo", "ratio of steps", "near"]["value"] == pytest.approx(0.5)
    missed = rows["rloo", "ratio of steps", "far"]
    assert (missed["value"], missed["seeds"], missed["verdict"]) == (None, 1, "not studied")
    means = {(r["estimator"], r["quantity"]): r for r in averages(list(rows.values()))}
    mean = means["ebpo", "ratio of steps"]
    assert (mean["value"], mean["low"]) == pytest.approx(
        (math.sqrt(0.5), math.exp(0.5 * math.log(0.5) * (1 + math.tan(0.475 * math.pi))))
    )  # t of one degree of freedom, and a spread as large as the mean
    assert (mean["cells"], means["rloo", "ratio of steps"]["missing"]) == (1, 1)
    assert means["rloo", "ratio of steps"]["value"] is None


def test_a_slope_is_found_and_a_constant_has_none() -> None:
    """Guards the fits: measured = predicted^2 has slope 2 and rank correlation 1 with a tight interval; a predictor
    that says the same of all has neither; noise in the seeds widens the interval around the slope."""
    rng, listed = np.random.default_rng(0), []
    for number in range(8):
        cell = CELL._replace(rollouts=8 * number + 8)
        for x in (0.5, 0.8, 1.3):
            exact = 2 * math.log(x * (1 + number / 50))
            told: dict[str, float | None] = {"noise": math.exp(exact / 2), "cosine": 1.0}
            listed.append(Point("ebpo", cell, "far", np.full(4, exact), told))
    by = {(r["regime"], r["predictor"]): r for r in fits(listed, 0)}
    noise_fit, constant = by["all", "noise"], by["all", "cosine"]
    assert [noise_fit[k] for k in ("slope", "slope_low", "slope_high", "rank")] == pytest.approx([2, 2, 2, 1])
    assert (noise_fit["points"], noise_fit["cells"], constant["slope"]) == (24, 8, None)
    rough = [p._replace(log_ratio_R=p.log_ratio_R + 0.5 * rng.standard_normal(4)) for p in listed]
    wide = next(r for r in fits(rough, 0) if r["predictor"] == "noise")
    assert wide["slope_low"] < 2 < wide["slope_high"] and wide["slope_high"] - wide["slope_low"] > 0.1


def test_predictions_stand_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the order: when the runs begin, table.csv holds every method's noise and predicted ratio, and no
    measurement; the finished pieces are kept, so that a second start measures none of them again."""
    seen = list[list[dict[str, str]]]()

    def stop(*given: Any) -> None:
        with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
            seen.append(list(csv.DictReader(file)))
        raise InputError("no runs today")

    monkeypatch.setattr(study, "finish", stop)
    for _ in range(2):
        with pytest.raises(InputError, match="no runs today"):
            study.simulate(TINY, tmp_path)
        monkeypatch.setattr("ebpo_sim.studies.prediction.predict.noise", None)  # would fail if asked again
    assert seen[0] == seen[1]
    quantities = {row["quantity"] for row in seen[0] if row["estimator"] == "ebpo"}
    assert {"nu, start", "nu/N, start", "predicted ratio of steps, start"} < quantities
    assert not any(row["target"] for row in seen[0])


def test_unknown_regimes_are_refused() -> None:
    """Guards the refusal: one line that names the right ones."""
    with pytest.raises(InputError, match="unknown regime 'nosy': did you mean 'noisy'"):
        study.settings_from(study.Options(regime=("nosy",), threads=1)).check()


def test_cells_share_what_was_calibrated() -> None:
    """Guards the plan: every group size of a world has one N and one pair of targets, GRPO first, a common grid."""
    asked = plan(Settings(("chain",), ("ebpo", "grpo"), (2, 4), ("noisy",), ("adam",)), [CELL])
    assert [(c.group_size, c.rollouts, c.far) for c in asked.arms] == [(2, 32, 0.5), (4, 32, 0.5)]
    assert set(asked.arms.values()) == {("grpo", "ebpo")} and set(asked.rates.values()) == {REGIMES["noisy"].adam}


def test_the_readme_quotes_the_committed_run() -> None:
    """Guards the README's numbers: slope, rank correlation and points are those of the conclusion in prediction.txt,
    and each method's mean ratio of steps in the noisy regime stands in its table."""
    root = Path(__file__).parent.parent
    readme = pages.words(pages.page("ebpo_sim"))
    text = (root / "paper_figures" / "gallery" / "prediction.txt").read_text(encoding="utf-8")
    found = re.search(r"slope (.*?), rank correlation (.*?) over (\d+) points", text)
    assert found is not None
    slope, rank, points = found.groups()
    assert f"is {slope}, the rank correlation {rank}" in readme and f"Over {points} points" in readme
    means = text[text.index("Geometric means") :]
    for method, name in (("ebpo", "EBPO"), ("loo_table:weights=score,memory=0.95", "table"), ("reinforce", "baseline")):
        row = re.search(rf"adam +noisy +{re.escape(method)} +\d+ +(\S+ \[\S+ \S+\])", means)
        assert row is not None and f"{name} {row[1]}" in readme


def test_further_setups_and_methods_have_their_places() -> None:
    """Guards the plan beyond the cross: central methods at the group size nearest to 4, further setups in the first
    world there alone, with methods of their own; four mini-batches take half the rate and predict from N/4."""
    settings = Settings(
        ("chain", "bandit:beta:1,1"), ("ebpo",), (2, 4), ("noisy",), ("adam", "sgd", "adam_stale"), central=("raft",),
        setup_estimators=("reinforce",),
    )  # fmt: skip
    stale = CELL._replace(setup="adam_stale")
    calibrated = [CELL, CELL._replace(world="bandit:beta:1,1"), CELL._replace(setup="sgd"), stale]
    asked = plan(settings, calibrated)
    arms = {(c.world, c.setup, c.group_size): names for c, names in asked.arms.items()}
    assert arms == {
        ("chain", "adam", 2): ("grpo", "ebpo"), ("chain", "adam", 4): ("grpo", "ebpo", "raft", "reinforce"),
        ("bandit:beta:1,1", "adam", 2): ("grpo", "ebpo"), ("bandit:beta:1,1", "adam", 4): ("grpo", "ebpo", "raft"),
        ("chain", "sgd", 4): ("grpo", "reinforce"), ("chain", "adam_stale", 4): ("grpo", "reinforce"),
    }  # fmt: skip
    assert rates_of(settings, stale) == tuple(rate / 2 for rate in REGIMES["noisy"].adam)
    assert rates_of(settings, CELL._replace(setup="sgd")) == REGIMES["noisy"].sgd


def test_a_study_to_the_end(tmp_path: Path) -> None:
    """Guards the runs without a target: measures at the end with paired differences to GRPO or to the method with its
    silent groups, steps of equal size under SGD, N/4 for stale mini-batches, and the ledger's lines of all that."""
    wide = Settings(**{**TINY.__dict__, "estimators": ("rloo", "ebpo"), "setups": ("adam", "sgd", "adam_stale")})
    rows, _ = study.simulate(wide, tmp_path, to_the_end=True)
    by = {(r["setup"], r["estimator"], r["quantity"], r["target"]): r for r in rows}
    with (tmp_path / "runs.csv").open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 3 * 3 * 2 * wide.seeds
    near = [r for r in runs if (r["setup"], r["target"]) == ("adam", "near")]
    mine, grpo = ([math.log(float(r["rows"])) for r in near if r["estimator"] == name] for name in ("ebpo", "grpo"))
    assert by["adam", "ebpo", "ratio of rows", "near"]["value"] == pytest.approx(
        math.exp(np.subtract(mine, grpo).mean())
    )
    for name in ("pass1", "pass8", "pass16", "entropy"):
        ends = {
            arm: by["adam", arm, f"{name} at the end", None]["value"]
            for arm in ("grpo", "ebpo", dropping("ebpo", "passed"))
        }
        gaps = [
            by["adam", arm, f"{name} at the end, less {base}", None]["value"]
            for arm, base in (("ebpo", "grpo"), (dropping("ebpo", "passed"), "ebpo"))
        ]
        first, kept, dropped = ends.values()
        assert gaps == pytest.approx([kept - first, dropped - kept])
        assert kept != dropped
    assert (
        by["adam", "grpo", "pass8 at the end", None]["value"] < by["adam", "grpo", "pass16 at the end", None]["value"]
    )
    shares = [by[setup, "grpo", "nu/N, start", None]["value"] for setup in ("adam_stale", "adam", "sgd")]
    assert shares == pytest.approx([4 * shares[1], shares[1], shares[1]])
    equal = by["sgd", "rloo", EQUAL, "far"]["value"]
    assert equal is None or equal > 0
    lines = {(x["estimator"], x["setup"], x["far"] == 2): x for x in evidence(rows)}
    whole, last = lines["ebpo", "adam", False], lines["ebpo", "adam", True]
    assert whole["predicted"] == pytest.approx(
        math.log(by["adam", "ebpo", "predicted ratio of steps, start", None]["value"]), rel=1e-5
    )
    assert last["pass16"] == pytest.approx(by["adam", "ebpo", "pass16 at the end, less grpo", None]["value"], rel=1e-5)
    assert (whole["pass16"], last["predicted"], last["pass16_se"] > 0) == (None, None, True)


def test_the_best_is_the_best_of_those_that_are_everywhere() -> None:
    """Guards dominance: the least geometric mean over worlds wins; a method without a number in a world where others
    have one does not take part; who lies in the best's interval is within it."""

    def ratio(name: str, world: str, value: float, se: float = 0.01) -> dict[str, Any]:
        place = {"setup": "adam", "regime": "noisy", "group_size": 4, "world": world, "target": "far", "seeds": 9}
        return {**place, "estimator": name, "quantity": "ratio of rollouts", "value": value, "se": se}

    rows = [ratio("raft", "a", 0.1), ratio("ebpo", "a", 0.5), ratio("ebpo", "b", 2.0), ratio("rloo", "a", 0.8),
            ratio("rloo", "b", 0.8), ratio("opo", "a", 0.8), ratio("opo", "b", 0.81)]  # fmt: skip
    (row,) = dominance(rows, "adam")
    assert (row["best"], row["within"], row["worlds"]) == ("rloo", ["opo"], 2)
    assert row["value"] == pytest.approx(0.8) and row["low"] < 0.8 < row["high"] < 0.83


def test_the_language_models_points() -> None:
    """Guards language_model.csv: nu is what llm/measured/noise predicted with before the runs, steps follow from its
    curves, and predicted, measured and intervals are those that its README quotes for 34 and 36 %."""
    folder = Path(__file__).parent.parent / "llm" / "measured" / "noise"
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = compared()
    assert len(rows) == 6 and len(measured()) == 6
    for r in rows:
        quoted = f"{r['measured']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        assert quoted in text and f"{r['predicted']:.2f} |" in text
        assert r["residual"] == pytest.approx(math.log(r["measured"] / r["predicted"]))
    named = {r["estimator"]: r["predicted"] for r in rows}
    assert [round(named[k], 2) for k in sorted(named)] == [0.43, 0.58, 0.44]
