"""The training study: its table against plain arithmetic, same bytes however it is run, its verdicts, its refusals."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim import cache
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import METRICS, train
from ebpo_sim.compare.plan import Job, Series
from ebpo_sim.compare.tables import final
from ebpo_sim.errors import InputError
from ebpo_sim.studies.training import cells, study
from ebpo_sim.studies.training.findings import Found, findings
from ebpo_sim.studies.training.plots import plot

TINY = replace(
    study.QUICK, worlds=("chain",), estimators=("grpo", "ebpo"), group_sizes=(2, 16), optimisers=("sgd",),
    population=40, validation=10, prompts=8, steps=6, record_every=2, gradient_redraws=2, seeds=3, tuning_seeds=1,
    minibatches=2, sgd_rates=(1.0, 8.0),
)  # fmt: skip
KEYS = ["estimator", "world", "group_size", "optimiser", "order", "tuning", "learning_rate", "edge", "metric", "step",
        "value", "se", "difference", "difference_se", "seeds"]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found, study.Rows]:
    out = tmp_path_factory.mktemp("study")
    found = study.simulate(TINY, out, 1)
    return out, found, study.table(found)


def test_rows_are_the_promised_table(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards the table's form: its keys, its cells, differences for all but the reference."""
    _, _, rows = done
    assert all(list(r) == KEYS for r in rows)
    assert {r["metric"] for r in rows} == set(METRICS)
    assert {(r["estimator"], r["group_size"], r["order"], r["tuning"]) for r in rows} == {
        *((e, g, "shuffled", t) for e in ("grpo", "ebpo") for g in (2, 16) for t in ("own", "shared")),
        *((e, 2, "blocked", "own") for e in ("grpo", "ebpo")),
    }
    assert all((r["difference"] is None) == (r["estimator"] == "grpo") for r in rows if r["metric"] == "pass1")
    ends = final(rows, "entropy")
    assert len(ends) == 10
    assert {r["step"] for r in ends} == {6}
    assert final([], "entropy") == []


def test_a_row_is_the_paired_mean_of_its_runs(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards value, se and paired difference: recomputed from runs made here, one by one."""
    _, found, rows = done
    cell = cells.Cell("chain", 2, "sgd", "blocked")
    row = next(
        r for r in final(rows, "pass1") if (r["estimator"], r["group_size"], r["order"]) == ("ebpo", 2, "blocked")
    )
    ends = {}
    for name in ("grpo", "ebpo"):
        jobs = [Job(name, cell, found[name, cell, "own"].rate, s, TINY.steps) for s in range(3)]
        ends[name] = np.array(
            [
                train(parse_population("chain", 40, job.seed, 10), cells.config(TINY, job)).values["pass1"][-1]
                for job in jobs
            ]
        )
    gap = ends["ebpo"] - ends["grpo"]
    expected = (ends["ebpo"].mean(), ends["ebpo"].std(ddof=1) / 3**0.5, gap.mean(), gap.std(ddof=1) / 3**0.5)
    assert (row["value"], row["se"], row["difference"], row["difference_se"]) == pytest.approx(expected, rel=1e-12)


def test_every_method_is_tuned_with_the_same_budget(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards fairness: one grid, as many runs; the best rate is used, the shared one is GRPO's best."""
    out, found, _ = done
    chains, plan = cells.Chains(TINY), cells.plan(TINY)
    for arm, cell in plan.places():
        jobs = [Job(arm, cell, rate, 0, TINY.steps, True) for rate in (1.0, 8.0)]
        scores = [chains.score(cache.load(out / "cells" / f"{chains.key(job)}.json")) for job in jobs]
        best = found[arm, cell, "own"]
        assert (best.rate, best.edge) == ((1.0, 8.0)[int(np.argmax(scores))], True)
        if cell in plan.shared:
            assert found[arm, cell, "shared"].rate == found["grpo", cell, "own"].rate
    assert {(cell.order, tuning) for _, cell, tuning in found} == {
        ("shuffled", "own"), ("blocked", "own"), ("shuffled", "shared"),
    }  # fmt: skip


def test_killed_and_resumed_gives_the_same_table(done: tuple[Path, Found, study.Rows], tmp_path: Path) -> None:
    """Guards resumption: from half of the files, one damaged, the same table; nothing whole is redone."""
    out, _, rows = done
    (tmp_path / "cells").mkdir()
    kept = sorted((out / "cells").iterdir())[::2]
    for path in kept:
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "cells" / kept[0].name
    broken.write_bytes(kept[0].read_bytes()[:-9])
    before = (tmp_path / "cells" / kept[1].name).stat().st_mtime_ns
    assert study.rows(TINY, tmp_path) == rows
    assert (tmp_path / "cells" / kept[1].name).stat().st_mtime_ns == before
    assert broken.read_bytes() == kept[0].read_bytes()


def test_threads_do_not_change_a_byte(done: tuple[Path, Found, study.Rows], tmp_path: Path) -> None:
    """Guards reproducibility: two worker processes write the files that one wrote."""
    out, _, rows = done
    assert study.rows(TINY, tmp_path, 2) == rows
    for path in (out / "cells").iterdir():
        assert (tmp_path / "cells" / path.name).read_bytes() == path.read_bytes()


def test_a_file_belongs_to_its_settings_only() -> None:
    """Guards the cache: whatever changes a job's result changes its name; what does not, does not."""
    job = Job("ebpo", cells.Cell("chain", 2, "sgd", "shuffled"), 1.0, 0, TINY.steps)

    def key(settings: cells.Settings, job: Job) -> str:
        return cells.Chains(settings).key(job)

    same = replace(TINY, worlds=("bandit:beta:2,3",), seeds=9, tuning_seeds=2, sgd_rates=(3.0,))
    assert key(same, job) == key(TINY, job)
    sizes = ("prompts", "population", "validation", "seed", "kl", "epochs", "record_every")
    others = [key(replace(TINY, **{name: getattr(TINY, name) + 1}), job) for name in sizes]
    runs = ({"rate": 2.0}, {"tuning": True}, {"seed": 1}, {"steps": 7}, {"arm": "ebpo:memory=0.9"})
    changed = [job._replace(**change) for change in runs]
    cell = ({"order": "blocked"}, {"world": "bandit:beta:2,3"}, {"group_size": 3}, {"optimiser": "adam"})
    changed += [job._replace(cell=job.cell._replace(**change)) for change in cell]
    others += [key(TINY, other) for other in changed]
    assert len({key(TINY, job), *others}) == len(others) + 1


def synthetic(shift: float, seeds: int = 20) -> Found:
    """A study whose ebpo is ahead of grpo by `shift` in pass1, behind in entropy by as much; noise 0.01 a seed."""
    found: Found = {}
    for arm, cell in cells.plan(TINY).places():
        rng = np.random.default_rng(len(found))
        ramp = np.linspace(0.2, 0.6, 5) * np.ones((seeds, 1))
        own = shift * (arm == "ebpo") * np.linspace(0, 1, 5)
        values = {m: np.ones((seeds, 5)) for m in METRICS}
        values["pass1"] = ramp + own + rng.normal(0, 0.01, (seeds, 5)) * np.linspace(0, 1, 5)
        values["entropy"] = 1 - ramp - own
        curves = {s: [{m: values[m][s, t] for m in METRICS} | {"step": t} for t in range(5)] for s in range(seeds)}
        for tuning in ("own", "shared") if cell.order == "shuffled" else ("own",):
            found[arm, cell, tuning] = Series(arm, cell._asdict(), 1.0, False, curves)
    return found


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "appears"), (-0.1, "the opposite"), (0.0, "no difference seen")])
def test_verdicts_follow_the_interval(shift: float, verdict: str) -> None:
    """Guards the findings' sign: a known gain, loss or nothing is called that; interval = mean ± t se by hand."""
    told = findings(TINY, synthetic(shift))
    gain = next(r for r in told if r["finding"].startswith("higher pass@1"))
    assert gain["verdict"] == verdict
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert gain["high"] - gain["value"] == pytest.approx(2.093024 * gain["se"], rel=1e-6)
    entropy = next(r for r in told if r["finding"] == "higher entropy")
    opposite = {"appears": "the opposite", "the opposite": "appears"}
    assert entropy["verdict"] == opposite.get(verdict, verdict)


def test_entropy_is_compared_at_equal_success() -> None:
    """Guards the fair comparison: 1 - p on both sides leaves no gap, however fast each learns."""
    told = findings(TINY, synthetic(0.2))
    equal = [r for r in told if r["finding"] == "higher entropy at equal pass@1"]
    assert equal
    assert all(abs(r["value"]) < 0.02 for r in equal)


def test_all_findings_are_told(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards completeness: each of the paper's findings has a line, and the text shows every cell."""
    _, found, rows = done
    told = findings(TINY, found)
    text = study.show(TINY, rows, told)
    for finding in ("higher entropy", "non-vanishing gradient norm", "bounded KL", "gains largest at small G",
                    "blocked order helps", "ahead of grpo in blocked order", "higher pass@1 at the end"):  # fmt: skip
        assert any(r["finding"] == finding for r in told)
        assert finding in text
    assert "one shared rate" in text and "At the edge of the grid of learning rates" in text
    assert all(set(r) >= {"value", "se", "low", "high", "verdict"} for r in told)


def test_figures_hold_every_estimator(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards the figures: a curve a method in each panel, gains with error bars."""
    _, _, rows = done
    figures = plot(rows)
    assert set(figures) == {"gains.png", "curves_sgd_own.png", "curves_sgd_shared.png"}
    panel = figures["curves_sgd_own.png"].axes[0]
    assert [line.get_label() for line in panel.lines] == ["grpo", "ebpo"]
    assert len(panel.collections) == 2


def test_the_command_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the program: options reach the settings; table, findings, summary and figures are there."""
    monkeypatch.setattr(study, "QUICK", TINY)
    argv = ["--quick", "--threads", "1", "--out", str(tmp_path), "--group-size", "2", "--seeds", "2", "--json"]
    study.main(argv)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["settings"]["seeds"], summary["settings"]["group_sizes"]) == (2, [2])
    with (tmp_path / "table.csv").open() as file:
        assert list(next(csv.DictReader(file))) == KEYS
    assert {p.name for p in tmp_path.iterdir()} >= {"summary.json", "findings.csv", "gains.png", "curves_sgd_own.png"}


def test_options_name_the_settings() -> None:
    """Guards the command line: what is named replaces the default, grpo and shuffled stay."""
    args = study.parse(
        ["--estimator", "ebpo", "--order", "blocked", "--optimiser", "adam", "--steps", "50", "--seed", "3"]
    )
    made = study.settings_from(args)
    assert (made.estimators, made.swept, made.orders) == (("ebpo",), ("ebpo",), ("shuffled", "blocked"))
    assert (made.optimisers, made.steps, made.record_every, made.seed) == (("adam",), 50, 5, 3)
    assert next(cells.plan(made).places())[0] == "grpo"
    assert study.SETTINGS.seeds >= 20
    study.SETTINGS.check()
    study.QUICK.check()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": 1}, "seeds must be at least 2"),
        ({"tuning_seeds": 0}, "tuning_seeds"),
        ({"estimators": ("gpro",)}, "unknown estimator"),
        ({"worlds": ("chian",)}, "did you mean 'chain'"),
        ({"orders": ("blocked",)}, "orders must begin with 'shuffled'"),
        ({"worlds": ()}, "worlds must not be empty"),
        ({"optimisers": ("sdg",)}, "unknown optimiser"),
        ({"group_sizes": (0,)}, "group_size"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change: dict[str, object], says: str, tmp_path: Path) -> None:
    """Guards refusals: one line, and no file is written."""
    with pytest.raises(InputError, match=says):
        study.rows(replace(TINY, **change), tmp_path / "none")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
