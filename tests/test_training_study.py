"""The training study: its table against plain arithmetic, same bytes however it is run, its verdicts, its refusals."""

from __future__ import annotations

import csv
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim import cache
from ebpo_sim.chains.noise import noise
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import METRICS, TrainingConfig, train
from ebpo_sim.compare.plan import Job, Series
from ebpo_sim.compare.tables import final
from ebpo_sim.counts import noise as exact_noise
from ebpo_sim.counts.exact import rule
from ebpo_sim.errors import InputError
from ebpo_sim.studies import regimes
from ebpo_sim.studies.noise.study import advantages
from ebpo_sim.studies.regimes import REGIMES, Size
from ebpo_sim.studies.training import cells, study
from ebpo_sim.studies.training.findings import Found, findings
from ebpo_sim.studies.training.outcomes import outcomes
from ebpo_sim.studies.training.placement import placement, sentence
from ebpo_sim.studies.training.plots import plot
from ebpo_sim.worlds import parse_world

TINY = replace(
    study.QUICK, worlds=("chain",), estimators=("grpo", "ebpo"), swept=("grpo", "ebpo"), group_sizes=(2, 16),
    regimes=("noisy",), optimisers=("sgd",), population=40, validation=10, steps=6, records=3, gradient_redraws=2,
    seeds=3, tuning_seeds=1, thin=6,
)  # fmt: skip
RATES = REGIMES["noisy"].sgd_end[::6]
KEYS = ["estimator", "world", "regime", "group_size", "optimiser", "order", "rollouts", "noise_ratio", "tuning",
        "learning_rate", "edge", "metric", "step", "value", "se", "difference", "difference_se", "seeds"]  # fmt: skip
SIZE = Size("chain", "noisy", 32, 960.0, 10.0, 30.0)


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
        *((e, g, "shuffled", t) for e in ("grpo", "ebpo") for g, t in ((2, "own"), (16, "own"), (2, "shared"))),
        *((e, 2, "blocked", "own") for e in ("grpo", "ebpo")),
    }
    assert all((r["difference"] is None) == (r["estimator"] == "grpo") for r in rows if r["metric"] == "pass1")
    ends = final(rows, "entropy")
    assert len(ends) == 8
    assert {r["step"] for r in ends} == {6}
    assert final([], "entropy") == []


def test_a_row_is_the_paired_mean_of_its_runs(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards value, se and paired difference: recomputed from runs made here, one by one."""
    _, found, rows = done
    cell = next(cell for _, cell, _ in found if cell.order == "blocked")
    row = next(
        r for r in final(rows, "pass1") if (r["estimator"], r["group_size"], r["order"]) == ("ebpo", 2, "blocked")
    )
    ends = {}
    for name in ("grpo", "ebpo"):
        jobs = [Job(name, cell, found[name, cell, "own"].rate, s, 6) for s in range(3)]
        ends[name] = np.array(
            [
                train(parse_population("chain", 40, job.seed, 10, 32, 32), cells.config(TINY, job)).values["pass1"][-1]
                for job in jobs
            ]
        )
    gap = ends["ebpo"] - ends["grpo"]
    expected = (ends["ebpo"].mean(), ends["ebpo"].std(ddof=1) / 3**0.5, gap.mean(), gap.std(ddof=1) / 3**0.5)
    assert (row["value"], row["se"], row["difference"], row["difference_se"]) == pytest.approx(expected, rel=1e-12)


def test_every_method_is_tuned_with_the_same_budget(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards fairness: one grid, as many runs; the best rate is used, the shared one is GRPO's best."""
    out, found, _ = done
    chains, plan = cells.Chains(TINY), cells.plan(TINY, study.sizes(TINY, out / "cells"))
    for arm, cell in plan.places():
        jobs = [Job(arm, cell, rate, 0, 6, True) for rate in RATES]
        scores = [chains.score(cache.load(out / "cells" / f"{chains.key(job)}.json")) for job in jobs]
        best = found[arm, cell, "own"]
        assert (best.rate, best.edge) == (RATES[int(np.argmax(scores))], True)
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
    job = Job("ebpo", cells.Cell("chain", "noisy", 2, "sgd", "shuffled", 32, 30.0), 1.0, 0, 6)

    def key(settings: cells.Settings, job: Job) -> str:
        return cells.Chains(settings).key(job)

    same = replace(TINY, worlds=("bandit:beta:2,3",), seeds=9, tuning_seeds=2, thin=1)
    assert key(same, job) == key(TINY, job) == key(TINY, job._replace(cell=job.cell._replace(noise_ratio=3.0)))
    sizes = {"population": 41, "validation": 11, "seed": 1, "kl": 0.1, "records": 2, "steps": 7}
    others = [key(replace(TINY, **{name: value}), job) for name, value in sizes.items()]
    changed = [job._replace(**c) for c in ({"rate": 2.0}, {"tuning": True}, {"seed": 1}, {"arm": "ebpo:memory=0.9"})]
    cell = ({"order": "blocked"}, {"world": "bandit:beta:2,3"}, {"group_size": 4}, {"optimiser": "adam"},
            {"regime": "plateau"}, {"rollouts": 64})  # fmt: skip
    changed += [job._replace(cell=job.cell._replace(**change)) for change in cell]
    others += [key(TINY, other) for other in changed]
    assert len({key(TINY, job), *others}) == len(others) + 1


def test_sizes_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards N and nu/N: nu of GRPO at G = 4 as `chains.noise` has it, N by the regime's ratio; then kept."""
    (first,) = regimes.sizes(TINY, tmp_path)
    config = TrainingConfig(estimator="grpo", group_size=4, prompts=32)
    known = noise(parse_population("chain", 40, 0, 10, 32, 32), config)
    assert (first.nu, first.nu_se, first.rollouts) == (known.nu, known.nu_se, 32)
    assert first.ratio == known.nu / 32 and first[:2] == ("chain", "noisy")
    monkeypatch.setattr(regimes, "noise", None)  # would fail if asked again
    assert regimes.sizes(TINY, tmp_path) == [first]


def synthetic(shift: float, seeds: int = 20, size: Size = SIZE) -> Found:
    """A study whose ebpo is ahead of grpo by `shift` in pass1, behind in entropy by as much; noise 0.01 a seed."""
    found: Found = {}
    for arm, cell in cells.plan(TINY, [size]).places():
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
    assert gain["p"] <= gain["p_holm"] and gain["comparisons"] == len([r for r in told if r["tuning"] == "own"])
    entropy = next(r for r in told if r["finding"] == "higher entropy")
    opposite = {"appears": "the opposite", "the opposite": "appears"}
    assert entropy["verdict"] == opposite.get(verdict, verdict)


def test_a_tie_on_the_plateau_says_nothing() -> None:
    """Guards the regimes: what is a tie at nu/N = 30 has no resolving power at 0.3."""
    told = findings(TINY, synthetic(0.0, size=SIZE._replace(ratio=0.3)))
    assert {r["verdict"] for r in told if r["finding"].startswith("higher pass@1")} == {"no resolving power"}


def test_outcomes_are_paired_costs() -> None:
    """Guards the outcomes: an arm that gains twice as fast needs half of the rollouts to each target of GRPO's, a
    quarter of the rows where it trains half of them, and ends higher; GRPO itself has means alone."""
    found = synthetic(0.0)
    for (arm, cell, tuning), x in found.items():
        fast, curves = arm == "ebpo", {}
        for seed in x.curves:
            pass1 = [0.2, 0.4, 0.5, 0.55, 0.58] if not fast else [0.2, 0.5, 0.58, 0.6, 0.61]
            spent = {"rollouts": 32.0, "trained_rows": 8.0 if fast else 16.0}
            curves[seed] = [{"step": 2 * t, "pass1": p, **spent} for t, p in enumerate(pass1)]
        found[arm, cell, tuning] = x._replace(curves=curves)
    rows = {(r["estimator"], r["quantity"], r["target"]): r for r in outcomes(TINY, found) if r["group_size"] == 2}
    far = 0.2 + 0.7 * 0.38
    assert rows["grpo", "rollouts", "far"]["mean"] == pytest.approx(64 * (1 + (far - 0.4) / 0.1))
    assert rows["grpo", "rollouts", "far"]["value"] is None
    mine = 64 * (far - 0.2) / 0.3
    ratio = math.log(mine / rows["grpo", "rollouts", "far"]["mean"])
    assert rows["ebpo", "rollouts", "far"]["value"] == pytest.approx(ratio)
    assert rows["ebpo", "rows", "far"]["value"] == pytest.approx(ratio + math.log(0.5))
    assert rows["ebpo", "seconds 4:1", "far"]["mean"] == pytest.approx(mine * 4.25)
    end = rows["ebpo", "pass@1 at the end", ""]
    assert (end["value"], end["verdict"], end["comparisons"]) == (pytest.approx(0.03), "appears", 2)
    assert rows["ebpo", "asymptote", ""]["verdict"] == "not studied"  # four points are too few for a fit


def test_the_paper_is_not_placed() -> None:
    """Guards the placement: the range is that of all worlds and score models, from one direction for all prompts to
    none in common, and holds every regime."""
    rows = placement()
    assert len(rows) == 9 and all(0 < r["shared"] < r["apart"] for r in rows)
    world = parse_world(rows[0]["world"])
    known = exact_noise.noise(advantages("grpo", world, 4, exact_noise.equal), rule(world, 32), exact_noise.equal)
    assert (rows[0]["shared"], rows[0]["apart"]) == pytest.approx(
        (known.nu_together / 512, 17_000 * known.nu_drawn / 512)
    )
    low, high = min(r["shared"] for r in rows), max(r["apart"] for r in rows)
    assert (
        low < 0.3 and high > 30 and f"between {low:.2g} (" in sentence(rows) and f"and {high:.2g} (" in sentence(rows)
    )


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
    text = study.show(TINY, rows, told, outcomes(TINY, found))
    for finding in ("higher entropy", "non-vanishing gradient norm", "bounded KL", "gains largest at small G",
                    "blocked order helps", "ahead of grpo in blocked order", "higher pass@1 at the end"):  # fmt: skip
        assert any(r["finding"] == finding for r in told)
        assert finding in text
    assert "one shared rate" in text and "At the edge of the grid of learning rates" in text
    assert all(set(r) >= {"value", "se", "low", "high", "verdict"} for r in told)


def test_figures_hold_every_estimator(done: tuple[Path, Found, study.Rows]) -> None:
    """Guards the figures: a curve a method in each panel, effects with intervals."""
    _, found, rows = done
    figures = plot(rows, outcomes(TINY, found))
    assert set(figures) == {"effects_sgd.png", "curves_noisy_sgd.png"}
    panel = figures["curves_noisy_sgd.png"].axes[0]
    assert [line.get_label() for line in panel.lines] == ["GRPO", "EBPO"]
    assert len(panel.collections) == 2


def test_the_command_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the program: options reach the settings; table, findings, summary and figures are there."""
    monkeypatch.setattr(study, "QUICK", TINY)
    asked = shlex.split("--quick --threads 1 --group-size 2 --seeds 2 --regime noisy --json")
    argv = [*asked, "--out", str(tmp_path)]
    study.main(argv)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["settings"]["seeds"], summary["settings"]["group_sizes"]) == (2, [2])
    assert "do not place it" in summary["paper"]["conclusion"] and list(summary["regimes"]) == ["noisy"]
    with (tmp_path / "table.csv").open() as file:
        assert list(next(csv.DictReader(file))) == KEYS
    assert {p.name for p in tmp_path.iterdir()} >= {"summary.json", "findings.csv", "outcomes.csv", "effects_sgd.png"}


def test_options_name_the_settings() -> None:
    """Guards the command line: what is named replaces the default, grpo and shuffled stay."""
    args = study.parse(
        shlex.split("--estimator ebpo --order blocked --optimiser adam --steps 50 --seed 3 --regime balanced")
    )
    made = study.settings_from(args)
    assert (made.estimators, made.swept, made.orders) == (("ebpo",), ("ebpo",), ("shuffled", "blocked"))
    assert (made.optimisers, made.regimes, made.steps, made.seed) == (("adam",), ("balanced",), 50, 3)
    assert next(cells.plan(made, cells.typical(made)).places())[0] == "grpo"
    assert study.SETTINGS.seeds >= 8
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
        ({"regimes": ("nosy",)}, "did you mean 'noisy'"),
        ({"optimisers": ("sdg",)}, "unknown optimiser"),
        ({"group_sizes": (0,)}, "group_size"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change: dict[str, object], says: str, tmp_path: Path) -> None:
    """Guards refusals: one line, and no file is written."""
    with pytest.raises(InputError, match=says):
        study.rows(replace(TINY, **change), tmp_path / "none")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
