"""wip"""

from __future__ import annotations
from typing import NamedTuple
from pathlib import Path
from ebpo_sim.compare.jobs import finish, refuse_failed
from ebpo_sim.compare.plan import Job, Record, series
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.methods.arms import arms, standing
from ebpo_sim.studies.methods.cells import CELLS, Settings, Zoo, aimed, cells_of, plan, rates_of, records
from ebpo_sim.studies.regimes import REGIMES, sizes
from ebpo_sim.studies.training.outcomes import Found

OWN = ("rloo", "ebpo", "ebpo_debiased")
SETTINGS = Settings(
    worlds=(
        "observed:Qwen2.5-7B", "observed:Qwen2.5-Math-1.5B-Instruct/MATH", "observed:GPT-4-0613/LiveCodeBench",
    ),
    methods=(*standing()[0], *OWN),
    regimes=tuple(REGIMES), staleness=(4, 1, 16), mismatch=(0.0, 0.5),
)  # fmt: skip


class Runs(NamedTuple):
    found: Found
    ladder: dict[Job, Record]


def simulate(settings: Settings, out: Path, threads: int = 1) -> Runs:
    settings.check()
    folder, zoo = out / CELLS, Zoo(settings)
    cells = aimed(settings, cells_of(settings, sizes(settings, folder, threads)), folder, threads)
    asked = plan(settings, cells, arms(settings))
    done, failed = finish(asked, zoo, folder, threads)
    refuse_failed(failed)
    jobs = [
        Job(REFERENCE, cell, rate, seed, asked.steps)
        for cell in cells for rate in rates_of(settings, cell) for seed in range(settings.seeds)
    ]  # fmt: skip
    return Runs(series(asked, zoo, done), records(zoo, jobs, folder, threads))
