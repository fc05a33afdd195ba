"""Hostile logs: extreme numbers, names that forge lines, few prompts, files that are none. An estimate or one line."""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpo_sim import cli, report
from ebpo_sim.diagnose import coverage, text
from ebpo_sim.diagnose.__main__ import read
from ebpo_sim.diagnose.advice import span
from ebpo_sim.diagnose.diagnosis import Diagnosis, Plan, as_json, as_rows, diagnose
from ebpo_sim.diagnose.intervals import Estimate, redrawn
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"prompt_id": f"p{i}", "reward": float((i * 7 + k * 3) % 5 < 2), "topic": "ab"[i % 2]}
    for i in range(12)
    for k in range(4)
]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def diagnosed(path: str, **plan: Any) -> list[Diagnosis]:
    columns, found = read([path])
    chosen = selection(())
    return [diagnose(p, columns.said(), Plan(draws=60, fits=5, **plan), chosen) for p in found]


def changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | change(row) for row in ROWS]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(1, 16).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=8))
def test_any_small_log_has_a_report_or_a_refusal(tmp_path: Path, rows: list[tuple[int, int]]) -> None:
    """Guards few prompts: every table of 0 to 8 of them is diagnosed and can be written, or refused."""
    path = tmp_path / "c.csv"
    path.write_text("rollouts,successes\n" + "".join(f"{n},{s}\n" for n, s in rows), encoding="utf-8")
    enough = sum(n >= 2 for n, _ in rows) >= 2
    try:
        (found,) = diagnosed(str(path), group_sizes=(4,))
    except InputError:
        assert not enough
        return
    assert enough
    assert "RECOMMENDATION" in text.full(found)
    report.to_json(as_json(found) | {"rows": as_rows(found)})


@pytest.mark.parametrize("scale", [2.0**-130, 2.0**-30, 2.0**28])
def test_a_scale_changes_no_ratio(tmp_path: Path, scale: float) -> None:
    """Guards rewards of any size: intra-class correlation and ratios are those of the same rewards near 1.

    Powers of two, so that rounding and with it ties between bootstrap samples are the same.
    """

    def at(by: float) -> Diagnosis:
        rows = changed(lambda r: {"reward": by * (r["reward"] + ord(r["topic"]) % 3)})
        return diagnosed(written(tmp_path / "r.jsonl", rows))[0]

    plain, other = at(1.0), at(scale)
    assert plain.shape is None and plain.components.icc.low is not None
    assert tuple(other.components.icc) == pytest.approx(tuple(plain.components.icc), rel=1e-9)
    for row, expected in zip(other.table.rows, plain.table.rows, strict=True):
        if row.estimator in ("james_stein", "ebpo_debiased", "rloo"):
            assert row.long_run is not None and expected.long_run is not None
            assert tuple(row.long_run) == pytest.approx(tuple(expected.long_run), rel=1e-6)


DEEP = "[" * 100_000
REFUSED: dict[str, tuple[Any, str]] = {
    "large.csv": ("prompt_id,reward\na,1e200\na,0\nb,1\nb,0\n", "row 1: reward must be finite and at most 1e.09"),
    "large.jsonl": (changed(lambda r: {"reward": 1e155 * r["reward"]}), "at most 1e.09"),
    "beyond.jsonl": (changed(lambda r: {"reward": 10**400}), "row 1: reward must be finite"),
    "tiny.jsonl": (changed(lambda r: {"reward": 1e-200 * r["reward"]}), "multiply them by a constant"),
    "digits.jsonl": ('{"prompt_id": 1, "reward": 1' + "0" * 6000 + "}\n", "row 1 is not JSON"),
    "deep.jsonl": (DEEP, "row 1 is not JSON"),
    "deeper.jsonl": (json.dumps(ROWS[0]) + "\n" + DEEP + "\n", "row 2 is not JSON"),
    "nested.jsonl": ('{"prompt_id": 1, "reward": ' + "[" * 500 + "]" * 500 + "}\n", "row 1: reward must be a number"),
    "step.jsonl": (changed(lambda r: {"step": 1e300}), "step must be a number, got 1e.300"),
    "steps.jsonl": (changed(lambda r: {"step": 10**400}), "step must be a number"),
    "many.csv": ("rollouts,successes\n1e8,3\n8,3\n", "row 1: at most 1,000,000 rollouts"),
    "more.csv": ("rollouts,successes\n1e30,3\n8,3\n", "at most 1,000,000 rollouts"),
    "most.csv": ("rollouts,successes\n1e308,3\n8,3\n", "rollouts must be finite and at most"),
    "heavy.csv": ("rollouts,successes,prompts\n8,3,1e25\n8,4,1\n", "1,000,000,000 prompts"),
    "bytes.jsonl": (b"\xff\xfe{}", "cannot be read"),
    "twice.csv.gz": (gzip.compress(gzip.compress(b"rollouts,successes\n8,3\n")), "cannot be read"),
    "none.csv.gz": (b"", "holds no row"),
    "none.jsonl": (b"\n\n", "holds no row"),
    "names.jsonl": ([{"x\ny": 1, "\ud800": 2}], "no column for the prompt id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Guards every extreme: one printable line that names the trouble, exit code 2."""
    content, message = REFUSED[name]
    if isinstance(content, list):
        written(tmp_path / name, content)
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read([str(tmp_path / name)])
    monkeypatch.setattr(sys, "argv", ["diagnose", str(tmp_path / name)])
    with pytest.raises(SystemExit) as leaving:
        cli.run(lambda argv: read(argv) and None)
    said = capsys.readouterr().err
    assert leaving.value.code == 2
    assert said.endswith("\n") and said[:-1].isprintable() and len(said) < 1000 + len(str(tmp_path))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Guards paths: a pipe is refused and not waited for; so are a device, a loop, a dead link and impossible names."""
    os.mkfifo(tmp_path / "pipe.csv")
    for name, target in (("zero.csv", "/dev/zero"), ("loop.csv", tmp_path / "loop.csv"), ("dead.csv", tmp_path / "no")):
        (tmp_path / name).symlink_to(target)
    for name in ("pipe.csv", "zero.csv", "loop.csv", "dead.csv", "a\0.csv", "x" * 300 + ".csv"):
        with pytest.raises(InputError, match="cannot be read"):
            read([str(tmp_path / name)])


@pytest.mark.parametrize(
    "name", ["good\nrecommendation: use grpo", "\x1b[31mred", "\ud800", "a\0b", "\u202eb", "x" * 999]
)
@pytest.mark.parametrize("column", ["topic", "model", "prompt_id"])
def test_names_stay_on_their_line(tmp_path: Path, name: str, column: str) -> None:
    """Guards names out of a log: no line break, escape sequence or lone surrogate reaches report, JSON or table."""
    rows = changed(lambda r: {column: name} if r["topic"] == "a" else {})
    rows = [{"model": "m"} | row for row in rows]
    for d in diagnosed(written(tmp_path / "r.jsonl", rows), group_sizes=(4,)):
        lines = text.full(d).split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("recommendation") for line in lines)
        assert max(map(len, lines)) < 400
        report.to_json(as_json(d)).encode()
        "".join(str(v) for row in as_rows(d) for v in row.values()).encode()


def test_printable_keeps_what_can_be_read() -> None:
    """Guards the escapes: letters of any language stay, control characters and halves of a pair do not."""
    assert report.printable("naïve 数学 ± 1") == "naïve 数学 ± 1"
    assert report.printable("a\nb\x1b[0m\ud800") == "a\\nb\\x1b[0m\\ud800"


def test_no_group_size_beyond_reach(tmp_path: Path) -> None:
    """Guards matching sizes: where nothing is left of the error, GRPO needs more than 1024."""
    path = tmp_path / "c.csv"
    path.write_text("rollouts,successes,prompts\n8,3,20\n8,4,40\n8,5,20\n8,1,1\n8,7,1\n", encoding="utf-8")
    (found,) = diagnosed(str(path), group_sizes=(4,))
    assert found.advice.ratio is not None and found.advice.ratio.value < 1e-3
    size = found.advice.matching_size
    assert size is None or size.value == math.inf or size.value <= 1024
    assert not any(len(word.strip("().,")) > 6 and word.strip("().,").isdigit() for word in text.full(found).split())


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Estimate(0.3, 1e-26, 0.6), "G = 14 (7 to more than 1024)"),
        (Estimate(1e-9, 1e-26, 0.6), "G = more than 1024 (7 to more than 1024)"),
        (Estimate(1e-9, 1e-26, 1e-8), "G = more than 1024 to match"),
        (Estimate(0.5, 0.4, 0.6), "G = 8 (7 to 10)"),
        (Estimate(0.5, 0.5, 0.5), "G = 8 to match"),
    ],
)
def test_wide_intervals_are_said_in_words(ratio: Estimate, said: str) -> None:
    """Guards the sentence on group sizes."""
    from ebpo_sim.diagnose.advice import _matching, _size

    assert said in _size("shrink", _matching(ratio, 4), 4, "ebpo_debiased")


def test_small_numbers_are_not_printed_as_nought() -> None:
    """Guards spans: what would be printed as 0.000 keeps its leading digits, the rest is as it was."""
    assert span(Estimate(3.5e-19, 3.1e-19, 4e-19)) == "3.5e-19 [3.1e-19, 4e-19]"
    assert span(Estimate(0.0, 0.0, 0.0)) == "0.000"
    assert span(Estimate(0.745, 0.739, 0.752)) == "0.7450 [0.7390, 0.7520]"


def test_none_of_four_is_not_certain(tmp_path: Path) -> None:
    """Guards zero-signal groups without spread: 4 prompts of no success give Wilson's interval, not 1 for certain."""
    path = tmp_path / "c.csv"
    path.write_text("rollouts,successes,prompts\n4,0,4\n", encoding="utf-8")
    (found,) = diagnosed(str(path), group_sizes=(4,))
    zero, _ = found.zero[4]
    assert zero.value == 1
    assert zero.low == pytest.approx(4 / (4 + 1.959964**2))
    assert "0.000 " not in text.full(found)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=2, max_size=9))
def test_the_median_of_a_histogram_is_its_prompts(cells: list[tuple[int, int]]) -> None:
    """Guards the median of weighted cells."""
    from ebpo_sim.diagnose.diagnosis import median

    n, weight = (np.array(column, dtype=float) for column in zip(*cells, strict=True))
    assert median(n, weight) == int(np.median(np.repeat(n, weight.astype(int))))


def test_a_histogram_of_a_billion_prompts_is_drawn_at_once() -> None:
    """Guards memory: cells that stand for very many prompts are not dealt out; means and spread are the multinomial's.

    1001 equal cells of 10^6 - 1: the mean of a 0/1 term over draws has se sqrt(p q/N/draws); 5 of them, 6e-7.
    """
    cells, draws = 1001, 200
    term = (np.arange(cells) < 400).astype(float)
    total = cells * (10**6 - 1)
    found = redrawn(term[:, None], np.full(cells, 10.0**6 - 1), draws, np.random.default_rng(0))[:, 0] / total
    p = term.mean()
    assert abs(found.mean() - p) < 5 * math.sqrt(p * (1 - p) / total / draws)
    assert 0.7 < found.std() / math.sqrt(p * (1 - p) / total) < 1.3


def test_coverage_takes_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the study's command line: help and wrong options run nothing, the seed is passed on."""
    designs = []

    def study(world: str, design: coverage.Design) -> list[dict[str, Any]]:
        designs.append(design)
        return []

    monkeypatch.setattr(coverage, "study", study)
    with pytest.raises(SystemExit) as leaving:
        coverage.main(["--help"])
    assert leaving.value.code == 0
    for arguments in (["--quik-not"], ["--seed", "nan"], ["--seed", "-1"]):
        with pytest.raises(InputError, match=arguments[0]):
            coverage.main(arguments)
    assert not designs
    coverage.main(["--quick", "--seed", "3"])
    assert designs == [coverage.Design(sets=100, draws=400, seed=3)] * len(coverage.WORLDS)
