"""Logs that mislead: filtered ones, runs put together, a few large groups, gradients that come from format alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from ebpo_sim.diagnose import text
from ebpo_sim.diagnose.__main__ import main, read
from ebpo_sim.diagnose.diagnosis import Diagnosis, Plan, diagnose
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.diagnose.runs import of_one_size
from ebpo_sim.diagnose.shape import shape
from ebpo_sim.diagnose.traps import kept, parts, silence
from ebpo_sim.numbers.formulas import degenerate_probability
from ebpo_sim.worlds import Counts, observed_counts

Rates = Callable[[np.random.Generator], float]


def log(path: Path, rollouts: int, prompts: int, steps: int, filtered: bool = False, extra: int = 0) -> str:
    """Beta(0.5, 0.7) prompts met at every step; filtered: groups of equal rewards are not logged; extra: prompts with
    twice the rollouts, all solved half of the time."""
    rng = np.random.default_rng(rollouts)
    p, rows = np.random.default_rng(1).beta(0.5, 0.7, prompts), []
    for step in range(steps):
        for q in range(prompts):
            rewards = rng.random(rollouts) < p[q]
            if not (filtered and rewards.all() == rewards.any()):
                rows += [f"{step},q{q},{int(r)}\n" for r in rewards]
    rows += [f"0,x{q},{int(r)}\n" for q in range(extra) for r in rng.random(2 * rollouts) < 0.5]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("step,prompt_id,reward\n" + "".join(rows), encoding="utf-8")
    return str(path)


def diagnosed(*paths: str, columns: tuple[str, ...] = (), **plan: object) -> list[Diagnosis]:
    settings = Plan(draws=100, fits=10, **plan)  # type: ignore[arg-type]
    return [diagnose(p, "", settings, selection(("ebpo", "ebpo_debiased"))) for p in read(paths, columns)[1]]


def test_a_filtered_log_is_not_believed(tmp_path: Path) -> None:
    """Guards dynamic sampling: the same log is believed before the filter, and after it nothing is certain."""
    (whole,) = diagnosed(log(tmp_path / "a.csv", 8, 300, 3))
    (left,) = diagnosed(log(tmp_path / "b.csv", 8, 300, 3, filtered=True))
    assert whole.silence is not None and not whole.silence.filtered and whole.advice.certain
    assert left.silence is not None and left.silence.filtered and left.silence.silent == 0
    assert not left.advice.certain and "--filtered" in left.advice.sentences[0]
    assert not any("Confidence: high" in s for s in left.advice.sentences)
    assert whole.paste and not left.paste


def test_the_test_of_silence_is_the_binomial(tmp_path: Path) -> None:
    """Guards the number: P(at most so many silent groups) under the fitted prior's share; visits count as prompts."""
    counts = Counts((4, 4, 4, 4), (0, 1, 2, 3), (2, 40, 50, 40))
    found = shape(counts, 2, 0)
    assert found is not None
    share = float(np.dot(found.prior.weights, degenerate_probability(np.array(found.prior.nodes), 4)))
    one, half = silence(counts, found, 1.0), silence(counts, found, 0.5)
    assert (one.groups, one.silent) == (132, 2)
    assert one.expected == pytest.approx(share, rel=1e-12)
    assert one.probability == pytest.approx(binom.cdf(2, 132, share), rel=1e-12)
    assert half.probability == pytest.approx(binom.cdf(1, 66, share), rel=1e-12)


@pytest.mark.parametrize(
    "name", ["Qwen2-1.5B/MATH", "Qwen2.5-Math-1.5B-Instruct/MATH", "GPT-4-0613/LiveCodeBench", "Qwen2.5-7B"]
)
def test_shipped_counts_are_not_taken_for_filtered_ones(name: str) -> None:
    """Guards against false alarms on real logs, of thousands of prompts."""
    counts = observed_counts(name)
    found = shape(counts, 2, 0)
    assert found is not None and not silence(counts, found, 1.0).filtered


def test_kept_groups_tell_of_their_own_prompts(tmp_path: Path) -> None:
    """Guards --filtered: the truncated likelihood finds the kept prompts' mean and ICC, which moments of kept groups
    miss; no error, share or advice is given. 0.25 and 0.75: exact counts of a large log, so no sampling error."""
    s = np.arange(1, 4)
    share = 0.5 * binom.pmf(s, 4, 0.25) + 0.5 * binom.pmf(s, 4, 0.75)
    counts = Counts((4, 4, 4), (1, 2, 3), tuple(np.rint(1e6 * share).astype(int).tolist()))
    found = kept(counts, 20, 0, 1.0)
    assert found is not None
    assert found.mean.value == pytest.approx(0.5, abs=1e-3)
    assert found.icc.value == pytest.approx(0.25, abs=0.02)
    naive = np.average((s / 4 - 0.5) ** 2, weights=share) - np.average(s * (4 - s) / 4 / 3 / 4, weights=share)
    assert naive < 0.03  # where the truth is 1/16
    path = log(tmp_path / "b.csv", 8, 200, 2, filtered=True)
    main([path, "--quick", "--filtered", "--json", "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "diagnosis.json").read_text())["models"][0]
    assert written["icc"] is None and written["kept"]["icc"] is not None and written["zero_signal"] == {}
    assert written["recommendation"]["estimator"] == ""


def test_runs_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards files that repeat each other's groups: runs side by side, each with its own G; folders where they tell."""
    files = [log(tmp_path / f"run_g{g}.csv", g, 60, 2) for g in (4, 8)]
    assert {(d.name, d.current, d.sizes) for d in diagnosed(*files)} == {
        ("run_g4", 4, (4, 4, 4)),
        ("run_g8", 8, (8, 8, 8)),
    }
    main([*files, "--quick", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "run_g4" in said and "each one's own G" in said and max(map(len, said.splitlines()[:-1])) <= 120
    nested = []
    for run, g in (("one", 4), ("two", 8)):
        whole = Path(log(tmp_path / "x.csv", g, 30, 2)).read_text().splitlines(keepends=True)
        for step in range(2):
            path = tmp_path / run / f"{step}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(whole[0] + "".join(row for row in whole[1:] if row.startswith(f"{step},")))
            nested.append(str(path))
    assert {(p.name, p.groups) for p in read(nested)[1]} == {("one", 60), ("two", 60)}
    (together,) = read(nested[:2])[1]
    assert (together.name, together.groups) == ("", 60)


def test_a_group_cut_by_a_files_end_is_one(tmp_path: Path) -> None:
    """Guards shards: one group in two files is no run of its own."""
    for name, body in (("a.csv", "a,1\na,0\nb,1\n"), ("b.csv", "b,0\nc,1\nc,0\n")):
        (tmp_path / name).write_text("prompt_id,reward\n" + body)
    (population,) = read([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])[1]
    assert population.n.tolist() == [2, 2, 2]


def test_few_large_groups_outvote_nobody(tmp_path: Path) -> None:
    """Guards sizes: with steps, or half of all rollouts, the size with most rollouts speaks; the rest is named."""
    (population,) = read([log(tmp_path / "a.csv", 8, 200, 2, extra=9)])[1]
    same, rows, note = of_one_size(population, 0)
    assert set(same.n) == {8} and same.groups == 400
    assert [(r.rollouts, r.groups) for r in rows] == [(8, 400), (16, 9)]
    assert "those of 8" in note and "9 groups are left out" in note
    found = diagnose(population, "", Plan(draws=100, fits=10), selection(("ebpo", "ebpo_debiased")))
    assert found.current == 8 and "By group size" in text.full(found)
    path = tmp_path / "c.csv"  # sizes that vary, no step: pooled, and said
    path.write_text("rollouts,successes,prompts\n4,1,40\n4,3,40\n6,2,40\n6,5,40\n12,4,20\n12,9,2\n")
    (population,) = read([str(path)])[1]
    pooled, rows, note = of_one_size(population, 0)
    assert pooled is population and len(rows) == 3 and "every group counts once" in note
    (row,) = [
        r for r in diagnose(population, "", Plan(draws=100, fits=5), selection(("ebpo",))).table.rows
        if r.group_size == 8 and r.estimator == "ebpo"
    ]  # fmt: skip
    assert row.held == 22 and row.split is not None and not row.model_free and row.best is row.long_run


def test_gradients_of_format_alone_are_counted(tmp_path: Path) -> None:
    """Guards several rewards: of ten groups four are silent in accuracy, three of them not in format."""
    rows = []
    for q in range(10):
        accuracy = [1, 0, 1, 0] if q >= 4 else [1, 1, 1, 1]
        form = [0.1, 0.1, 0.1, 0.0] if q < 3 else [0.1] * 4
        rows += [f"q{q},{f},{a}\n" for a, f in zip(accuracy, form, strict=True)]
    path = tmp_path / "r.csv"
    path.write_text("prompt_id,format,accuracy\n" + "".join(rows))
    (population,) = read([str(path)], ["reward=format+accuracy"])[1]
    main_reward, other = parts(population)
    assert (main_reward.name, main_reward.silent.value, main_reward.others.value) == ("accuracy", 0.4, 0.3)
    assert (other.name, other.silent.value, other.others.value) == ("format", 0.7, 0.6)
    (found,) = diagnosed(str(path), columns=("reward=format+accuracy",))
    assert any("get their whole gradient from format" in s for s in found.advice.sentences)
    assert "By reward" in text.full(found)
