"""Recorded runs: what ships, what is refused, and a replay whose errors are exact where all outcomes are laid side by
side."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpo_sim import InputError
from ebpo_sim.claims.recorded import jumping_error
from ebpo_sim.studies.recorded import replay
from ebpo_sim.studies.recorded.study import above_from, main
from ebpo_sim.worlds import (
    Recorded,
    intra_class_correlation,
    parse_world,
    recorded,
    recorded_names,
    recorded_source,
    variance_components,
    world_counts,
)
from ebpo_sim.worlds.base import Points

RUN = "qwen2.5-math-1.5b-grpo"


def test_what_ships() -> None:
    """Sizes, hand-checked entries, and heads that name source, commit, licence and what is not known."""
    run = recorded(RUN)
    assert (run.successes_PV.shape, run.rollouts, run.longest) == ((1000, 46), 8, 57)
    assert run.prompts[:3] == ("0", "1", "2") and run.successes_PV[1, :6].tolist() == [5, 4, 3, 6, 7, 6]
    for name in recorded_names():
        assert all(word in recorded_source(name) for word in ("github.com/", "commit", "Apache-2.0", "Not known"))
    last = recorded("Qwen3-4B-DAPO-Math-step-256")
    assert (last.successes_PV.shape, last.rollouts) == ((512, 1), 10)
    assert recorded_source("mine.csv") == "mine.csv"


def test_a_visit_is_a_world() -> None:
    """recorded:NAME@VISIT holds the pass rates of that visit, the first where none is named."""
    assert world_counts(f"recorded:{RUN}") == recorded(RUN).counts(0) != recorded(RUN).counts(45)
    world = parse_world(f"recorded:{RUN}@45")
    known = variance_components(recorded(RUN).counts(45))
    assert isinstance(world, Points) and world.name == f"recorded:{RUN}@45"
    assert world.quadrature(2).mean == pytest.approx(known.mean, rel=1e-12)
    assert intra_class_correlation(world) == pytest.approx(known.between / (known.mean * (1 - known.mean)), rel=1e-9)
    with pytest.raises(InputError, match=r"has no visit 46 of all its prompts: name 0 to 45"):
        parse_world(f"recorded:{RUN}@46")
    with pytest.raises(InputError, match=f"unknown recorded world 'qwen2.5-math': did you mean '{RUN}'"):
        parse_world("recorded:qwen2.5-math")


LONG, DIGITS = "prompt,visit,successes,rollouts\n", "prompt,rollouts,successes\n"


@pytest.mark.parametrize("text", [LONG + "a,0,3,4\na,1,0,4\nb,0,4,4\nb,1,1,4\nb,2,1,4\n", DIGITS + "a,4,30\nb,4,411\n"])
def test_a_file_of_ones_own(text: str, tmp_path: Path) -> None:
    """Both layouts; visits that not all prompts have are left out; a changed file is read again."""
    (tmp_path / "own.csv").write_text(text)
    run = recorded(str(tmp_path / "own.csv"))
    assert (run.prompts, run.successes_PV.tolist(), run.rollouts, run.longest) == (("a", "b"), [[3, 0], [4, 1]], 4, 3)
    assert parse_world(f"recorded:{tmp_path}/own.csv@1").quadrature(2).mean == pytest.approx(1 / 8)
    (tmp_path / "own.csv").write_text(DIGITS + "a,4,3\nb,4,4\n")
    assert recorded(str(tmp_path / "own.csv")).successes_PV.tolist() == [[3], [4]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LONG + "a,1,3,4\n", "line 2: prompt 'a' has visit 1 where 0 is due"),
        (LONG + "a,0,3,4\na,2,3,4\n", "line 3: prompt 'a' has visit 2 where 1 is due"),
        (LONG + "a,0,3,4\nb,0,1,4\na,0,3,4\n", "line 4: prompt 'a' has visit 0 twice"),
        (DIGITS + "a,4,31\na,4,31\n", "line 3: prompt 'a' has a second row"),
        (DIGITS + "a,4,31\nb,4,35\n", "line 3: successes must lie between 0 and rollouts, got 5 of 4"),
        (LONG + "a,0,-1,4\n", "successes must lie between 0 and rollouts, got -1 of 4"),
        (LONG + "a,0,3,4\nb,0,3,8\n", "line 3: 8 rollouts where others have 4"),
        (DIGITS + "a,4,3111\nb,4,3\n", "prompt 'b' vanishes after 1 of 4 visits"),
        ("prompt,rollouts,successes,reward\na,4,3,1\n", "column 'reward' is not known"),
        ("prompt,visit,successes\na,0,3\n", "has no column 'rollouts'"),
        (DIGITS + "a,4,3x\n", "successes must be digits, one a visit, got '3x'"),
        (DIGITS + "a,4,\n", "successes must be digits"),
        (LONG + "a,0,3.5,4\n", "successes must be a whole number, got '3.5'"),
        (LONG + "a,0,1,1\n", "rollouts must be 2 to 1,000,000, got 1"),
        (LONG, "holds no row"),
    ],
)
def test_files_that_are_refused(text: str, says: str, tmp_path: Path) -> None:
    """One line each, naming the place and the remedy."""
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        recorded(str(tmp_path / "bad.csv"))
    assert "\n" not in str(refused.value)


def every_outcome(visits: int, group_size: int = 2, rest: int = 2) -> replay.Split:
    """All equally likely outcomes of rollouts at p = 1/2 as replicates of one prompt: their mean is an expectation."""
    n = group_size + rest
    outcomes = np.array([*product((0, 1), repeat=n * visits)]).reshape(-1, 1, visits, n)
    held = outcomes[..., group_size:].mean(axis=-1)
    order = np.zeros((visits, 1), dtype=np.intp)
    trained = outcomes[..., :group_size].sum(axis=-1)
    return replay.Split(group_size, trained, held, held * (1 - held) / (rest - 1), order)


def test_the_errors_are_unbiased() -> None:
    """Over all outcomes at p = 1/2 the error of each rule is its exact one: 1/(4G) of the group mean, 1/4 of the other
    rollout, 1/(4G) of an anchor, and DBB's from its recursion."""
    parts = every_outcome(2)
    np.testing.assert_allclose(replay.errors(replay.bound("grpo"), parts, 128), [[1 / 8, 1 / 8]], rtol=1e-12)
    np.testing.assert_allclose(replay.errors(replay.bound("rloo"), parts, 128), [[1 / 4, 1 / 4]], rtol=1e-12)
    assert replay.errors(replay.bound("anchor"), parts, 128)[0, 1] == pytest.approx(1 / 8, rel=1e-12)
    found = replay.errors(replay.bound("dbb"), parts, 128)[0]
    # (1/2, 1/2) and two rollouts: weight 3; then (1/4, 1/4), half of the first visit and this one: weight 7/2
    np.testing.assert_allclose(found, [2 / 4 / 3**2, (2 / 4 + 0.5**2 * 2 / 4) / 3.5**2], rtol=1e-12)


def test_drift_is_unbiased() -> None:
    """Prompts with every outcome of three rollouts at 1/2, then at 1/2, have moved by 0; those from 0 to 1 by 1."""
    counts = np.array([(sum(x[:3]), sum(x[3:])) for x in product((0, 1), repeat=6)])
    still = Recorded("x", tuple(map(str, range(64))), 3, counts, 2)
    assert replay.drift(still, 1, 2).mean() == pytest.approx(0.0, abs=1e-15)
    moved = Recorded("x", ("a", "b"), 3, np.array([[0, 3], [0, 3]]), 2)
    assert replay.drift(moved, 1, 2).tolist() == [1.0, 1.0]


def test_a_split_keeps_what_was_recorded() -> None:
    """Group and rest together are the recorded successes; the same seed splits alike, another does not; silent groups
    are the share of all splits."""
    run = recorded(RUN)
    parts = replay.split(run, 3, 5, 2, 0)
    whole = parts.trained_RPV + np.rint(parts.held_RPV * 5).astype(int)
    assert np.array_equal(whole, np.broadcast_to(run.successes_PV[:, :5], whole.shape))
    assert np.array_equal(replay.split(run, 3, 5, 2, 0).trained_RPV, parts.trained_RPV)
    assert not np.array_equal(replay.split(run, 3, 5, 2, 1).trained_RPV, parts.trained_RPV)
    assert [sorted(order) == list(range(1000)) for order in parts.order_VP] == [True] * 5
    np.testing.assert_allclose(replay.silent(np.array([0, 1, 4, 8]), 8, 2), [1, 21 / 28, 12 / 28, 1], rtol=1e-14)


def test_intervals_over_prompts() -> None:
    """A ratio of a column to itself is 1 without spread; of independent unit columns the interval is near the delta
    method's 2 x 1.96 sqrt(2/1000) x 0.3."""
    weights, rng = replay.resampled(1000, 0), np.random.default_rng(0)
    a, b = (rng.normal(1.0, 0.3, 1000) for _ in range(2))
    assert replay.ratio(weights, a, a) == (1.0, 1.0, 1.0)
    found = replay.ratio(weights, a, b)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(3.92 * np.sqrt(2 / 1000) * 0.3, rel=0.1)


def test_the_visit_from_which_a_limit_is_passed() -> None:
    rows: list[dict[str, Any]] = [{"visit": i, "value": v} for i, v in enumerate((0.3, 0.6, 0.5, 0.7, 0.8))]
    assert [above_from(rows, limit) for limit in (0.2, 0.55, 0.65, 0.9)] == [0, 3, 3, None]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--group-size", "5"], "--group-size 5 is above half of the 8 rollouts"),
        (["--world", "beta:1,1"], f"world 'beta:1,1' is no recorded run: name recorded:{RUN}"),
        (["--world", "recorded:qwen3-4b-dapo-math-step-16"], "has one visit: a replay needs two"),
        (["--estimator", "optimal"], "optimal needs score_norms, which recorded"),
        (["--estimator", "oracle_bayes"], "oracle_bayes needs true_prior, which recorded"),
        (["--burn-in", "46", "--steps", "60"], "--burn-in 46 leaves no visit of 46 to score"),
    ],
)
def test_studies_that_are_refused(arguments: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        main([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_study_names_the_best_rule(tmp_path: Path) -> None:
    """A file of prompts that stand still: history wins, drift is around 0 and no limit of EBPO's is passed at ICC 0."""
    rng = np.random.default_rng(0)
    digits = ["".join(map(str, row)) for row in rng.binomial(8, 0.5, (60, 6))]
    (tmp_path / "still.csv").write_text(DIGITS + "".join(f"{i},8,{d}\n" for i, d in enumerate(digits)))
    said = io.StringIO()
    with redirect_stdout(said):
        main(["--world", f"recorded:{tmp_path}/still.csv", "--estimator", "anchor", "--estimator", "spo:retention=0.96",
              "--group-size", "2", "--replicates", "2", "--out", str(tmp_path / "out")])  # fmt: skip
    assert "Least error over the group mean's: G = 2 SPO, retention 0.96 0." in said.getvalue()
    assert "0.686: not passed" in said.getvalue() and (tmp_path / "out" / "recorded.png").exists()


def test_the_error_on_jumping_prompts() -> None:
    """Without drift: sums of weights alone; with jumps at every visit the past is worth nothing but its mean."""
    c = 0.5 ** np.arange(65.0)
    assert jumping_error(0.5, 1e-9, True, 4, 0.3, 0.0) == pytest.approx(((c / c.sum()) ** 2).sum(), rel=1e-6)
    free = 2 * 0.3**2 / ((0.25 - 0.3**2) / 4)  # drift at which a visit says nothing of the next
    still, free_error = (jumping_error(0.5, 1e-9, False, 4, 0.3, d) for d in (0.0, free))
    assert free_error == pytest.approx(still + free / 2 * (1 + still), rel=1e-6)
