"""Does your estimator keep the contract? All that FILE.py registers, or a registered name, against each law.

Purity, merging, pickling, checkpoints, permutations, masks, replicates, copies, thin and ragged batches, refusals: one
line a law; exit code 1 where one is broken. What passes here passes in the studies, in worker processes, TRL and verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ebpo_sim import cli, plugins, report
from ebpo_sim.check.batches import build
from ebpo_sim.check.laws import LAWS, broken
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make, names
from ebpo_sim.estimators.registry import SHIPPED


@dataclass(frozen=True)
class Options:
    """The command line."""

    what: tuple[str, ...] = cli.option((), "files that register estimators, or registered names", nargs="+",
                                       metavar="FILE.py")  # fmt: skip
    json: bool = cli.json_option("JSON")


def named(words: Sequence[str]) -> list[str]:
    """The estimators of the words: a file's are those it registers. Raises InputError for a file without any."""
    found: list[str] = []
    for word in words:
        if not word.endswith(".py"):
            found.append(word)
            continue
        plugins.load([word])
        own = [name for name in names() if name not in SHIPPED]
        if not own:
            raise InputError(
                f"{word!r} registers no estimator: decorate its function with ebpo_sim.estimators.register"
            )
        found += own
    return list(dict.fromkeys(found))


def main(argv: Sequence[str]) -> None:
    """Print a line a law, or with --json the rows. Ends with code 1 where one is broken."""
    args = cli.parse(Options, "python -m ebpo_sim.check", __doc__, argv)
    rows = []
    for name in named(args.what):
        estimator = build(name) if ":" not in name else make(name)
        rows += [{"estimator": name, "law": law, "broken": broken(estimator, law)} for law in LAWS]
    failed = sum(bool(row["broken"]) for row in rows)
    if args.json:
        report.say(report.to_json(rows))
    else:
        for row in rows:
            verdict = f"BROKEN  {row['broken']}" if row["broken"] else "holds"
            report.say(f"{row['estimator']}  {row['law']:26} {verdict}")
        report.say(f"{len(rows) - failed} of {len(rows)} laws hold.")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main)
