"""The checks of the ledger's tools: they agree as things are, and each sees the fault it is there for."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpo_sim.claims import __main__ as program
from ebpo_sim.claims import batches, calibration, instruments, plain
from ebpo_sim.claims.__main__ import main
from ebpo_sim.claims.instruments import Instrument, instrument_checks, summary, text
from ebpo_sim.counts import streams as montecarlo
from ebpo_sim.estimators import Estimator, components, nonparametric
from ebpo_sim.estimators.transforms import whiten
from ebpo_sim.numbers import adam
from ebpo_sim.numbers.moments import Moments
from strategies import UNIT, groups_of

SMALL_STREAMS = st.lists(
    st.lists(groups_of(UNIT).filter(lambda g: len(g) > 1), min_size=2, max_size=4), min_size=1, max_size=3
)


def test_all_agree() -> None:
    """The command line's seed; for a new seed the four of the standard errors fail together with probability 1e-3."""
    found = instrument_checks(seed=0, threads=2)
    assert [c.name for c in found if not c.passes] == []
    assert len({c.name for c in found}) == len(found) == 23
    assert text(found).endswith("All 23 instrument checks agree.")
    assert summary(found)["failed"] == 0


@settings(max_examples=40, deadline=None)
@given(SMALL_STREAMS)
def test_plain_rules_on_any_stream(stream: list[list[list[float]]]) -> None:
    """Guards the comparison itself: every rule agrees by hand on any stream of ragged batches that has a spread."""
    for build, arithmetic in instruments.RULES.values():
        estimator = build()
        state = estimator.init()
        try:
            expected = arithmetic(stream)
        except ZeroDivisionError:  # equal rewards only: the plain rules do not say what S is then
            continue
        for batch, scored in zip(stream, expected, strict=True):
            advantages, info, state = estimator.step(state, instruments._groups(batch))
            size = [len(group) for group in batch]
            baseline = np.broadcast_to(info.baseline_PG, (len(batch), max(size)))
            for row, n, plain_row in zip(baseline, size, scored.baseline, strict=True):
                np.testing.assert_allclose(row[:n], plain_row, rtol=0, atol=1e-9)
            if info.scale_PG.min() > 1e-3:  # where next to nothing varies rounding is all there is
                flat = [a for group in scored.advantage for a in group]
                np.testing.assert_allclose(advantages, flat, rtol=0, atol=1e-7)


def scaled(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """`function` with its standard error times `factor`."""

    def changed(*args: Any) -> Any:
        value, se = function(*args)
        return montecarlo.Mean(value, se * factor)

    return changed


@pytest.mark.parametrize("factor", [math.sqrt(2), 1 / math.sqrt(2)])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mean_with_error", "mean"),
        ("paired_ratio", "ratio"),
        ("double_ratio", "double ratio"),
        ("slope_with_error", "slope"),
    ],
)
def test_a_standard_error_off_by_root_two_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, factor: float
) -> None:
    """Guards the power: a factor of sqrt 2 either way breaks the bounds of its kind, and of no other."""
    monkeypatch.setattr(calibration, name, scaled(getattr(calibration, name), factor))
    outside = [c.kind for c in calibration.standard_errors(0) if not c.low <= c.mean_square <= c.high]
    assert outside == [kind]


def test_replicates_that_share_their_prompts_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the prompts' part of a standard error: with the same prompts in every replicate none is left."""
    whole = montecarlo.simulate_stream

    def shared(world: Any, group_size: int, design: montecarlo.Design, threads: int) -> Any:
        stream = whole(world, group_size, design, threads)
        return np.broadcast_to(stream[:1], stream.shape)

    monkeypatch.setattr(montecarlo, "simulate_stream", shared)
    found = {c.kind: c for c in calibration.standard_errors(0)}
    assert found["mean"].mean_square == float("inf")


def test_the_mean_square_is_one_for_students_t() -> None:
    """Guards the map to normal quantiles: t values with 3 degrees of freedom have mean square 3, mapped 1. The mean of
    20000 squared normals has standard deviation 0.01; 5 of them, false-fail rate 6e-7."""
    z = np.random.default_rng(1).standard_t(3, 20000)
    assert abs(calibration.mean_square(z, 3) - 1) < 0.05
    assert np.mean(z**2) > 2


def worse(whole: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: np.asarray(whole(*args, **kwargs)) * 1.01


FAULTS: dict[str, tuple[Any, str, Callable[[Any], Any], str]] = {
    "order": (
        Estimator, "turn",
        lambda whole: lambda self, s, g: (s, whole(self, s, g)[1]), "Algorithm 1 by hand",
    ),
    "simulated order": (
        montecarlo, "walk",
        lambda whole: lambda e, *rest: whole(Estimator(e.name, e.chain, "update_then_score"), *rest),
        "ebpo_debiased, simulated by hand",
    ),
    "scale": (
        whiten, "moments",
        lambda whole: lambda v, w, ddof: whole(v, w, 0), "Algorithm 1 by hand",
    ),
    "merge": (
        components, "merge",
        lambda whole: lambda a, b: (m := whole(a, b))._replace(means=Moments(*m.means[:3], m.means.m2 * 0.99)),
        "two workers merged",
    ),
    "denoising": (
        components, "between_variance",
        lambda whole: lambda c: whole(c) + components.mean_noise(c), "S from both sides",
    ),
    "shrunk weight": (
        components, "within_variance", worse, "best line's error",
    ),
    "EM": (
        nonparametric, "fit_weights",
        lambda whole: lambda pmf, counts, start, n: whole(pmf, counts, start, 1), "learnt prior",
    ),
    "rate": (instruments, "own_weight", worse, "own-batch weight"),
    "batches": (
        batches, "line",
        lambda whole: lambda *given: ((found := whole(*given))[0] * 0.99, found[1]), "released code in batches",
    ),
    "updates": (instruments, "gradient_noise", worse, "update of a policy"),
    "all-fail": (instruments, "limit_advantages", worse, "all-fail advantage"),
    "penalty": (instruments, "signal_to_noise", worse, "signal of a penalty"),
    "split": (instruments, "split_ratio", lambda whole: lambda e, c, g, folds: whole(e, c, g, folds=2), "split check"),
    "AdamW": (adam, "direction", worse, "AdamW"),
    "Adam": (instruments, "adam_directions", worse, "Adam's direction"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_check_sees_its_fault(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Guards the guards: a fault in a tool makes the check that is there for it, and the last line, DISAGREE."""
    where, name, change, seen = FAULTS[fault]
    monkeypatch.setattr(calibration, "standard_errors", lambda seed, threads: [])
    monkeypatch.setattr(where, name, change(getattr(where, name)))
    found = instrument_checks(seed=0)
    failed = [c.name for c in found if not c.passes]
    assert seen in failed
    assert summary(found)["failed"] == len(failed)
    assert f"{len(failed)} of 19 instrument checks DISAGREE" in text(found).splitlines()[-1]


def test_what_is_not_a_number_fails() -> None:
    """Guards the range: its ends belong to it, NaN and infinity do not."""
    for value, passes in ((0.0, True), (1.0, True), (1.1, False), (-0.1, False), (math.nan, False), (math.inf, False)):
        assert Instrument("a", "b", value, 0.0, 1.0).passes is passes


def test_a_failed_check_is_loud(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards what a reader sees: the terminal, `failed` in the JSON and the row of the table; nothing else changes."""
    checks = [Instrument("ruler", "length", 2.0, 0.0, 1.0), Instrument("clock", "time", 0.5, 0.0, 1.0)]
    monkeypatch.setattr(program.instruments, "instrument_checks", lambda seed, threads: checks)
    main(["HB-P1", "--quick", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "1 of 2 instrument checks DISAGREE, do not trust the ledger: ruler." in said
    written = json.loads((tmp_path / "ledger.json").read_text())["instruments"]
    assert (written["checks"], written["failed"]) == (2, 1)
    with (tmp_path / "instruments.csv").open() as file:
        assert [(row["name"], row["passes"]) for row in csv.DictReader(file)] == [("ruler", "False"), ("clock", "True")]


def test_plain_arithmetic_imports_nothing_of_the_package() -> None:
    """Guards independence: what the tools are compared with shares no code with them."""
    assert "ebpo_sim" not in Path(plain.__file__).read_text(encoding="utf-8").partition('"""\n\n')[2]
