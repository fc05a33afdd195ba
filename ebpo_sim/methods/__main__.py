"""`python -m ebpo_sim.methods`: every part, on every rung of the ladder; where it cannot stand, what is missing.

Computed from what parts declare they need and rungs declare they provide; parts loaded with --load are in it.
--recipes: the published methods as texts. --push clip:high=0.28 --answer 1.5,0.9:1 --answer 1:-1: what objectives do to
one group of answers, each the ratios of its tokens and its advantage.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ebpo_sim import cli, report
from ebpo_sim.methods.pushes import pushes
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.table import capabilities
from ebpo_sim.rungs import RUNGS


def main(argv: Sequence[str]) -> None:
    """Print the table, or with --json its rows."""
    parser = cli.Parser(
        prog="python -m ebpo_sim.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", action="store_true", help="print the published methods as texts instead")
    parser.add_argument("--push", metavar="OBJECTIVES", help="print what these do to the tokens of --answer instead")
    parser.add_argument("--answer", action="append", default=[], metavar="RATIOS:ADVANTAGE", help="repeatable")
    parser.add_argument("--old", type=float, default=0.1, help="probability of every token before (default 0.1)")
    parser.add_argument("--json", action="store_true", help="print only the JSON")
    given = parser.parse_args(argv)
    if given.push is not None:
        table = pushes(given.push, given.answer, given.old)
        report.say(report.to_json(table) if given.json else report.columns_table(table, tuple(table[0])))
        return
    if given.recipes:
        recipes = [{"recipe": name, **recipe._asdict()} for name, recipe in RECIPES.items()]
        columns: report.Columns = ("recipe", ("arXiv", lambda r: r["source"] or "-"), "text", "remark")
        report.say(report.to_json(recipes) if given.json else report.columns_table(recipes, columns))
        return
    rows = capabilities()
    if given.json:
        report.say(report.to_json(rows))
        return
    headers = ["kind", "part", *(r.name for r in RUNGS)]
    body = [[r["kind"], r["part"], *(r[rung.name] or "yes" for rung in RUNGS)] for r in rows]
    report.say(report.text_table(headers, body))
    for rung in RUNGS:
        report.say(f"{rung.name}: {rung.about}")


if __name__ == "__main__":
    cli.run(main)
