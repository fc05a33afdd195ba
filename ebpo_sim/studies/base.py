"""What all studies have in common: settings, and the way from a command line to files, figure and text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from scipy.special import stdtrit

from ebpo_sim import budget, cli, report, rungs
from ebpo_sim.counts.streams import Design
from ebpo_sim.estimators.registry import SHIPPED
from ebpo_sim.plots import Figure
from ebpo_sim.worlds import grammar

Rows = list[dict[str, Any]]
FAMILY_WISE = 1e-3  # false-fail rate of each joint comparison of exact and simulated values


@dataclass(frozen=True)
class Settings:
    """What is studied, and the size of its simulations."""

    worlds: tuple[str, ...]
    group_sizes: tuple[int, ...]
    estimators: tuple[str, ...]
    design: Design


def z_scores(rows: Iterable[Mapping[str, Any]], name: str, exact: str) -> list[float]:
    """(simulated - exact)/se of a column, where all three exist."""
    return [(r[name] - r[exact]) / r[f"{name}_se"] for r in rows if r[exact] is not None and r[f"{name}_se"]]


def agreement(rows: Sequence[Mapping[str, Any]], name: str, exact: str, replicates: int) -> dict[str, Any]:
    """All simulated values of a column against the exact ones at once: the largest |z| and its Bonferroni limit.

    z of `z_scores` with `replicates` - 1 degrees of freedom; values that share a z make the limit conservative.
    """
    z = z_scores(rows, name, exact)
    if not z:
        return {"comparisons": 0, "max_abs_z": None, "limit": None, "passes": None}
    limit, worst = -float(stdtrit(replicates - 1, FAMILY_WISE / 2 / len(z))), max(map(abs, z))
    return {"comparisons": len(z), "max_abs_z": worst, "limit": limit, "passes": worst <= limit}


def agreement_text(what: str, checked: Mapping[str, Any]) -> list[str]:
    """What `agreement` says, in a line; none where nothing was compared."""
    if not checked["comparisons"]:
        return []
    return [
        f"{what} against simulated: largest |z| {checked['max_abs_z']:.2f} of {checked['comparisons']}, "
        f"limit {checked['limit']:.2f} at a family-wise false-fail rate of {FAMILY_WISE:g}: "
        f"{'agree' if checked['passes'] else 'DISAGREE'}."
    ]


@dataclass(frozen=True)
class Options:
    """The command line of a study; empty tuples and None mean its own default."""

    quick: bool = cli.option(False, "a small version of everything, for a first look")
    world: tuple[str, ...] = cli.option((), "population of prompts (repeatable; grammar below)", metavar="WORLD")
    group_size: tuple[int, ...] = cli.option(
        (), "rollouts per prompt (repeatable)", check=cli.check_group_size, metavar="G"
    )
    estimator: tuple[str, ...] = cli.option(
        (),
        "registered estimator, or NAME:setting=value,... (repeatable); a wrong name lists the right ones",
        metavar="NAME",
    )
    prompts: int | None = cli.option(None, "prompts per batch of the simulation", 1, metavar="M")
    steps: int | None = cli.option(None, "batches per replicate", 1, metavar="T")
    burn_in: int | None = cli.option(
        None, "batches learnt from but not scored; default half of the steps", 0, metavar="B"
    )
    replicates: int | None = cli.option(None, "independent streams, for the standard errors", 2, metavar="R")
    seed: int = cli.seed_option()
    threads: int = cli.threads_option()
    out: str = cli.out_option()
    json: bool = cli.json_option()
    yes: bool = cli.yes_option()


class Cost(NamedTuple):
    """Peak bytes and seconds of work that has not begun."""

    memory: float
    seconds: float


class Study(NamedTuple):
    """A study is its settings, full and quick, and five functions.

    cost(settings, threads) -> what it will take, from the sizes alone.
    simulate(settings, threads) -> one long table. score(settings, rows) -> what the summary says beside settings
    and rows. show(settings, rows, summary) -> text for the reader. plot(rows) -> figures by file name.
    standing() -> the registered rules that belong to the full study, loaded ones too.
    A study of several tables simulates anything, makes tables(settings, found) of it by file name, and plots them all;
    the first is `rows`.
    """

    name: str
    about: str
    full: Settings
    quick: Settings
    cost: Callable[[Settings, int], Cost]
    simulate: Callable[[Settings, int], Any]
    score: Callable[[Settings, Rows], dict[str, Any]]
    show: Callable[[Settings, Rows, Mapping[str, Any]], str]
    plot: Callable[..., dict[str, Figure]]
    tables: Callable[[Settings, Any], dict[str, Rows]] = lambda settings, found: {"table.csv": found}
    standing: Callable[[], tuple[str, ...]] = partial(rungs.standing, rungs.COUNTS)


def settings_from(args: Options, study: Study) -> Settings:
    """The study's settings with what the command line names in their place; --steps without --burn-in halves it for
    burn-in, if any."""
    base = study.quick if args.quick else study.full
    plan = base.design
    burn_in = args.burn_in
    if burn_in is None:
        burn_in = plan.burn_in if args.steps is None or plan.burn_in == 0 else args.steps // 2
    given = {"prompts": args.prompts, "steps": args.steps, "replicates": args.replicates}
    design = plan._replace(seed=args.seed, burn_in=burn_in, **{k: v for k, v in given.items() if v is not None})
    design.check()
    standing = study.standing()
    everything = set(SHIPPED).intersection(standing) <= set(base.estimators)  # then what was loaded belongs to it
    estimators = standing if everything else base.estimators
    return Settings(
        args.world or base.worlds, args.group_size or base.group_sizes, args.estimator or estimators, design
    )


def afford(name: str, cost: Cost, settings: Settings, yes: bool) -> None:
    """Raises InputError for work beyond the machine's memory or, unless `yes`, a day."""
    plan = settings.design
    what = (
        f"{name} of {len(settings.worlds)} worlds x {len(settings.group_sizes)} group sizes up to "
        f"{max(settings.group_sizes)} x {len(settings.estimators)} estimators, {plan.replicates} replicates of "
        f"{plan.steps} batches of {plan.prompts} prompts,"
    )
    remedy = "lower --prompts, --steps, --replicates or --group-size"
    budget.require(memory=cost.memory, seconds=cost.seconds, what=what, remedy=remedy, yes=yes)


def parse(study: str, about: str, argv: Sequence[str]) -> Options:
    """The options of `python -m ebpo_sim.<study>`. Raises InputError for impossible values."""
    return cli.parse(Options, f"python -m ebpo_sim.{study}", about, argv, grammar.__doc__, out=f"results/{study}")


def run(study: Study, argv: Sequence[str]) -> None:
    """Simulate, then write table.csv, summary.json and the figures; print the text, or with --json the summary."""
    args = parse(study.name, study.about, argv)
    settings = settings_from(args, study)
    afford(study.name, study.cost(settings, args.threads), settings, args.yes)
    out = report.writable_folder(args.out)
    with report.locked(out):
        tables = study.tables(settings, study.simulate(settings, args.threads))
        rows = next(iter(tables.values()))
        described = {**asdict(settings), "design": settings.design._asdict()}
        summary = {"settings": described, **study.score(settings, rows), "rows": rows}
        text = report.to_json(summary)
        figures = study.plot(*tables.values())
        report.write_files(out, {**tables, "summary.json": text, **figures})
    if args.json:
        report.say(text)
        return
    report.say(study.show(settings, rows, summary))
    written, drawn = (", ".join(str(out / name) for name in names) for names in (tables, figures))
    report.say(f"All {len(rows)} rows: {written}; figures: {drawn}")
