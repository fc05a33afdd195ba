"""`python -m ebpo_sim.methods`: every part, on every rung of the ladder; where it cannot stand, what is missing.

Computed from what parts declare they need and rungs declare they provide; parts loaded with --load are in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ebpo_sim import cli, report
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.table import capabilities
from ebpo_sim.rungs import RUNGS


def main(argv: Sequence[str]) -> None:
    """Print the table, or with --json its rows."""
    parser = cli.Parser(
        prog="python -m ebpo_sim.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", action="store_true", help="print the published methods as texts instead")
    parser.add_argument("--json", action="store_true", help="print only the JSON")
    given = parser.parse_args(argv)
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
