"""Draw the paper's figures and tables: `python -m paper_figures [--quick] [--out DIR] [NAME ...]`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from ebpo_sim import cli, report
from ebpo_sim.errors import unknown_name
from ebpo_sim.plots import Figure
from ebpo_sim.studies.training.cells import CELLS
from ebpo_sim.studies.training.placement import placement, sentence
from paper_figures import curves, language_model, loading, scoreboard
from paper_figures.data import TRAINING, Data
from paper_figures.page import Page

PAGES = {page.name: page for page in (scoreboard.PAGE, *scoreboard.PAGES)}
GALLERY = Path(__file__).parent / "gallery"
SMALL = 120_000  # bytes a picture of the gallery may have
RESOLUTIONS = (110, 100, 90, 80, 70, 60)


def chosen(names: Sequence[str]) -> list[Page]:
    """The pages of these names, all for none; an unknown name is refused with near ones."""
    for name in names:
        if name not in PAGES:
            raise unknown_name("figure or table", name, PAGES)
    return [PAGES[name] for name in dict.fromkeys(names or PAGES)]


def captions(pages: Sequence[Page], found: Data) -> str:
    """All captions and verdicts, in Markdown."""
    parts = ["# Captions and verdicts\n", f"From the {'quick' if found.quick else 'full'} version of the studies.\n"]
    for page in pages:
        parts.append(f"## {page.title}\n\n`{page.name}.png`. {page.caption}{language_model.note(page.name, found)}\n")
        # The board repeats the verdicts of all others.
        lines = [] if page is scoreboard.PAGE else [f"- {v.line}" for v in page.verdicts(found)]
        if lines:
            parts.append("\n".join(lines) + "\n")
    if found.training:
        parts.append(f"Training study: {curves.seeds(found)}; worlds: {', '.join(found.worlds)}.\n")
        parts.append(f"{sentence(placement())}\n")
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


def write(page: Page, found: Data, out: Path, gallery: bool) -> None:
    """One figure or table: PNG, and for tables Markdown and CSV; with `gallery` the small PNG too."""
    figure = page.draw(found)
    report.save_figure(out / f"{page.name}.png", figure)
    if page.markdown is not None and page.records is not None:
        report.write_bytes(out / f"{page.name}.md", page.markdown(found).encode())
        report.write_csv(out / f"{page.name}.csv", page.records(found))
    if gallery:
        report.write_bytes(GALLERY / f"{page.name}.png", small_png(figure))


def main(argv: Sequence[str]) -> None:
    """Parse, load or simulate the tables, draw."""
    parser = cli.Parser(prog="python -m paper_figures", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(PAGES)}")
    add("--quick", action="store_true", help="a small version of everything, for a first look")
    add("--out", default="results/paper_figures", metavar="DIR", help="where files go (default results/paper_figures)")
    add("--seed", type=int, default=0, help="same seed, same bytes, for any number of threads (default 0)")
    add("--threads", type=int, default=cli.available_cores(), help="default: all cores")
    add("--gallery", action="store_true", help="also renew the small pictures that the README shows")
    args = parser.parse_args(argv)
    cli.check_threads(args.threads)
    cli.check_seed(args.seed)
    pages = chosen(args.names)
    out = report.writable_folder(args.out) / ("quick" if args.quick else "full")
    with report.locked(out, loading.TABLES, f"{loading.TABLES}/{TRAINING}/{CELLS}"):
        needs = {need for page in pages for need in page.needs}
        found = loading.load(needs, args.quick, out, args.seed, args.threads)
        with report.progress(len(pages), "drawing") as bar:
            for page in pages:
                write(page, found, out, args.gallery)
                bar.update()
        if len(pages) == len(PAGES):  # a few names must not replace the captions of all
            text = captions(pages, found).encode()
            for folder in (out, GALLERY) if args.gallery else (out,):
                report.write_bytes(folder / "captions.md", text)
    for page in pages:
        if page is not scoreboard.PAGE:
            for verdict in page.verdicts(found):
                report.say(f"{page.name:18} {verdict.line}")
    report.say(f"{len(pages)} figures and tables: {out}")


if __name__ == "__main__":
    cli.run(main)
