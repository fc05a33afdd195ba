"""Decide the claims of EBPO (arXiv 2602.05165), ours, those of objectives' papers (J...), and the predictions
about arXiv 2601.05002 (HB-...).

Each claim is checked as idealised in its proof, as Algorithm 1 does it, as the authors' public code does it, and
for the repaired estimator. Verdicts are computed: exact effects over a family of worlds and group sizes, searched
from simple to complicated; the first violation is the counterexample, a command that you can retype (after
`python -m ebpo_sim.`; after a colon the column or row that shows it). Each exact effect has a Monte Carlo confirmation
where a simulation says more. --world and --group-size search elsewhere than in the ledger's own family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ebpo_sim import cli, report
from ebpo_sim.claims import heat_map, instruments, ledger_plots
from ebpo_sim.claims.base import MARGIN, Context, meaning
from ebpo_sim.claims.family import default_context, world
from ebpo_sim.claims.ledger import FAMILY_WISE, agreement, choose, markdown, rows, run_ledger
from ebpo_sim.claims.page import ledger_page
from ebpo_sim.errors import InputError


@dataclass(frozen=True)
class Options:
    """The command line."""

    ids: tuple[str, ...] = cli.option(
        (), "claims to decide (default: all); a wrong id lists near ones", nargs="*", metavar="ID"
    )
    world: tuple[str, ...] = cli.option((), "search these populations (repeatable)", metavar="WORLD")
    group_size: tuple[int, ...] = cli.option(
        (), "search these group sizes (repeatable)", check=cli.check_group_size, metavar="G"
    )
    quick: bool = cli.option(False, "fewer worlds, group sizes and replicates")
    seed: int = cli.seed_option("of the Monte Carlo confirmations (default 0)")
    threads: int = cli.threads_option()
    out: str = cli.out_option("table, JSON and figures (default %(default)s)", "results/claims")
    html: bool = cli.option(False, "also ledger.html: one page with all verdicts to filter, pictures and commands")
    json: bool = cli.json_option("JSON")


def text_ledger(table: Sequence[dict[str, Any]]) -> str:
    """The table as text; the second paper's predictions in one line each."""
    columns: report.Columns = (
        "id", "variant", ("verdict", lambda r: f"{r['verdict'].replace('_', ' ')} {r['condition'] or ''}".rstrip()),
        "effect", ("simulated", lambda r: report.with_error(r["effect_mc"], r["effect_se"])),
        ("holds / equal / fails", lambda r: f"{r['above']} / {r['equal']} / {r['below']}"),
        ("smallest counterexample", lambda r: r["counterexample"] or ""),
    )  # fmt: skip
    return report.columns_table(table, columns)


def search(context: Context, worlds: tuple[str, ...], group_sizes: tuple[int, ...]) -> Context:
    """The context with these worlds and group sizes, its own where none is given. Raises InputError for a world where
    every reward is certain, and for groups of one: there is nothing to compare."""
    for text in worlds:
        if not world(text).quadrature(2).within > 0:
            raise InputError(f"world {text!r} has certain rewards only: claims compare baselines where p(1-p) > 0")
    if group_sizes and min(group_sizes) < 2:
        raise InputError(f"--group-size must be at least 2 here, got {min(group_sizes)}: claims are about group means")
    return replace(context, worlds=worlds or context.worlds, group_sizes=group_sizes or context.group_sizes)


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.claims", __doc__, argv)
    chosen = choose(args.ids)
    context = search(default_context(args.quick, args.seed, args.threads), args.world, args.group_size)
    context.design.check()
    out = report.writable_folder(args.out)
    with report.locked(out):
        with report.progress(len(chosen), "claims") as bar:
            ledger = run_ledger(context, args.ids, bar.update)
        table = rows(ledger)
        checked = agreement(ledger)
        tools = instruments.instrument_checks(args.seed, args.threads)
        checks = instruments.summary(tools)
        settings = {
            "worlds": context.worlds,
            "group_sizes": context.group_sizes,
            "reference": context.reference,
            "reference_size": context.reference_size,
            "design": context.design._asdict(),
            "quick": args.quick,
        }
        text = report.to_json({"settings": settings, "agreement": checked, "instruments": checks, "rows": table})
        own = [(claim, findings) for claim, findings in ledger if not claim.id.startswith("HB-")]
        figures = {f"{claim.id}.png": ledger_plots.plot(claim, findings) for claim, findings in own}
        grid = heat_map.grid(context) if heat_map.CLAIM in {claim.id for claim in chosen} else []
        if grid:
            figures[f"{heat_map.CLAIM}_map.png"] = ledger_plots.heat_map(grid)
        written = {"table.csv": table, "instruments.csv": checks["rows"], "ledger.json": text}
        if args.html:
            pictures = {name.removesuffix(".png"): report.png(figure, 70) for name, figure in figures.items()}
            report.write_bytes(out / "ledger.html", ledger_page(ledger, pictures))
        written |= {f"{heat_map.CLAIM}_map.csv": grid} if grid else {}
        report.write_files(out, {**written, "ledger.md": f"{markdown(ledger)}\n", **figures})
    if args.json:
        report.say(text)
        return
    report.say(text_ledger(table))
    report.say(
        "\nEffects (what each number is: table.csv); simulated ± one standard error; in how many cases of the search "
        f"the claim holds, is met with equality (within {MARGIN:g}), fails."
    )
    for claim, findings in own:
        report.say(f"{claim.id}  {claim.statement}. {meaning(claim, findings)}")
    if checked["comparisons"]:
        report.say(
            f"Exact against simulated: smallest p-value {checked['p_value']:.2g} of {checked['comparisons']} "
            f"({checked['where']}, |z| {checked['max_abs_z']:.2f}, {checked['freedom']} degrees of freedom), "
            f"limit {checked['limit']:.2g} at a family-wise false-fail rate of {FAMILY_WISE:g}: "
            f"{'agree' if checked['passes'] else 'DISAGREE'}."
        )
    report.say(f"\n{instruments.text(tools)}\n")
    report.say(f"{len(table)} rows: {out / 'table.csv'}, {out / 'ledger.json'}; a figure for each claim")


if __name__ == "__main__":
    cli.run(main)
