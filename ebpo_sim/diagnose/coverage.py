"""Do the intervals hold what they promise? `python -m ebpo_sim.diagnose.coverage`

Data sets are drawn from worlds of known truth and diagnosed; counted is how often the 95 % intervals of the intra-class
correlation and of error ratios hold the long-run truth, and how far the mean of the model-free difference is from it.
--answers: the same of gradient noise by method and G, of what history saves, of windows of steps, and how often dynamic
sampling takes no more generation batches than stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim import cli, report
from ebpo_sim.counts.exact import limit_risk, rule
from ebpo_sim.diagnose import coverage_answers
from ebpo_sim.diagnose.columns import Columns
from ebpo_sim.diagnose.gathering import gather
from ebpo_sim.diagnose.intervals import Estimate, components
from ebpo_sim.diagnose.population import Population, populations
from ebpo_sim.diagnose.ratios import ratios
from ebpo_sim.diagnose.splits import DRAWS, split
from ebpo_sim.estimators import make
from ebpo_sim.tables import Chunk
from ebpo_sim.worlds import World, intra_class_correlation, parse_world

WORLDS = ("beta:2,3", "beta:0.5,0.7", "beta:0.1,0.1", "points:0.2,0.7", "points:0.02@0.7,0.9@0.3")
ESTIMATORS = ("ebpo", "ebpo_debiased")
NOMINAL = 0.95


class Design(NamedTuple):
    """Data sets per world, prompts and rollouts of each, the G of the ratios, bootstrap draws."""

    sets: int = 400
    prompts: int = 300
    rollouts: int = 16
    group_size: int = 8
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "fewer data sets and bootstrap draws, for a first look")
    answers: bool = cli.option(False, "intervals of noise, history, windows and batches in their place (4 min)")
    seed: int = cli.seed_option("same seed, same bytes (default 0)")


def simulate(world: World, design: Design, rng: np.random.Generator) -> Population:
    """Prompts of the world with binomial counts."""
    p = world.sample(rng, design.prompts)
    counts = {"rollouts": np.full(design.prompts, design.rollouts), "successes": rng.binomial(design.rollouts, p)}
    columns = Columns("prompts", {"rollouts": "rollouts", "successes": "successes"})
    return populations(gather(iter([Chunk("simulated", 1, counts, design.prompts)]), columns))[0]


def study(text: str, design: Design) -> list[dict[str, Any]]:
    """One row for each interval: coverage with its binomial standard error, and the mean error of the estimate.

    For the model-free ratio the difference (ratio - 1) w/G is compared. It is unbiased for a rule that is given, the
    oracle; a rule that is learnt differs from its long run by a term of order 1/prompts.
    """
    world = parse_world(text)
    rng = np.random.default_rng([design.seed, *text.encode()])
    icc = intra_class_correlation(world)
    within = rule(world, design.group_size).within / design.group_size
    known = make("oracle_linear", prior=rule(world, design.group_size))  # learns nothing: its difference is unbiased
    made = [*(make(n) for n in ESTIMATORS), known]
    truth = {e.name: limit_risk(e, world, design.group_size).mse / within for e in made}
    seen: dict[tuple[str, str], list[tuple[Estimate, float, float]]] = {}
    for i in range(design.sets):
        population = simulate(world, design, rng)
        found = components(population, design.draws, i)
        own = found.within.value / design.group_size
        seen.setdefault(("icc", "bootstrap"), []).append((found.icc, icc, found.icc.value - icc))
        table = ratios(population, found, None, [design.group_size], ESTIMATORS, design.draws, i, parts=False)
        for row in table.rows:
            if row.long_run is not None:
                case = row.long_run, truth[row.estimator], row.long_run.value - truth[row.estimator]
                seen.setdefault((row.estimator, "long run"), []).append(case)
        parted = None if population.counts is None else split(made, population.counts, design.group_size, DRAWS, i)
        for j, estimator in enumerate(made):
            if parted is None:
                break
            ratio, true = parted.ratio(j), truth[estimator.name]
            error = (ratio.value - 1) * own - (true - 1) * within
            seen.setdefault((estimator.name, "model-free"), []).append((ratio, true, error))
    return [_row(text, *key, cases) for key, cases in seen.items()]


def _row(world: str, quantity: str, kind: str, cases: list[tuple[Estimate, float, float]]) -> dict[str, Any]:
    held = [e.low <= true <= e.high for e, true, _ in cases if e.low is not None and e.high is not None]
    share = float(np.mean(held)) if held else float("nan")
    errors = np.array([error for _, _, error in cases])
    return {
        "world": world,
        "quantity": quantity,
        "kind": kind,
        "truth": cases[0][1],
        "sets": len(held),
        "coverage": share,
        "coverage_se": float(np.sqrt(NOMINAL * (1 - NOMINAL) / max(len(held), 1))),
        "mean_error": float(errors.mean()),
        "mean_error_se": float(errors.std(ddof=1) / np.sqrt(len(errors))),
    }


def main(argv: Sequence[str]) -> None:
    """The table of all worlds; `--quick` for fewer data sets."""
    args = cli.parse(Options, "python -m ebpo_sim.diagnose.coverage", __doc__, argv)
    if args.answers:
        report.say(_of_answers(coverage_answers.Design(sets=20 if args.quick else 100, seed=args.seed)))
        return
    design = (Design(sets=100, draws=400) if args.quick else Design())._replace(seed=args.seed)
    rows = []
    with report.progress(len(WORLDS), "coverage") as bar:
        for world in WORLDS:
            rows += study(world, design)
            bar.update(1)
    columns = (
        "world", "quantity", "kind", "truth", ("coverage of 95 %", "±coverage"),
        ("mean error", "±mean_error"),
    )  # fmt: skip
    report.say(report.columns_table(rows, columns))
    report.say(
        f"{design.sets} data sets a world, {design.prompts} prompts, {design.rollouts} rollouts, "
        f"G = {design.group_size}; ± one standard error."
    )


def _of_answers(design: coverage_answers.Design) -> str:
    rows = []
    with report.progress(len(coverage_answers.WORLDS), "coverage") as bar:
        for world in coverage_answers.WORLDS:
            rows += coverage_answers.study(world, design)
            bar.update(1)
    columns = ("world", "quantity", "truth", ("coverage of 95 %", "±coverage"))
    table = report.columns_table(rows, columns)
    return (
        f"{table}\n{design.sets} data sets a world, {design.prompts} prompts ({design.window} in a window, history: "
        f"{design.visits} visits), {design.rollouts} rollouts, G = {design.group_size}; ± one standard error."
    )


if __name__ == "__main__":
    cli.run(main)
