"""Estimators compared on the tiny language model: per step and per second, paired seeds, each at its own best rate.

    python -m llm.compare --quick               # two cores, about two minutes
    python -m llm.compare --minutes 9           # repeat the command until it says that all runs are done
    python -m llm.compare --report              # tables and figure again, from runs.csv and curves.csv
    python -m llm.compare --publish             # a small table of the curves for python -m paper_figures

1. Tuning: every arm at every rate of one grid on seeds of its own; the highest mean final validation pass@1 wins, the
   smaller rate of equals. The evaluation seeds have no part in it, so the choice does not bias them.
2. Evaluation: every arm at its rate; a seed means the same prompts, sampling seeds and warm start for all arms.
3. Equal time: an arm that is faster (GRPO skips rows without a gradient, EBPO has none) gets as many steps as fit
   into EBPO's seconds, in eighths of a run and by medians over seeds, and its whole schedule is stretched to them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from llm import early

    early.guard()

from ebpo_sim import cli, folders, labels, report, tables
from ebpo_sim.compare.jobs import refuse_failed
from ebpo_sim.compare.plan import middle, progress
from ebpo_sim.compare.tables import curve_rows, learning_curves
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.sampling import ORDERS
from llm import compare_measures as measures
from llm import compare_plots, compare_text
from llm.compare_runner import (
    CURVE_COLUMNS,
    MAY_LACK,
    RUN_COLUMNS,
    RUNS,
    TUNING_SEED,
    Comparison,
    LanguageModel,
    simulate,
    tables_of,
)
from llm.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("grpo", "dr_grpo", "rloo", "ebpo", "ebpo_debiased:memory=0.95")
FULL = Comparison(ARMS, base=Settings(steps=320, eval_every=40))
QUICK = Comparison(
    ("grpo", "ebpo"), group_sizes=(4,), rates=(6e-4,), seeds=2,
    base=Settings(steps=32, eval_every=8, eval_per_cell=16),
)  # fmt: skip
OWN = {
    "estimator",
    "group_size",
    "prompts",
    "order",
    "lr",
    "seed",
    "steps",
    "eval_every",
    "checkpoint_every",
}  # decided by the plan
TEXTS, WHOLE = (
    {"stage", "run", "arm", "order", "invocation", "machine"},
    {"group_size", "seed", "steps", "step", "record"},
)
PUBLISHED = {  # names of the training study's table, which paper_figures reads too
    "validation_pass1": "pass1", "reward": "reward", "entropy": "entropy", "grad_norm": "grad_norm", "kl_step": "kl",
    "zero_signal": "zero_signal",
}  # fmt: skip
AT_LAST = {"validation_pass1": "final", "entropy": "entropy"}  # measures of the corrected family
NUMBERS = ("value", "se", "difference", "difference_se")
LARGEST = 150_000  # bytes of the published table
Rows = list[dict[str, Any]]


def complete(arms: Sequence[str]) -> tuple[str, ...]:
    """GRPO first, and the S = 0 and S = 1 arms beside EBPO: without them nothing is said of the adaptive weight."""
    beside = {labels.SUBJECT: (labels.SUBJECT, labels.NO_SHRINKAGE, labels.FULL_SHRINKAGE)}
    return tuple(dict.fromkeys((labels.REFERENCE, *(x for arm in arms for x in beside.get(arm, (arm,))))))


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` as fields of the settings, with their types."""
    types: dict[str, Any] = {name: type(v) for name, v in Settings().as_dict().items() if name not in OWN}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name in OWN or not equals:
            raise InputError(f"--set must be NAME=VALUE with a setting that has no option here, got {text!r}")
        if name not in types:
            raise unknown_name("setting", name, types)
        try:
            found[name] = {"True": True, "False": False}[value] if types[name] is bool else types[name](value)
        except (ValueError, KeyError):
            raise InputError(f"--set {name} must be {types[name].__name__}, got {value!r}") from None
    return found


def plan_from(args: argparse.Namespace) -> Comparison:
    """The full or quick plan with what the command line names in its place. Raises InputError."""
    plan = QUICK if args.quick else FULL
    steps = {} if args.steps is None else {"steps": args.steps, "eval_every": max(1, args.steps // 8)}
    given = {
        "arms": complete(args.estimator or plan.arms), "group_sizes": tuple(sorted(set(args.group_size))),
        "orders": tuple(dict.fromkeys(args.order)), "rates": tuple(sorted(set(args.lr))), "seeds": args.seeds,
        "tuning_seeds": args.tuning_seeds, "budget": args.budget, "equal_time": not args.no_equal_time,
        "base": replace(plan.base, **steps | overrides(args.set)),
    }  # fmt: skip
    return replace(plan, **{k: v for k, v in given.items() if v not in ((), None)})


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line. Raises InputError for impossible values."""
    parser = cli.Parser(
        prog="python -m llm.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few steps, two seeds, one rate, for a first look: no result")
    about = f"arm (repeatable; default {', '.join(ARMS)}); GRPO is always there, S = 0 and S = 1 beside ebpo"
    add("--estimator", action="append", default=[], metavar="NAME", help=about)
    add("--group-size", action="append", default=[], type=int, metavar="G", help="(repeatable; default 2, 4, 8)")
    add("--order", action="append", default=[], choices=ORDERS, help="(repeatable; default shuffled); those after the "
        "first at the group size nearest to 4 only")  # fmt: skip
    add("--lr", action="append", default=[], type=float, help="grid of rates (repeatable; default 3e-4, 6e-4, 1.2e-3)")
    add("--seeds", type=int, help=f"evaluation runs an arm (default {FULL.seeds})")
    add("--tuning-seeds", type=int, help=f"runs an arm and rate, from seed {TUNING_SEED} (default {FULL.tuning_seeds})")
    add("--steps", type=int, help=f"steps of a run (default {FULL.base.steps}), with eight validations")
    add("--budget", type=int, help=f"rollouts a step at every G: prompts are budget / G (default {FULL.budget})")
    add("--no-equal-time", action="store_true", help="leave the runs of equal time out")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of llm/train.py (repeatable)")
    add("--jobs", type=int, default=cli.available_cores(), help="runs side by side, a process each; default: all cores")
    add("--minutes", type=float, metavar="M", help="start no run that would end later; repeat the command to go on")
    add("--keep-logs", action="store_true", help="keep what every run writes, rollouts included")
    add(
        "--out",
        default="results/llm/compare",
        metavar="DIR",
        help="where files go (default %(default)s; with other options a folder of its own in it)",
    )
    add("--cache", default="results/llm/cache", metavar="DIR", help="warm-started models (default %(default)s)")
    add("--report", action="store_true", help="train nothing: read runs.csv and curves.csv in DIR")
    add("--publish", nargs="?", metavar="FILE", const=str(ROOT / "paper_figures" / "llm_curves.csv"),
        help="train nothing: from the tables in DIR write FILE (default paper_figures/llm_curves.csv)")  # fmt: skip
    add("--json", action="store_true", help="print only the JSON summary")
    args = parser.parse_args(argv)
    args.out = folders.own_folder(parser, args, argv)
    cli.check_threads(args.jobs, "--jobs")
    if args.minutes is not None and not args.minutes > 0:
        raise InputError(f"--minutes must be positive, got {args.minutes}")
    return args


def write(out: Path, runs: Rows, curves: Rows, state: str, json: bool) -> None:
    """Findings from the tables: compare.csv, summary.json, compare.png, compare.md, and the terminal."""
    found = measures.findings(runs, curves)
    tuned = [
        {"arm": arm, **cell._asdict(), **choice._asdict()} for (arm, cell), choice in measures.choices(runs).items()
    ]
    summary = {
        "state": state,
        "machines": sorted({r["machine"] for r in runs}),
        "invocations": len({r["invocation"] for r in runs}),
        "runs": {stage: sum(r["stage"] == stage for r in runs) for stage in ("tuning", "evaluation", "equal_time")},
        "training_seconds": sum(r["seconds"] for r in runs),
        "wall_seconds": sum(r["wall_seconds"] for r in runs),
        "tuning": tuned,
        "findings": found,
        "learning_curves": learning_curves(
            curve_rows(measures.evaluation(runs, curves), PUBLISHED), "validation_pass1"
        ),
    }
    report.write_csv(out / "compare.csv", found)
    report.write_bytes(out / "summary.json", report.to_json(summary).encode())
    report.write_bytes(out / "compare.md", compare_text.markdown(found, runs).encode())
    report.save_figure(out / "compare.png", compare_plots.figure(found, curves))
    report.say(report.to_json(summary) if json else f"{compare_text.text(found, runs)}\n\n{state}")
    if not json:
        report.say(f"files: {out}/{{runs.csv,curves.csv,compare.csv,compare.md,compare.png,summary.json}}")


def read(path: Path, columns: Sequence[str]) -> Rows:
    """A table written by this program, with at least these columns. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist: name the --out of a comparison, or run one")
    rows: Rows = []
    try:
        for _, row in tables.rows(path, columns):
            rows.append({name: _value(name, row[name]) for name in columns})
    except ValueError as error:
        raise InputError(
            f"{str(path)!r}, line {len(rows) + 2} is damaged ({error}): run the comparison again"
        ) from error
    return rows


def _value(column: str, text: str) -> Any:
    if column in TEXTS:
        return str(text)
    if text == "" and column in MAY_LACK:
        return None
    number = int(text) if column in WHOLE else float(text)
    if not math.isfinite(number):
        raise ValueError(f"{column} is {text!r}")
    return number


def publish(runs: Rows, curves: Rows, path: Path) -> None:
    """Curves at the group size nearest to 4 in the first order, and final pass@1 of all cells, for paper_figures."""
    rows = curve_rows(measures.evaluation(runs, curves), PUBLISHED)
    table = [{k: v for k, v in r.items() if k != "edge"} for r in rows]
    last = max(r["step"] for r in table)
    corrected = {
        (r["arm"], r["group_size"], r["order"], r["measure"]): r["p_holm"]
        for r in measures.findings(runs, curves) if r["reference"] == labels.REFERENCE
    }  # fmt: skip

    def family(row: dict[str, Any]) -> float | None:
        place = row["estimator"], row["group_size"], row["order"], AT_LAST.get(row["metric"])
        return corrected.get(place) if row["step"] == last else None

    shown = (middle([r["group_size"] for r in table]), table[0]["order"])
    kept = [
        r | {"metric": PUBLISHED[r["metric"]]} | {k: _short(r[k]) for k in NUMBERS} | {"p_holm": _short(family(r))}
        for r in table
        if (r["group_size"], r["order"]) == shown or (r["metric"], r["step"]) == ("validation_pass1", last)
    ]
    with tempfile.TemporaryDirectory() as folder:
        report.write_csv(Path(folder) / "table.csv", kept)
        content = (Path(folder) / "table.csv").read_bytes()
    if len(content) > LARGEST:
        raise InputError(f"{str(path)!r} would have more than {LARGEST} bytes: publish fewer arms or orders")
    report.write_bytes(path, content)
    report.say(f"{len(kept)} rows from {sum(r['stage'] == 'evaluation' for r in runs)} evaluation runs: {path}")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring and --help."""
    args = parse(argv)
    out, cache = report.writable_folder(args.out), report.writable_folder(args.cache)
    if args.publish or args.report:
        runs, curves = stored(out)
        try:
            if args.publish:
                publish(runs, curves, Path(args.publish))
            else:
                with report.locked(out):
                    write(out, runs, curves, f"From the tables in {args.out}.", args.json)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the tables in {args.out!r} do not fit each other ({error!r}): run it again") from error
        return
    plan = plan_from(args)
    with report.locked(out, RUNS):
        _compare(plan, out, cache, args)


def stored(out: Path) -> tuple[Rows, Rows]:
    """(runs.csv, curves.csv) of a comparison. Raises InputError where they cannot be told from."""
    runs, curves = read(out / "runs.csv", RUN_COLUMNS), read(out / "curves.csv", CURVE_COLUMNS)
    drawn = {r["run"] for r in curves}
    if not any(r["stage"] == "evaluation" for r in runs) or any(r["run"] not in drawn for r in runs):
        raise InputError(f"{str(out)!r} holds no evaluation run, or runs without curves: run the comparison again")
    return runs, curves


def _compare(comparison: Comparison, out: Path, cache: Path, args: argparse.Namespace) -> None:
    runner = LanguageModel(comparison, out, cache, args.keep_logs, args.jobs)
    done, failed = simulate(runner, args.minutes)
    runs, curves = tables_of(runner, done)
    state = progress(comparison.plan, runner, done)
    if runs:
        report.write_csv(out / "runs.csv", runs)
        report.write_csv(out / "curves.csv", curves)
    if any(r["stage"] == "evaluation" for r in runs):
        write(out, runs, curves, state, args.json)
    elif not args.json:
        report.say(state)
    refuse_failed(failed)


if __name__ == "__main__":
    cli.run(main)
