"""Draw the paper's figures and tables: `python -m paper_figures [--quick] [--out DIR] [NAME ...]`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ebpo_sim import cli, report
from ebpo_sim.errors import unknown_name
from ebpo_sim.studies.training.cells import CELLS
from paper_figures import (
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    language_model,
    loading,
    scoreboard,
    table_group_sizes,
    table_methods,
    table_order,
    tables,
)  # fmt: skip
from paper_figures.data import TRAINING, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODULES: dict[str, ModuleType] = {
    m.NAME: m
    for m in (
        scoreboard, figure1, figure2, figure3, figure4, figure5, figure6, figure7, figure8, table_methods,
        table_group_sizes, table_order,
    )
}  # fmt: skip
GALLERY = Path(__file__).parent / "gallery"
SMALL = 120_000  # bytes a picture of the gallery may have
RESOLUTIONS = (110, 100, 90, 80, 70, 60)


def chosen(names: Sequence[str]) -> list[ModuleType]:
    """The modules of these names, all for none; an unknown name is refused with near ones."""
    for name in names:
        if name not in MODULES:
            raise unknown_name("figure or table", name, MODULES)
    return [MODULES[name] for name in dict.fromkeys(names or MODULES)]


def captions(modules: Sequence[ModuleType], found: Data) -> str:
    """All captions and verdicts, in Markdown."""
    parts = ["# Captions and verdicts\n", f"From the {'quick' if found.quick else 'full'} version of the studies.\n"]
    for module in modules:
        parts.append(
            f"## {module.TITLE}\n\n`{module.NAME}.png`. {module.CAPTION}{language_model.note(module.NAME, found)}\n"
        )
        # The board repeats the verdicts of all others.
        lines = [] if module is scoreboard else [f"- {v.line}" for v in module.verdicts(found)]
        if lines:
            parts.append("\n".join(lines) + "\n")
    if found.training:
        parts.append(f"Training study: {found.scale}; worlds: {', '.join(found.worlds)}.\n")
    return "\n".join(parts)


def small_png(figure: Figure) -> bytes:
    """The picture in 256 colours, at the finest resolution that keeps it small."""
    from PIL import Image

    for dpi in RESOLUTIONS:
        drawn, content = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
        # Transparent bands make thousands of shades, which cost more bytes than the eye gains.
        few = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
        few.save(content, format="png", optimize=True)
        if content.tell() < SMALL:
            break
    return content.getvalue()


def write(module: ModuleType, found: Data, out: Path, gallery: bool) -> None:
    """One figure or table: PNG, and for tables Markdown and CSV; with `gallery` the small PNG too."""
    figure = module.draw(found)
    report.save_figure(out / f"{module.NAME}.png", figure)
    if hasattr(module, "records"):
        text = "\n".join(tables.markdown(t) for t in module.all_tables(found))
        lines = "\n".join(f"- {v.line}" for v in module.verdicts(found))
        note = language_model.note(module.NAME, found)
        report.write_bytes(
            out / f"{module.NAME}.md", f"{text}\n{module.CAPTION} {found.scale}.{note}\n\n{lines}\n".encode()
        )
        report.write_csv(out / f"{module.NAME}.csv", module.records(found))
    if gallery:
        report.write_bytes(GALLERY / f"{module.NAME}.png", small_png(figure))


def main(argv: Sequence[str]) -> None:
    """Parse, load or simulate the tables, draw."""
    parser = cli.Parser(prog="python -m paper_figures", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(MODULES)}")
    add("--quick", action="store_true", help="a small version of everything, for a first look")
    add("--out", default="results/paper_figures", metavar="DIR", help="where files go (default results/paper_figures)")
    add("--seed", type=int, default=0, help="same seed, same bytes, for any number of threads (default 0)")
    add("--threads", type=int, default=cli.available_cores(), help="default: all cores")
    add("--gallery", action="store_true", help="also renew the small pictures that the README shows")
    args = parser.parse_args(argv)
    cli.check_threads(args.threads)
    cli.check_seed(args.seed)
    modules = chosen(args.names)
    out = report.writable_folder(args.out) / ("quick" if args.quick else "full")
    with report.locked(out, loading.TABLES, f"{loading.TABLES}/{TRAINING}/{CELLS}"):
        needs = {need for module in modules for need in module.NEEDS}
        found = loading.load(needs, args.quick, out, args.seed, args.threads)
        with report.progress(len(modules), "drawing") as bar:
            for module in modules:
                write(module, found, out, args.gallery)
                bar.update()
        if len(modules) == len(MODULES):  # a few names must not replace the captions of all
            text = captions(modules, found).encode()
            for folder in (out, GALLERY) if args.gallery else (out,):
                report.write_bytes(folder / "captions.md", text)
    for module in modules:
        if module is not scoreboard:
            for verdict in module.verdicts(found):
                report.say(f"{module.NAME:18} {verdict.line}")
    report.say(f"{len(modules)} figures and tables: {out}")


if __name__ == "__main__":
    cli.run(main)
