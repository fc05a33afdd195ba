"""`python -m llm.compare`: the plan, resuming, the analysis against hand-computed values, and a tiny comparison."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError, cli, labels, report  # noqa: E402
from ebpo_sim.compare import jobs as engine  # noqa: E402
from ebpo_sim.compare import plan as plans  # noqa: E402
from ebpo_sim.compare.plan import Job, Record  # noqa: E402
from ebpo_sim.compare.tables import curve_rows  # noqa: E402
from llm import compare, compare_plots, compare_runner, compare_text  # noqa: E402
from llm import compare_measures as analysis  # noqa: E402
from llm.compare_runner import TUNING_SEED, Cell, Comparison, LanguageModel  # noqa: E402
from llm.settings import Settings  # noqa: E402

TINY = {
    "topics": "count,mod", "max_level": "3", "per_cell": "24", "eval_per_cell": "4", "eval_samples": "2",
    "sft_steps": "60", "sft_batch": "64", "hidden": "16", "layers": "1", "heads": "2", "kv_heads": "1", "warmup": "2",
}  # fmt: skip
SMALL = ["--budget", "32", "--group-size", "4", "--steps", "4", *(x for k in TINY for x in ("--set", f"{k}={TINY[k]}"))]
PLAN = Comparison(
    ("grpo", "ebpo", labels.NO_SHRINKAGE, labels.FULL_SHRINKAGE), (2, 4, 8), ("shuffled", "topic"), (1e-4, 1e-3),
    seeds=3, tuning_seeds=2, base=Settings(steps=40, eval_every=10),
)  # fmt: skip


def record(final: float, seconds: float = 10.0, invocation: str = "s", steps: int = 40, start: float = 0.1) -> dict:
    """A finished run as its file has it: a straight line from start to final in two validations."""
    told = dict.fromkeys(compare_runner.TRACED, 0.5)
    line = [
        {"step": steps // 2, "seconds": seconds / 2, "validation_pass1": (start + final) / 2, **told},
        {"step": steps, "seconds": seconds, "validation_pass1": final, **told},
    ]
    first = {"step": 0, "seconds": 0.0, "validation_pass1": start, **dict.fromkeys(compare_runner.TRACED)}
    marks = {"invocation": invocation, "machine": {"cores": 2}, "wall_seconds": 1.2 * seconds}
    return {**marks, "curve": [first, *({"validation_se": 0.01, **row} for row in line)]}


HERE = Path("unused")


def wanted(plan: Comparison, done: dict[Job, Record]) -> list[tuple[str, Job]]:
    return plans.wanted(plan.plan, LanguageModel(plan, HERE, HERE), done)


def progress(plan: Comparison, done: dict[Job, Record]) -> str:
    return plans.progress(plan.plan, LanguageModel(plan, HERE, HERE), done)


def simulate(plan: Comparison, out: Path) -> tuple[dict[Job, Record], list[str]]:
    return compare_runner.simulate(LanguageModel(plan, out, out))


def finished(plan: Comparison, made: Callable[[Job], dict]) -> dict[Job, dict]:
    """All runs of a plan with records made up."""
    done: dict[Job, dict] = {}
    while new := [job for _, job in wanted(plan, done) if job not in done]:
        done |= {job: made(job) for job in new}
    return done


def test_the_plan_is_paired_and_complete() -> None:
    """Guards the design: number of runs, disjoint seeds, a seed of all arms before the next, extra orders at G = 4."""
    done = finished(PLAN, lambda job: record(0.3))
    stages = {name: [j for stage, j in wanted(PLAN, done) if stage == name] for name in ("tuning", "evaluation")}
    assert PLAN.cells == [(2, "shuffled"), (4, "shuffled"), (4, "topic"), Cell(8, "shuffled")]
    assert len(stages["tuning"]) == len(set(stages["tuning"])) == 4 * 4 * 2 * 2
    assert len(stages["evaluation"]) == len(set(stages["evaluation"])) == 4 * 4 * 3
    assert {j.seed for j in stages["evaluation"]} == {0, 1, 2}
    assert {PLAN.settings(j).seed for j in stages["tuning"]} == {TUNING_SEED, TUNING_SEED + 1}
    assert [j.seed for j in stages["evaluation"]] == [0] * 16 + [1] * 16 + [2] * 16
    for seed in range(3):
        for cell in PLAN.cells:
            mine = [PLAN.settings(j) for j in stages["evaluation"] if (j.cell, j.seed) == (cell, seed)]
            assert [s.estimator for s in mine] == list(PLAN.arms)
            assert len({replace(s, estimator="grpo", lr=1.0) for s in mine}) == 1  # nothing else differs
            assert mine[0].prompts * mine[0].group_size == PLAN.budget
    assert compare.complete(["ebpo", "rloo"]) == (
        "grpo",
        "ebpo",
        labels.NO_SHRINKAGE,
        labels.FULL_SHRINKAGE,
        "rloo",
    )
    assert compare.complete(["rloo"]) == ("grpo", "rloo")


def test_evaluation_waits_for_tuning_and_equal_time_for_evaluation() -> None:
    """Guards the order of work: a run is listed when what decides its settings is known, and never before."""
    done: dict[Job, dict] = {}
    tuning = wanted(PLAN, done)
    assert {stage for stage, _ in tuning} == {"tuning"}
    lacking = tuning[-1][1]
    done = {job: record(0.2 + job.rate) for _, job in tuning if job != lacking}
    listed = [job for stage, job in wanted(PLAN, done) if stage == "evaluation"]
    assert len(listed) == 3 * 15 and not any((j.arm, j.cell) == (lacking.arm, lacking.cell) for j in listed)
    assert {j.rate for j in listed} == {1e-3}
    done[lacking] = record(0.2)
    small = [job for stage, job in wanted(PLAN, done) if stage == "evaluation" and job.cell.group_size == 2]
    pace = {"grpo": 4.0, "ebpo": 10.0, labels.NO_SHRINKAGE: 9.5, labels.FULL_SHRINKAGE: 12.0}
    done |= {job: record(0.3, seconds=pace[job.arm] * (1 + 8 * (job.seed == 1))) for job in small[:-1]}
    assert "evaluation 11 of 48, equal time 0 of 3" in progress(PLAN, done)  # the last arm lacks a run
    done[small[-1]] = record(0.3, seconds=12.0)
    # A disturbed seed does not matter: GRPO took 4 s of EBPO's 10, so 100 steps, validated as often; S = 1 took 12.
    longer = [job for stage, job in wanted(PLAN, done) if stage == "equal_time"]
    assert {(j.arm, j.steps) for j in longer} == {("grpo", 100), (labels.FULL_SHRINKAGE, 35)} and len(longer) == 6
    assert PLAN.settings(longer[0]).eval_every == 25
    assert replace(PLAN.settings(longer[0]), steps=40, eval_every=10, checkpoint_every=40) == PLAN.settings(small[0])
    assert not [s for s, _ in wanted(replace(PLAN, equal_time=False), done) if s == "equal_time"]


def test_one_rate_needs_no_tuning() -> None:
    """Guards the short plan: with a single rate no run is spent on choosing it, and it is no edge."""
    plan = replace(PLAN, rates=(3e-4,))
    assert {stage for stage, _ in wanted(plan, {})} == {"evaluation"}
    assert not plans.choices(plan.plan, LanguageModel(plan, HERE, HERE), {})["ebpo", Cell(4, "topic")].edge


def test_interpolation_by_hand() -> None:
    """Guards comparing per second between records of a curve, and whose seconds count."""
    assert analysis.value_at([0, 2, 6], [0.1, 0.3, 0.5], 3) == pytest.approx(0.35)
    assert analysis.value_at([0, 2, 6], [0.1, 0.3, 0.5], 6) == 0.5
    with pytest.raises(AssertionError, match="beyond its end"):
        analysis.value_at([0, 2, 6], [0.1, 0.3, 0.5], 6.1)
    assert (
        compare_runner.clock_arm(["grpo", "rloo", "ebpo"]) == "ebpo"
        and compare_runner.clock_arm(["grpo", "rloo"]) == "rloo"
    )
    lines = [[{"x": 0, "validation_pass1": 0.0}, {"x": x, "validation_pass1": 0.1}] for x in (1, 2)]
    assert compare_plots.mean_curve(lines, "x", 3) == ([0, 0.5, 1], pytest.approx([0, (5 + 2.5) / 2, (10 + 5) / 2]))


def made_up(job: Job) -> dict:
    """EBPO gains 2 points at G = 2 in every seed, none elsewhere but noise, and takes 2.5 times as long."""
    noise = {0: 0.0, 1: 0.004, 2: -0.003}[job.seed]
    gain = 0.02 + noise / 50 if (job.arm, job.cell.group_size) == ("ebpo", 2) else noise if job.arm == "ebpo" else 0.0
    pace = 0.25 if job.arm == "ebpo" else 0.1
    return record(0.3 + 10 * job.rate + gain + 0.01 * (job.seed) + (job.steps - 40) / 1000, pace * job.steps)


@pytest.fixture(scope="module")
def found() -> tuple[list[dict], list[dict], list[dict]]:
    done = finished(PLAN, made_up)
    runs, curves = compare_runner.tables_of(LanguageModel(PLAN, HERE, HERE), done)
    return runs, curves, analysis.findings(runs, curves)


def test_findings_of_a_made_up_comparison(found: tuple[list[dict], ...]) -> None:
    """Guards the way from runs to verdicts: a known effect is found with its size, a null is said to be one."""
    rows = found[2]
    row = compare_text.pick(rows, Cell(2, "shuffled"), "ebpo", "final", "grpo")
    assert row is not None and row["value"] == pytest.approx(0.02 + 0.001 / 3 / 50) and row["verdict"] == "appears"
    family = [r for r in rows if r["measure"] == "final" and r["reference"]]
    assert len(family) == 4 * (3 + 1 + 1) and {r["comparisons"] for r in family} == {20}
    assert row["p_holm"] == pytest.approx(20 * row["p"]) or row["p_holm"] > 20 * row["p"]
    null = compare_text.pick(rows, Cell(8, "shuffled"), "ebpo", "final", "grpo")
    assert null is not None and null["verdict"] == "no difference seen" and null["low"] < 0 < null["high"]
    assert {r["edge"] for r in rows} == {True}  # 1e-3 is better than 1e-4 and the end of the grid
    # GRPO ends after 4 s; EBPO's line is then at 4 of its 10 s.
    early = compare_text.pick(rows, Cell(4, "topic"), "ebpo", "common_time")
    ends = [0.3 + 0.01 + n + 0.01 * s for s, n in ((0, 0.0), (1, 0.004), (2, -0.003))]
    assert early is not None and early["value"] == pytest.approx(sum(0.1 + 0.4 * (e - 0.1) for e in ends) / 3)
    # At equal time GRPO has 100 steps, 60 more at 0.1 points each.
    gap = compare_text.pick(rows, Cell(2, "shuffled"), "ebpo", "equal_time", "grpo")
    assert gap is not None and gap["value"] == pytest.approx(row["value"] - 0.06)
    steps = compare_text.pick(rows, Cell(2, "shuffled"), "grpo", "equal_time_steps")
    assert steps is not None and steps["value"] == 100


def test_times_of_different_invocations_are_not_compared(found: tuple[list[dict], ...]) -> None:
    """Guards seconds: a seed whose arms ran in two invocations leaves the clock's comparison; a machine, both."""
    runs, curves, _ = found
    there = (4, "topic")

    def changed(**what: Any) -> dict[str, dict[str, dict[int, float]]]:
        odd = [r | what if (r["arm"], r["seed"], r["group_size"]) == ("grpo", 1, 4) else r for r in runs]
        return analysis.values(odd, curves)[there]

    other = changed(invocation="another")
    assert sorted(other["common_time"]["ebpo"]) == [0, 2] and sorted(other["equal_time"]["grpo"]) == [0, 1, 2]
    other = changed(machine="another")
    assert sorted(other["common_time"]["ebpo"]) == [0, 2] and sorted(other["equal_time"]["grpo"]) == [0, 2]
    assert sorted(other["final"]["grpo"]) == [0, 1, 2]


def test_arms_have_readable_names() -> None:
    """Guards the tables: known arms by their names, settings after them, unknown presets as they are."""
    arms = (
        "grpo",
        labels.NO_SHRINKAGE,
        "ebpo_debiased:memory=0.95,per_cluster=True",
        "ebpo:memory=0.9",
        "mine:x=1",
    )
    assert [compare_text.name(arm) for arm in arms] == [
        "GRPO", "EBPO, S = 0", "EBPO debiased, memory 0.95, per_cluster True", "EBPO, memory 0.9", "mine, x 1",
    ]  # fmt: skip


def test_the_text_says_null_results_and_missing_intervals(found: tuple[list[dict], ...]) -> None:
    """Guards honesty: not resolved is written out, a single seed has no interval, an edge of the grid is named."""
    runs, curves, rows = found
    said = "\n".join(compare_text.verdicts(rows, Cell(8, "shuffled")))
    assert "EBPO − GRPO at equal steps: +0.03 points (95 % interval" in said and "no difference seen" in said
    assert "A step of GRPO takes 0.40 of the time of EBPO's" in said and "At the edge of the grid" in said
    steps = compare_text.nulls(rows).splitlines()[0]
    assert (
        "3 of 20 differences exclude 0 after correction: EBPO − GRPO at G = 2, shuffled (+2.00)" in steps
        and "G = 4" not in steps
    )
    assert "over 2 other seeds" in compare_text.about(rows, runs) and "3 paired seeds" in compare_text.about(rows, runs)
    one = [r for r in runs if r["seed"] == 0]
    single = analysis.findings(one, curves)
    assert {r["verdict"] for r in single if r["reference"]} == {"no interval"}
    assert "(one seed: no interval)" in compare_text.text(single, one)
    table = compare_text.markdown(rows, runs)
    assert table.count("| GRPO |") == 8 and {line.count("|") for line in table.splitlines() if "|" in line[:2]} == {
        9,
        10,
    }


def test_the_curve_of_a_run() -> None:
    """Guards what a run keeps: means since the last validation, seconds without validating and measuring."""
    plain = dict.fromkeys(compare_runner.TRACED, 0.0)
    rows = [
        {**plain, "step": i + 1, "reward": float(i), "shrinkage": None if i < 2 else 0.25, "seconds_sample": 1.0,
         "seconds_update": 2.0, "seconds_measure": 50.0, "seconds_validate": 70.0, "validation_se": 0.1,
         "validation_pass1": 0.2 + i / 10 if i in (1, 4) else None}
        for i in range(5)
    ]  # fmt: skip
    start, first, second = compare_runner.curve(rows, [0.15, 0.01])
    assert (start["step"], start["seconds"], start["validation_pass1"], start["reward"]) == (0, 0.0, 0.15, None)
    assert (first["step"], first["seconds"], first["reward"], first["shrinkage"]) == (2, 6.0, 0.5, None)
    assert (second["step"], second["seconds"], second["reward"], second["shrinkage"]) == (5, 15.0, 3.0, 0.25)
    assert compare_runner._over_training([first, second], "reward") == 2.0
    assert compare_runner._over_training([first, second], "shrinkage") == 0.25
    assert compare_runner._over_training([first], "shrinkage") is None


class Fake:
    """A `train` that writes what a run needs, counts its calls, and fails or is interrupted where it is told to."""

    def __init__(self, fail: dict[int, BaseException] | None = None) -> None:
        self.calls: list[Settings] = []
        self.fail = fail or {}

    def __call__(self, settings: Settings, out: Path, cache: Path, resume: bool = False) -> dict[str, Any]:
        self.calls.append(settings)
        if len(self.calls) in self.fail:
            raise self.fail[len(self.calls)]
        out.mkdir(parents=True, exist_ok=True)
        plain = dict.fromkeys(compare_runner.TRACED, 0.5)
        rows = [
            {**plain, "step": step, "seconds_update": 0.1, "validation_se": 0.01,
             "validation_pass1": 0.3 if step % settings.eval_every == 0 or step == settings.steps else None}
            for step in range(1, settings.steps + 1)
        ]  # fmt: skip
        (out / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return {"validation_pass1": {"all": {"start": [0.2, 0.01], "end": [0.3, 0.01]}}}

    def trained(self) -> list[Settings]:
        """The calls without the warm-up's single step."""
        return [s for s in self.calls if s.steps > 1]


SHORT = replace(PLAN, arms=("grpo", "ebpo"), group_sizes=(4,), orders=("shuffled",), seeds=2, tuning_seeds=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def put(**fail: Any) -> Fake:
        made = Fake(**fail)
        monkeypatch.setattr(compare_runner, "train", made)
        return made

    return put


def test_an_interrupted_comparison_goes_on_where_it_was(fake: Callable[..., Fake], tmp_path: Path) -> None:
    """Guards resuming: finished runs are not trained again, others are, whichever call was interrupted."""
    stopped = fake(fail={5: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        simulate(SHORT, tmp_path)
    assert len(stopped.trained()) == 4 and len(list((tmp_path / "runs").iterdir())) == 3
    rest = fake()
    done, failed = simulate(SHORT, tmp_path)
    assert len(rest.trained()) == 8 - 3 and rest.calls[0].steps == 1 and failed == []
    assert len(done) == 8 and not {*stopped.trained()[:3]} & {*rest.trained()}
    whole = fake()
    again, _ = simulate(SHORT, tmp_path)
    assert whole.calls == [] and again == done  # not even a warm start
    assert progress(SHORT, done) == "All 8 runs are done (tuning 4 of 4, evaluation 4 of 4)."
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}  # rollouts are not kept


def test_damaged_and_foreign_files_are_done_again(
    fake: Callable[..., Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the store: a cut file, one without a curve and one of other settings are said to be and replaced."""
    fake()
    done, _ = simulate(SHORT, tmp_path)
    files = sorted((tmp_path / "runs").iterdir())
    files[0].write_text(files[0].read_text()[:100])
    files[1].write_text(files[2].read_text())
    files[3].write_text(json.dumps(json.loads(files[3].read_text()) | {"curve": []}))
    repaired = fake()
    again, _ = simulate(SHORT, tmp_path)
    assert len(repaired.trained()) == 3 and again.keys() == done.keys()
    said = capsys.readouterr()
    assert said.err.count("is damaged") == 3 and "damaged" not in said.out
    other = fake()
    simulate(replace(SHORT, base=replace(SHORT.base, hidden=32)), tmp_path)
    assert len(other.trained()) == 8  # another model's runs are not these


def test_a_failed_run_does_not_cost_the_others(fake: Callable[..., Fake], tmp_path: Path) -> None:
    """Guards long comparisons: a crash is reported after the rest is done; settings that are refused stop at once."""
    fake(fail={7: RuntimeError("weights are not finite")})
    done, failed = simulate(SHORT, tmp_path)
    assert len(done) == 7 and len(failed) == 1 and "weights are not finite" in failed[0]
    fake(fail={1: InputError("--prompts must be less")})
    with pytest.raises(InputError, match="--prompts must be less"):
        simulate(replace(SHORT, budget=128), tmp_path)


def test_the_wall_clock_limit(
    fake: Callable[..., Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards --minutes: no run is started that would end later, and the command can be repeated until all are done."""
    clock = [0.0]
    monkeypatch.setattr(engine.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(compare_runner.time, "perf_counter", lambda: clock[0])
    command = [*SMALL, "--estimator", "rloo", "--lr", "1e-3", "--seeds", "4", "--jobs", "1", "--minutes", "1"]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path)]
    for before, after in ((0, 4), (4, 8)):  # 13 s each: four end within a minute, the fifth would not
        made = fake()
        plain = made.__call__

        def slow(settings: Settings, *rest: Any, plain: Any = plain) -> dict[str, Any]:
            clock[0] += 13.0 if settings.steps > 1 else 0.0
            return plain(settings, *rest)

        monkeypatch.setattr(compare_runner, "train", slow)
        compare.main(command)
        assert len(list((tmp_path / "out" / "runs").iterdir())) == after and len(made.trained()) == after - before
        said = capsys.readouterr().out
        assert ("4 of 8 runs done" in said and "repeat the command to go on" in said) == (after == 4)
    assert "All 8 runs are done" in said


def test_a_tiny_comparison_from_command_to_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Guards the whole way with real training in worker processes: files, pairing, report and published table."""
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    compare.main([*SMALL, "--quick", "--lr", "3e-3", "--lr", "6e-3", "--tuning-seeds", "1", "--jobs", "2", *folders])
    said = capfd.readouterr().out
    assert "EBPO, S = 0" in said and "EBPO − EBPO, S = 1 at equal steps" in said and "runs are done" in said
    assert "from the cache" not in said  # what single runs say in their processes is not repeated
    out = tmp_path / "out"
    runs, curves = compare.stored(out)
    evaluation = [r for r in runs if r["stage"] == "evaluation"]
    assert len([r for r in runs if r["stage"] == "tuning"]) == 8 and len(evaluation) == 8
    assert len({r["start"] for r in runs if r["stage"] == "evaluation"}) == 1  # one warm start
    by_arm = {(r["arm"], r["seed"]): r for r in evaluation}
    assert by_arm["ebpo", 0]["rows_trained"] > by_arm["grpo", 0]["rows_trained"]
    assert by_arm[labels.FULL_SHRINKAGE, 0]["shrinkage"] == 1.0 and 0 < by_arm["ebpo", 0]["shrinkage"] < 1
    # The first batch is the same for all arms of a seed, so its reward is; another seed's is another.
    first = {(c["arm"], c["seed"]): c for c in curves if c["stage"] == "evaluation" and c["step"] == 1}
    assert len({first[arm, 0]["reward"] for arm, seed in first if seed == 0}) == 1
    assert {p.name for p in out.iterdir()} == {
        "runs", "runs.csv", "curves.csv", "compare.csv", "compare.md", "compare.png", "summary.json",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary["runs"]["evaluation"] == 8 and len(summary["tuning"]) == 4 and "cores" in summary["machines"][0]
    before = {p.name: p.read_bytes() for p in out.glob("compare.*")}
    compare.main(["--report", *folders])
    assert before == {p.name: p.read_bytes() for p in out.glob("compare.*")}  # the tables hold all of it
    monkeypatch.setattr(compare_runner, "train", None)
    compare.main(["--publish", str(tmp_path / "curves.csv"), *folders])
    table = (tmp_path / "curves.csv").read_text().splitlines()
    assert table[0].startswith("estimator,group_size,order,learning_rate,metric,step,value,se,difference,")
    assert table[0].endswith(",difference_se,seeds,p_holm")
    assert len(table) == 1 + 4 * (5 + 5 * 4)  # pass@1 also of the warm start; four validations of six metrics
    monkeypatch.setattr(compare, "LARGEST", 1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        compare.main(["--publish", str(tmp_path / "curves.csv"), *folders])
    assert (tmp_path / "curves.csv").read_text().splitlines() == table


def test_curves_of_several_seeds_by_hand() -> None:
    """Guards the published table: means over seeds, differences paired, GRPO without any, other stages left out."""
    curves = [
        {"stage": stage, "arm": arm, "group_size": 4, "order": "shuffled", "learning_rate": 0.1, "seed": seed,
         "step": 8, "reward": value}
        for stage, arm, seed, value in (
            ("evaluation", "grpo", 0, 0.2), ("evaluation", "grpo", 1, 0.4), ("evaluation", "ebpo", 0, 0.3),
            ("evaluation", "ebpo", 1, 0.7), ("equal_time", "grpo", 0, 9.0), ("tuning", "ebpo", 0, 9.0),
        )
    ]  # fmt: skip
    plain, mine = curve_rows(analysis.evaluation([], curves), ["reward"])
    assert (plain["value"], plain["difference"], plain["seeds"]) == (pytest.approx(0.3), None, 2)
    assert (mine["value"], mine["difference"]) == (pytest.approx(0.5), pytest.approx(0.2))
    assert mine["se"] == pytest.approx(0.2) and mine["difference_se"] == pytest.approx(0.1)


def test_the_published_table_is_what_the_figures_need(found: tuple[list[dict], ...], tmp_path: Path) -> None:
    """Guards its size: whole curves at G = 4 in the first order, elsewhere the last pass@1 of each arm."""
    compare.publish(found[0], found[1], tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    curves = [r for r in rows if (r["group_size"], r["order"]) == ("4", "shuffled")]
    assert len(curves) == 4 * (3 + 5 * 2) and {r["metric"] for r in curves} == {*compare.PUBLISHED.values()}
    others = [r for r in rows if r not in curves]
    assert {(r["metric"], r["step"]) for r in others} == {("pass1", "40")} and len(others) == 3 * 4


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--estimator", "grpoo"], "unknown estimator 'grpoo': did you mean 'grpo'"),
        (["--estimator", "oracle_bayes"], "needs true_prior"),
        (["--group-size", "3"], "--group-size must divide the 256 rollouts of a step, got 3"),
        (["--group-size", "0"], "--group-size must divide"),
        (["--lr", "-1"], "--lr must be positive"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--seeds", "1001"], "--seeds must be at most 1000"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--set", "hiden=3"], "unknown setting 'hiden': did you mean 'hidden'"),
        (["--set", "hidden=wide"], "--set hidden must be int, got 'wide'"),
        (["--set", "lr=1"], "--set must be NAME=VALUE with a setting that has no option here"),
        (["--report"], "runs.csv' does not exist"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards refusals: before any run, with the argument, the value and the remedy, and no file left behind."""
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["compare", *argv, *folders])
    with pytest.raises(SystemExit) as stopped:
        cli.run(compare.main)
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


DAMAGED = {
    "empty": b"", "binary": bytes(range(256)), "NUL": b"run,\0stage\n\0", "other columns": b"a,b\n1,2\n",
    "no rows": None, "short line": b"x", "words for numbers": b"wide", "infinite": b"inf",
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("name", ["runs.csv", "curves.csv"])
@pytest.mark.parametrize("option", ["--report", "--publish"])
def test_damaged_tables_are_refused_in_one_line(what: str, name: str, option: str, tmp_path: Path) -> None:
    """Guards what reads the tables again: nothing is drawn from a damaged one, and the refusal says to run again."""
    measured = Path(compare.__file__).parent / "measured" / "compare"
    for table in ("runs.csv", "curves.csv"):
        (tmp_path / table).write_bytes((measured / table).read_bytes())
    lines = (tmp_path / name).read_bytes().splitlines()
    content = DAMAGED[what]
    if what in ("words for numbers", "infinite"):
        content = b"\n".join([*lines[:2], lines[2].replace(b",0.0003,", b"," + content + b",", 1)])
    elif what == "short line":
        content = b"\n".join([*lines[:2], lines[2][:30]])
    (tmp_path / name).write_bytes(lines[0] + b"\n" if content is None else content)
    kept = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError, match="run the comparison again") as refusal:
        compare.main([option, *([str(tmp_path / "o")] if option == "--publish" else []), "--out", str(tmp_path)])
    assert "\n" not in str(refusal.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == kept


def test_a_partial_comparison_has_a_folder_of_its_own() -> None:
    """Guards full results: options that change numbers name a folder below the default's, and their report finds it."""
    home = "results/llm/compare"
    assert compare.parse([]).out == compare.parse(["--jobs", "1", "--minutes", "3", "--report"]).out == home
    assert compare.parse(["--quick"]).out == compare.parse(["--quick", "--report", "--json"]).out == f"{home}/quick"
    assert compare.parse(["--group-size", "2", "--lr", "6e-4"]).out == f"{home}/group-size=2,lr=0.0006"
    assert compare.parse(["--quick", "--out", "there"]).out == "there"


def test_one_comparison_a_folder(fake: Callable[..., Fake], tmp_path: Path) -> None:
    """Guards the lock: while one comparison runs in a folder, another there, or its report, is refused."""
    fake()
    measured = Path(compare.__file__).parent / "measured" / "compare"
    for table in ("runs.csv", "curves.csv"):
        (tmp_path / table).write_bytes((measured / table).read_bytes())
    with report.locked(tmp_path):
        for more in ([], ["--report"]):
            with pytest.raises(InputError, match="in use by another run"):
                compare.main(["--quick", "--jobs", "1", *more, "--out", str(tmp_path), "--cache", str(tmp_path)])


def test_arms_are_methods() -> None:
    """Guards arms: any text that llm/train.py takes, each part of it in the run's key; others are refused."""
    from llm.compare_runner import method_of

    assert len(method_of("grpo + cispo:high=0.2 + dynamic:batches=2").objectives) == 1
    with pytest.raises(InputError, match="unknown part of a method 'clup'"):
        method_of("grpo + clup")
