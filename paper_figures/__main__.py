"""Draw the paper's figures and tables: `python -m paper_figures [--quick] [--out DIR] [NAME ...]`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ebpo_sim import cli, folders, html, report
from ebpo_sim.errors import unknown_name
from ebpo_sim.plots import Figure
from ebpo_sim.studies.training.cells import CELLS
from ebpo_sim.studies.training.placement import placement, sentence
from paper_figures import curves, language_model, loading, scoreboard
from paper_figures.data import TRAINING, Data
from paper_figures.page import Page

PAGES = {page.name: page for page in (scoreboard.PAGE, *scoreboard.PAGES)}
GALLERY = Path(__file__).parent / "gallery"
OTHERS = {  # pictures of the gallery that studies make
    "ratio_vs_icc": ("Baseline error against the intra-class correlation", "python -m ebpo_sim.mse_study"),
    "prediction": ("Predicted against measured steps", "python -m ebpo_sim.prediction_study"),
}
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
        told = f"{page.caption}{language_model.note(page.name, found)}"
        parts.append(f"## {page.title}\n\n![{page.title}]({page.name}.png)\n\n`{page.name}.png`. {told}\n")
        # The board repeats the verdicts of all others.
        lines = [] if page is scoreboard.PAGE else [f"- {v.line}" for v in page.verdicts(found)]
        if lines:
            parts.append("\n".join(lines) + "\n")
    if found.training:
        parts.append(f"Training study: {curves.seeds(found)}; worlds: {', '.join(found.worlds)}.\n")
        parts.append(f"{sentence(placement())}\n")
    return "\n".join(parts)


def gallery_page(pages: Sequence[Page], found: Data, pictures: Mapping[str, bytes]) -> bytes:
    """All pictures with captions and commands, and the verdicts, on one HTML page (pictures: PNG by name)."""
    command, quick = "python -m paper_figures", " --quick" if found.quick else ""
    shown = [
        html.Picture(
            page.title, pictures[page.name],
            f"{page.caption}{language_model.note(page.name, found)} Command: {command} {page.name}{quick}",
        )
        for page in pages
    ]  # fmt: skip
    for name, (title, study) in OTHERS.items():
        path = GALLERY / f"{name}.png"
        if len(pages) == len(PAGES) and path.exists():
            shown.append(html.Picture(title, path.read_bytes(), f"As committed. Command: {study}"))
    verdicts = [
        (page.title, v.word, v.line) for page in pages if page is not scoreboard.PAGE for v in page.verdicts(found)
    ]
    lead = f"{len(shown)} pictures, from the {'quick' if found.quick else 'full'} version of the studies."
    told = html.Table("Verdicts", ("figure", "verdict", "evidence"), verdicts)
    return html.page("The paper's figures on our ladder", lead, (*shown, *([told] if verdicts else [])))


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


def write(page: Page, found: Data, out: Path, gallery: bool) -> bytes:
    """One figure or table: PNG, and for tables Markdown and CSV; returns the small PNG, kept too with `gallery`."""
    figure = page.draw(found)
    report.save_figure(out / f"{page.name}.png", figure)
    if page.markdown is not None and page.records is not None:
        report.write_bytes(out / f"{page.name}.md", page.markdown(found).encode())
        report.write_csv(out / f"{page.name}.csv", page.records(found))
    small = small_png(figure)
    if gallery:
        report.write_bytes(GALLERY / f"{page.name}.png", small)
    return small


def main(argv: Sequence[str]) -> None:
    """Parse, load or simulate the tables, draw."""
    parser = cli.Parser(prog="python -m paper_figures", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(PAGES)}")
    add("--quick", action="store_true", help="a small version of everything, for a first look")
    about = "where files go (default results/paper_figures; single names, another seed: a folder of their own in it)"
    add("--out", default="results/paper_figures", metavar="DIR", help=about)
    add("--seed", type=int, default=0, help="same seed, same bytes, for any number of threads (default 0)")
    add("--threads", type=int, default=cli.available_cores(), help="default: all cores")
    add("--gallery", action="store_true", help="also renew the small pictures that the README shows")
    args = parser.parse_args(argv)
    cli.check_threads(args.threads)
    cli.check_seed(args.seed)
    pages = chosen(args.names)
    home = report.writable_folder(args.out) / ("quick" if args.quick else "full")
    args.out = str(home)
    parser.set_defaults(quick=args.quick)  # has its folder
    out = report.writable_folder(folders.own_folder(parser, args, argv))
    # Single figures are drawn from the tables of all, those of another seed from their own.
    home = report.writable_folder(str(home)) if args.seed == parser.get_default("seed") else out
    apart = out != home
    with ExitStack() as held:
        held.enter_context(report.locked(home, loading.TABLES, f"{loading.TABLES}/{TRAINING}/{CELLS}"))
        if apart:
            held.enter_context(report.locked(out))
        needs = {need for page in pages for need in page.needs}
        found = loading.load(needs, args.quick, home, args.seed, args.threads)
        pictures = {}
        with report.progress(len(pages), "drawing") as bar:
            for page in pages:
                pictures[page.name] = write(page, found, out, args.gallery)
                bar.update()
        whole = len(pages) == len(PAGES)
        text = captions(pages, found).encode()
        if whole or apart:  # a few names must not replace the captions of all
            report.write_bytes(out / "captions.md", text)
            report.write_bytes(out / "gallery.html", gallery_page(pages, found, pictures))
        if whole and args.gallery:
            report.write_bytes(GALLERY / "captions.md", text)
    for page in pages:
        if page is not scoreboard.PAGE:
            for verdict in page.verdicts(found):
                report.say(f"{page.name:18} {verdict.line}")
    report.say(
        f"{len(pages)} figures and tables: {out}{', all on one page: gallery.html there' if whole or apart else ''}"
    )


if __name__ == "__main__":
    cli.run(main)
