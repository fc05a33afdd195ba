"""The comparison engine's plan and runs, on a host that only computes: rates, stages, resuming, failures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from ebpo_sim.compare.jobs import expected, finish, refuse_failed
from ebpo_sim.compare.plan import Job, Plan, Record, Runner, choose_rate, equal_steps, progress, series, wanted
from ebpo_sim.compare.tables import curve_rows, final
from ebpo_sim.errors import InputError


class Cell(NamedTuple):
    group_size: int


BEST = {"grpo": 1.0, "ebpo": 4.0}
PLAN = Plan({Cell(2): ("grpo", "ebpo")}, {Cell(2): (1.0, 2.0, 4.0)}, 10, 3, 2, frozenset({Cell(2)}))


@dataclass(frozen=True)
class Toy(Runner):
    """A run scores its seed less the distance to the arm's best rate; `broken` seeds of evaluation fail."""

    log: Path
    broken: tuple[int, ...] = ()

    def key(self, job: Job) -> str:
        return "-".join(map(str, (job.arm, job.cell.group_size, job.rate, job.seed, job.steps, job.tuning)))

    def run(self, job: Job) -> Record:
        with self.log.open("a") as file:
            file.write(f"{self.key(job)}\n")
        if job.seed in self.broken and not job.tuning:
            raise RuntimeError("no memory")
        end = job.seed - abs(job.rate - BEST[job.arm])
        return {"curve": [{"step": 0, "score": 0.0}, {"step": job.steps, "score": end}], "wall_seconds": 1.0}

    def score(self, record: Record) -> float:
        return float(record["curve"][-1]["score"])


def test_choosing_a_rate() -> None:
    """Guards the choice: the highest mean, the smaller of equals, and a mark at either end of the grid."""
    assert choose_rate({1.0: [0.1, 0.2], 2.0: [0.5, 0.1], 4.0: [0.2, 0.2]})[:2] == (2.0, False)
    assert choose_rate({4.0: [0.3], 2.0: [0.3], 1.0: [0.1]})[:2] == (2.0, False)
    assert choose_rate({2.0: [0.1], 1.0: [0.3]})[:2] == (1.0, True)
    assert choose_rate({2.0: [0.4], 1.0: [0.3]})[:2] == (2.0, True)
    assert choose_rate({2.0: [0.4]})[:2] == (2.0, False)


def test_lengths_at_equal_time() -> None:
    """Guards equal seconds: medians, eighths of a run, at least one step."""
    found = [equal_steps(100, [10, 10, 99], [0, t, 500]) for t in (20, 10.6, 9.4, 10.7, 4, 0.01)]
    assert found == [200, 100, 100, 112, 38, 12] and equal_steps(4, [2], [3]) == 6


def test_tuned_then_evaluated_at_own_and_shared_rates(tmp_path: Path) -> None:
    """Guards the stages: own best rates, GRPO's for all where shared, marks at the grid's ends, paired differences."""
    done, failed = finish(PLAN, Toy(tmp_path / "log"), tmp_path / "runs")
    found = series(PLAN, Toy(tmp_path / "log"), done)
    assert failed == [] and {(a, t): (s.rate, s.edge) for (a, _, t), s in found.items()} == {
        ("grpo", "own"): (1.0, True), ("ebpo", "own"): (4.0, True),
        ("grpo", "shared"): (1.0, True), ("ebpo", "shared"): (1.0, True),
    }  # fmt: skip
    assert len(done) == 2 * 3 * 2 + 2 * 3 + 3  # tuning, own, and EBPO's three at GRPO's rate; GRPO's are the same runs
    ends = {(r["estimator"], r["tuning"]): r for r in final(curve_rows(list(found.values()), ["score"]), "score")}
    assert [ends["ebpo", t]["difference"] for t in ("own", "shared")] == [0.0, -3.0]
    assert ends["ebpo", "shared"]["difference_se"] == 0.0 and ends["grpo", "own"]["difference"] is None
    stages = "tuning 12 of 12, evaluation 6 of 6, shared 3 of 3"
    assert progress(PLAN, Toy(tmp_path / "log"), done) == f"All 21 runs are done ({stages})."


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    """Guards resuming and failures: a failed run costs no other, is named, and is the only one of the next call."""
    done, failed = finish(PLAN, Toy(tmp_path / "log", broken=(1,)), tmp_path / "runs")
    assert len(done) == 21 - 3 and len(failed) == 3 and "seed 1" in failed[0] and "no memory" in failed[0]
    with pytest.raises(InputError, match=r"3 runs failed, the first grpo.*finished ones are kept"):
        refuse_failed(failed)
    (tmp_path / "log").write_text("")
    again, failed = finish(PLAN, Toy(tmp_path / "log"), tmp_path / "runs")
    ran = (tmp_path / "log").read_text().split()
    assert failed == [] and len(ran) == 3 and all("-1-10-False" in name for name in ran)
    assert {job for _, job in wanted(PLAN, Toy(tmp_path / "log"), again)} == again.keys()
    assert finish(PLAN, Toy(tmp_path / "log"), tmp_path / "runs", minutes=1e-9)[0] == again  # reading takes no time


def test_a_limit_of_time_starts_nothing_late(tmp_path: Path) -> None:
    """Guards --minutes: runs of a second each, so that after the first none is started within a tenth of one."""
    done, failed = finish(PLAN, Toy(tmp_path / "log"), tmp_path / "runs", minutes=0.1 / 60)
    assert (len(done), failed) == (1, [])


def timed(seconds: float) -> Record:
    return {"wall_seconds": 1.2 * seconds}


def test_how_long_a_run_will_take() -> None:
    """Guards the limit's estimate: the slowest run of the same arm and group size, scaled to its steps; else of all."""
    job = Job("grpo", Cell(2), 1e-3, 0, 40)
    done = {
        job: timed(10.0),
        job._replace(seed=1): timed(20.0),
        job._replace(arm="ebpo"): timed(50.0),
    }
    assert expected(job._replace(seed=2, steps=80), done) == pytest.approx(1.1 * 2 * 1.2 * 20)
    assert expected(job._replace(cell=Cell(4)), done) == pytest.approx(1.1 * 1.2 * 50)
    assert expected(job, {}) == 0.0
