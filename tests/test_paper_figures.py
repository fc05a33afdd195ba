"""The figures and tables: drawn from a small made-up table, verdicts on constructed rows, reported numbers."""

from __future__ import annotations

import ast
import io
import itertools
import math
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import pytest

from ebpo_sim.compare.contrasts import select
from ebpo_sim.compare.verdicts import VERDICTS
from ebpo_sim.errors import InputError
from ebpo_sim.studies.failure import study as failure_study
from ebpo_sim.studies.training import study as training_study

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # paper_figures runs from the checkout; it is not installed

from paper_figures import __main__ as program  # noqa: E402
from paper_figures import curves, data, language_model, loading, reported, style  # noqa: E402
from paper_figures.data import Data  # noqa: E402

ESTIMATORS = ("grpo", "dr_grpo", "grpo_batch_norm", "ebpo", "ebpo_released", "ebpo_debiased", "reinforce")
SWEPT = ("grpo", "ebpo", "ebpo_debiased")
REGIMES = {"plateau": 0.3, "noisy": 30.0}
METRICS = (
    "reward", "pass1", "maj16", "pass16", "entropy", "grad_norm", "kl", "shrinkage", "zero_signal", "gradient_cosine",
    "gradient_variance",
)  # fmt: skip
STEPS = (0, 20, 40, 60)


def training_rows(
    effect: float = 0.05, se: float = 0.01, worlds: tuple[str, ...] = ("chains",)
) -> list[dict[str, Any]]:
    """A long table of the training study's shape: curves that rise or fall, EBPO `effect` above GRPO."""
    cells = [(4, "shuffled", ESTIMATORS), *((4, order, SWEPT) for order in ("blocked", "easy_to_hard"))]
    cells += [(size, "shuffled", SWEPT) for size in (2, 8, 16, 32)]
    return [
        _row(world, size, order, optimiser, tuning, name, metric, step, effect, se)
        | {"regime": regime, "noise_ratio": ratio}
        for world in worlds
        for regime, ratio in REGIMES.items()
        for size, order, names in cells
        for optimiser in ("sgd", "adam")
        for tuning in ("own", "shared")
        for name in names
        for metric in METRICS
        for step in STEPS
    ]


def _row(
    world: str, size: int, order: str, optimiser: str, tuning: str, name: str, metric: str, step: int, effect: float,
    se: float,
) -> dict[str, Any]:  # fmt: skip
    progress = 1 - math.exp(-step / 30)
    value = 2 - 1.5 * progress if metric in ("entropy", "grad_norm", "kl") else 0.2 + 0.6 * progress
    shift = 0.0 if name == "grpo" else effect * progress * (1 + 0.3 * ESTIMATORS.index(name) / 7)
    first = name == "grpo"
    return {
        "world": world, "estimator": name, "group_size": size, "optimiser": optimiser, "order": order,
        "tuning": tuning, "rollouts": 64, "learning_rate": 0.1, "metric": metric, "step": step, "value": value + shift,
        "se": se,
        "difference": None if first else shift, "difference_se": None if first else se, "seeds": 4,
    }  # fmt: skip


TINY_ARMS = ("grpo", "ebpo", "ebpo:shrinkage=0", "ebpo:shrinkage=1", "ebpo_debiased:memory=0.95")


def tiny_table(path: Path, orders: tuple[str, ...] = ("shuffled",), effect: float = 0.05) -> Path:
    """A table as `llm.compare --publish` writes it, EBPO `effect` above GRPO at the end; no other metric at step 0."""
    lines = ["estimator,group_size,order,learning_rate,metric,step,value,se,difference,difference_se,seeds"]
    for size, order in [(4, "shuffled"), (2, "shuffled"), *((4, o) for o in orders[1:])]:
        for metric in ("pass1", "reward", "entropy", "grad_norm", "kl", "zero_signal"):
            for step in (0, 50, 100) if (size, order) == (4, "shuffled") else (100,):
                for arm in TINY_ARMS:
                    if (step == 0 and metric != "pass1") or (metric != "pass1" and (size, order) != (4, "shuffled")):
                        continue
                    gap = effect * step / 100
                    value = 0.3 + 0.002 * step + (gap if arm == "ebpo" else 0.0)
                    told = "," if arm == "grpo" else f"{gap if arm == 'ebpo' else 0.0},0.01"
                    lines.append(f"{arm},{size},{order},0.0003,{metric},{step},{value},0.01,{told},3")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made_up() -> Data:
    settings = failure_study.QUICK
    return Data(failure_study.simulate(settings), training_rows(), quick=True)


@pytest.fixture(scope="module")
def with_tiny(made_up: Data, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The same with a table of the tiny language model, run easy to hard too."""
    path = tiny_table(tmp_path_factory.mktemp("tiny") / "llm_curves.csv", ("shuffled", "easy_to_hard"))
    return Data(made_up.failure, made_up.training, True, language_model.load(path))


def png(module: Any, found: Data) -> bytes:
    content = io.BytesIO()
    module.draw(found).savefig(content, format="png", dpi=50, metadata={"Software": None})
    return content.getvalue()


@pytest.mark.parametrize("name", program.PAGES)
def test_every_figure_draws(name: str, made_up: Data, with_tiny: Data) -> None:
    """Guards drawing: a picture comes of a small table, with and without the tiny language model, and no warning."""
    module = program.PAGES[name]
    assert name == module.name and module.caption and module.title
    plain, both = png(module, made_up), png(module, with_tiny)
    assert plain.startswith(b"\x89PNG") and both.startswith(b"\x89PNG")
    assert (plain == both) == (name in ("figure1", "figure2"))


def boxes(figure: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(headings: titles, stamps, other texts beside axes, legends; everything: those, texts in axes, their labels), as
    boxes in pixels of what is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    apart: list[Any] = [*figure.texts, *figure.legends]
    inside: list[Any] = []
    for axis in (a for a in figure.axes if a.get_visible()):
        apart += [axis.title, axis._left_title, axis._right_title, *filter(None, [axis.get_legend()])]
        inside += axis.texts
        inside += [axis.xaxis, axis.yaxis] if axis.axison else []
    words = [a for a in apart if a.get_visible() and getattr(a, "get_text", lambda: "legend")().strip()]
    named = {f"{getattr(a, 'get_text', lambda: 'legend')()[:40]!r} {i}": a for i, a in enumerate(words)}
    headings = {name: a.get_window_extent(renderer) for name, a in named.items()}
    others = {f"{a} {i}": a.get_tightbbox(renderer) for i, a in enumerate(inside) if a.get_visible()}
    return headings, headings | {name: box for name, box in others.items() if box is not None and box.width > 0}


def faults(figure: Any) -> list[str]:
    """What runs out of the figure, and which headings cover one another, by more than a pixel."""
    headings, everything = boxes(figure)
    width, height = figure.bbox.width, figure.bbox.height
    found = [
        f"{name} leaves the figure"
        for name, b in everything.items()
        if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1
    ]
    for (one, a), (other, b) in itertools.combinations(headings.items(), 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 1 and up > 1:
            found.append(f"{one} covers {other}")
    return found


@pytest.mark.parametrize("name", program.PAGES)
def test_texts_keep_to_their_places(name: str, made_up: Data, with_tiny: Data) -> None:
    """Guards layout: no text leaves the figure, no title, stamp or legend covers another; without the tiny language
    model neither."""
    for found in (with_tiny, made_up) if name in ("scoreboard", "figure5") else (with_tiny,):
        assert faults(program.PAGES[name].draw(found)) == []


def test_the_layout_test_sees_faults() -> None:
    """Guards the test above: a title that is too long, and two texts in one place."""
    figure = style.figure(4, 3)
    figure.add_subplot().set_title("far too long a title " * 5, loc="left")
    assert [fault.endswith("leaves the figure") for fault in faults(figure)] == [True]
    figure = style.figure(4, 3)
    style.title(figure, "one")
    style.title(figure, "two")
    assert faults(figure) == ["'one' 0 covers 'two' 1"]


def test_a_tie_on_the_plateau_says_nothing() -> None:
    """Guards the regimes: the same tie is no difference where noise counts and has no resolving power where it does
    not; the board counts every verdict of a column once."""
    tied = Data([], training_rows(effect=0.0, se=0.0001))
    words = {v.regime: v.word for v in program.PAGES["figure7"].verdicts(tied)}
    assert words == {"plateau": "no resolving power", "noisy": "no difference seen"}
    board = program.scoreboard.verdicts(tied)
    assert {v.regime for v in board} == {"", *REGIMES}  # figure 2 is in none
    captions = program.captions([program.PAGES["figure7"]], tied)
    assert "plateau 0.3 (64 rollouts × 60 steps), noisy 30" in captions and "do not place it in a regime" in captions


def titles(module: Any, found: Data) -> list[str]:
    return [a.get_title(loc="left") for a in module.draw(found).axes if a.axison and a.get_title(loc="left")]


def test_the_tiny_language_model_has_its_column(made_up: Data, with_tiny: Data, tmp_path: Path) -> None:
    """Guards the bridge: a panel of its own quantity, a verdict where the paper shows it, none where it has nothing."""
    more = {}
    for name in ("figure3", "figure4", "figure5", "figure6", "figure7", "figure8", "table_group_sizes"):
        module = program.PAGES[name]
        plain, added = module.verdicts(made_up), [v for v in module.verdicts(with_tiny) if v.what.startswith("tiny LM")]
        assert [v for v in module.verdicts(with_tiny) if v not in added] == plain
        more[name] = [v.word for v in added]
    # At the end EBPO is 0.05 ± 0.04 above GRPO's 0.5; of entropy and reward more, of a step's KL less is claimed,
    # of which the mean over steps is 0.0375: three seeds cannot tell it from 0 (t = 4.3), nor from 1 %.
    assert more["figure5"] == more["figure7"] == more["figure8"] == ["appears"]
    assert more["figure4"] == ["no resolving power"] and more["figure6"] == []
    assert len(more["figure3"]) == 1 and more["table_group_sizes"] == ["appears"] * 2
    ours = [r for r in program.PAGES["table_group_sizes"].records(with_tiny) if r["optimiser"] == "lm"]
    assert len(ours) == 2 * len(TINY_ARMS) and {round(r["percent"]) for r in ours} == {50, 55}
    shown = {f"figure{i}": titles(program.PAGES[f"figure{i}"], with_tiny) for i in range(3, 9)}
    tiny = {name: [t.removesuffix(", tiny LM") for t in found if "tiny LM" in t] for name, found in shown.items()}
    assert tiny == {
        "figure3": ["gradient norm", "groups without a signal"], "figure4": ["KL of a step"],
        "figure5": ["entropy (nats)", "entropy"], "figure6": ["pass@1"], "figure7": ["reward"],
        "figure8": ["pass@1, %"],
    }  # fmt: skip
    assert len(titles(program.PAGES["figure6"], with_tiny)) == 7  # pass@16 was not measured: an empty place
    shuffled = Data([], made_up.training, llm=language_model.load(tiny_table(tmp_path / "table.csv")))
    assert not [t for t in titles(program.PAGES["figure8"], shuffled) if "tiny" in t]
    assert "The tiny LM was not run easy to hard." in language_model.note("figure8", shuffled)


def test_captions_tell_the_rung_of_the_tiny_language_model(made_up: Data, with_tiny: Data) -> None:
    """Guards captions: whose panels they are, how many seeds, and what is not comparable; silence without a table."""
    modules = list(program.PAGES.values())
    plain, both = program.captions(modules, made_up), program.captions(modules, with_tiny)
    assert "iny LM" not in plain and "(the rest): no language model." in plain
    assert "no language model" not in both and "(the rest); “tiny LM” is rung 3." in both
    told = "Tiny LM: rung 3, a tiny language model under AdamW (llm.compare), 3 seeds a method, so that 2 standard errors cover 82 %, 100 steps"  # noqa: E501
    assert both.count(told) == 9  # figures 3 to 8 and three tables
    assert "shown is pass@1, without a verdict" in both and both.count("It has no row here.") == 2
    assert "tiny LM, own learning rates (0.0003): appears (+0.050 ± 0.043)" in both
    assert language_model.note("figure1", with_tiny) == language_model.note("figure7", made_up) == ""


def test_the_table_of_the_tiny_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards reading: absent is none, foreign columns are refused, and the figures find what is there."""
    assert language_model.load(tmp_path / "absent.csv") == []
    path = tiny_table(tmp_path / "llm_curves.csv")
    (row,) = select(
        language_model.load(path), **curves.cell(Data([], []), "lm", "adam", "reward"), estimator="ebpo", step=50
    )
    assert (row["value"], row["se"], row["difference"], row["seeds"]) == (pytest.approx(0.425), 0.01, 0.025, 3)
    monkeypatch.setattr(language_model, "TABLE", path)
    monkeypatch.setattr(training_study, "rows", lambda *_: training_rows())
    assert len(loading.load({data.TRAINING}, True, tmp_path, 0, 1).llm) == len(path.read_text().splitlines()) - 1
    assert loading.load(set(), True, tmp_path, 0, 1).llm == []
    path.write_text("estimator,value\ngrpo,1\n")
    with pytest.raises(InputError, match=r"llm\.compare --publish"):
        language_model.load(path)


def test_the_shipped_table_is_small_and_whole() -> None:
    """Guards the repository: where a table is shipped, it is small, paired with GRPO, and has every figure's metric."""
    if not language_model.TABLE.exists():
        pytest.skip("no comparison is published yet")
    rows = language_model.load(language_model.TABLE)
    assert language_model.TABLE.stat().st_size < 150_000
    assert {r["metric"] for r in rows} == {"pass1", "reward", "entropy", "grad_norm", "kl", "zero_signal"}
    assert {"grpo", "ebpo", "ebpo:shrinkage=0", "ebpo:shrinkage=1"} <= {r["estimator"] for r in rows}
    assert min(r["seeds"] for r in rows) >= 5 and {2, 4, 8} <= {r["group_size"] for r in rows}


@pytest.mark.parametrize("name", ["figure2", "figure5", "table_methods", "scoreboard"])
def test_same_rows_same_bytes(name: str, made_up: Data) -> None:
    """Guards reproducibility: drawing twice gives the same bytes."""
    assert png(program.PAGES[name], made_up) == png(program.PAGES[name], made_up)


@pytest.mark.parametrize("name", program.PAGES)
def test_missing_cells_are_shown_as_missing(name: str) -> None:
    """Guards partial tables: with no rows at all a figure still draws, and claims nothing."""
    module, empty = program.PAGES[name], Data([], [])
    if name not in ("figure2", "scoreboard"):
        assert png(module, empty).startswith(b"\x89PNG")
        assert {v.word for v in module.verdicts(empty)} <= {"not studied"}


def test_figure_2_says_what_theory_says(made_up: Data) -> None:
    """Guards the exact verdicts: the raw penalty is there, the history's effect and the silent batch's are not."""
    words = [v.word for v in program.PAGES["figure2"].verdicts(made_up)]
    assert words == ["appears", "negligible", "negligible"]


@pytest.mark.parametrize(
    "row", [r for r in reported.G4 if r.average is not None], ids=lambda r: f"{r.model}-{r.method}"
)
def test_reported_averages(row: reported.Result) -> None:
    """Guards the transcription: averages are those of their rows, except for the paper's slips."""
    assert row.average is not None
    slip = reported.SLIPS.get((row.model, row.method))
    if slip is None:
        assert row.mean == pytest.approx(row.average, abs=0.0051)
    else:
        assert row.mean == pytest.approx(slip, abs=0.0051)
        assert abs(row.mean - row.average) > 0.3


def test_reported_numbers_agree_with_each_other() -> None:
    """Guards the transcription: four slips; the group-size table starts with the main table's averages."""
    assert len(reported.SLIPS) == 4
    for method, by_size in reported.BY_GROUP_SIZE.items():
        row = reported.result("Qwen3-8B", method)
        assert row is not None and by_size[4] == row.average
    assert all(r.draft == (r.model == "LLaMA3.1-8B" and r.method == "EBPO") for r in reported.G4)


def test_tables_as_text(made_up: Data) -> None:
    """Guards Markdown and CSV: every row has every column, ours and the paper's are both there."""
    for name in ("table_methods", "table_group_sizes", "table_order"):
        module = program.PAGES[name]
        blocks = module.markdown(made_up).split("**")[2::2]
        assert len(blocks) == (2 if name == "table_methods" else 1)
        for block in blocks:
            assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) == 1
        records = module.records(made_up)
        assert {r["source"] for r in records} == {"ours", "paper"}
        assert len({tuple(r) for r in records}) == 1


def run(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paper_figures", *arguments, "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """Guards the command line: one line, a near name, exit code 2, and nothing written."""
    with pytest.raises(InputError, match="figure5"):
        program.chosen(["figur5"])
    found = run("figur5", out=tmp_path / "out")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: unknown figure or table 'figur5': did you mean")
    assert not (tmp_path / "out").exists()


def test_the_command_line_draws_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way from command to files: same bytes on the second run, which simulates nothing."""
    program.main(["--quick", "figure1", "figure2", "--threads", "1", "--out", str(tmp_path)])
    first = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {"figure1.png", "figure2.png"} <= first.keys() and "captions.md" not in first
    monkeypatch.setattr(failure_study, "simulate", lambda *_: pytest.fail("the table was there"))
    program.main(["--quick", "figure1", "figure2", "--threads", "1", "--out", str(tmp_path)])
    assert first == {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_single_names_keep_to_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards full results: without --out a few names, or another seed, write no file beside those of all; the tables
    of one seed are shared."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "results" / "paper_figures" / "quick"
    program.main(["--quick", "figure2", "--threads", "1"])
    own = home / "figure2"
    assert {p.name for p in own.iterdir()} == {"figure2.png", "captions.md", "gallery.html"}
    assert {p.name for p in home.iterdir()} == {"figure2", loading.TABLES}
    program.main(["--quick", "figure2", "--threads", "1", "--seed", "3"])
    assert {p.name for p in home.iterdir()} == {"figure2", "figure2,seed=3", loading.TABLES}
    assert (home / "figure2,seed=3" / loading.TABLES).is_dir() and len(list((home / loading.TABLES).iterdir())) == 1


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>onload=()=>{document.title=[innerWidth,document.documentElement.scrollWidth,document.images.length,
[...document.images].every(i=>i.naturalWidth>300&&i.width<=innerWidth)].join(" ")}</script></body>"""


def test_the_gallery_on_one_page(with_tiny: Data, tmp_path: Path) -> None:
    """Guards gallery.html: every picture with caption, command and verdicts, no request; in a browser, at the widths of
    a desktop and of a phone, all pictures load and nothing is wider than the page."""
    pages = list(program.PAGES.values())
    pictures = {page.name: program.small_png(page.draw(with_tiny)) for page in pages[:3]} | {
        page.name: (program.GALLERY / f"{page.name}.png").read_bytes() for page in pages[3:]
    }
    text = program.gallery_page(pages, with_tiny, pictures).decode()
    assert text.count("data:image/png;base64,") == len(pages) + len(program.OTHERS)
    assert all(f"python -m paper_figures {page.name} --quick" in text for page in pages)
    assert not re.findall(r"https?:|<link|@import", text) and "python -m ebpo_sim.mse_study" in text
    assert all(escape(v.line) in text for page in pages[1:] for v in page.verdicts(with_tiny))
    if BROWSER is None:
        return
    (tmp_path / "page.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    for width in (1280, 390):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                   f"--window-size={width},800", "--dump-dom", f"file://{tmp_path}/page.html"]  # fmt: skip
        seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        inner, scrolled, count, loaded = re.findall(r"<title>(.*?)</title>", seen)[0].split()
        assert (int(count), loaded) == (len(pages) + len(program.OTHERS), "true")
        assert int(scrolled) <= int(inner) <= max(width, 500), "a browser's least window is 500 pixels wide"


def test_other_settings_never_reuse_a_table(tmp_path: Path) -> None:
    """Guards against stale tables: another seed gets a table of its own."""
    one = loading.load({data.FAILURE}, True, tmp_path, 0, 1).failure
    assert loading.load({data.FAILURE}, True, tmp_path, 0, 1).failure == one
    assert loading.load({data.FAILURE}, True, tmp_path, 1, 1).failure != one
    assert len(list((tmp_path / "tables").glob("failure_study-*.json"))) == 2


def test_a_damaged_table_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards healing: an empty or foreign table is said and replaced by the bytes that were there."""
    one = loading.load({data.FAILURE}, True, tmp_path, 0, 1).failure
    (kept,) = (tmp_path / loading.TABLES).iterdir()
    whole = kept.read_bytes()
    for damage in (b"", b"{}", b"[1]"):
        kept.write_bytes(damage)
        assert loading.load({data.FAILURE}, True, tmp_path, 0, 1).failure == one
        assert capsys.readouterr().err.count("is damaged") == 1
        assert kept.read_bytes() == whole


@pytest.mark.parametrize("quick", [True, False])
def test_the_training_study_is_asked_for_once(quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way to the study: quick or full settings with the seed, every order, its files inside --out."""
    asked: list[Any] = []
    monkeypatch.setattr(training_study, "rows", lambda *given: asked.append(given) or training_rows())
    found = loading.load({data.TRAINING}, quick, tmp_path, 7, 1)
    ((settings, folder, threads),) = asked
    assert (settings.seed, threads) == (7, 1) and folder.is_relative_to(tmp_path)
    assert {"shuffled", "blocked", "easy_to_hard"} <= set(settings.orders) and {"grpo", "ebpo"} <= set(
        settings.estimators
    )
    assert quick or settings.seeds >= 8
    assert (tmp_path / "tables" / "training_study.csv").exists()
    assert found.training == training_rows() and "4 seeds a cell" in found.scale


def test_captions_tell_rung_version_and_verdicts(made_up: Data) -> None:
    """Guards captions.md: every figure with its caption, every verdict, and which version it is from."""
    text = program.captions(list(program.PAGES.values()), made_up)
    assert "From the quick version" in text and "Rung 0: exact sums" in text and "Rung 2: synthetic skill-chain" in text
    for module in program.PAGES.values():
        assert module.caption in text and f"]({module.name}.png)" in text
        assert all(v.line in text for v in module.verdicts(made_up) if module.name != "scoreboard")


def test_gallery_pictures_are_small(with_tiny: Data) -> None:
    """Guards the repository's size: a gallery picture stays below 120 kB, those committed too."""
    assert len(program.small_png(program.PAGES["figure3"].draw(with_tiny))) < program.SMALL
    assert not [p.name for p in program.GALLERY.glob("*.png") if p.stem in program.PAGES and p.stat().st_size > 120_000]


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_figures_stay_light() -> None:
    """Guards the pictures: nothing here touches pyplot, which keeps global state, or torch, or prints."""
    for path in (ROOT / "paper_figures").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not {"matplotlib.pyplot", "torch"} & imported(path)
        assert "pyplot." not in text and "print(" not in text
        assert text.count("\n") < 200


def test_every_word_has_a_colour() -> None:
    """Guards the stamps: each has one, all different."""
    assert style.STAMPS.keys() == {*VERDICTS} and len(set(style.STAMPS.values())) == len(VERDICTS)


def test_figures_judge_nothing() -> None:
    """Guards one vocabulary: no word of a verdict in the figures but as the name of a colour, and no statistics."""
    for path in (ROOT / "paper_figures").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in VERDICTS]
        assert words == ([] if path.name != "style.py" else list(style.STAMPS)), path
        assert not {f"ebpo_sim.compare.{name}" for name in ("differences", "verdicts")} & imported(path), path
