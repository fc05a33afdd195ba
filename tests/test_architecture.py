"""The house rules, read off the sources: who may import whom, who prints, what importing an estimator costs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import ebpo_sim
import ebpo_sim.estimators

PACKAGE = Path(ebpo_sim.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = {name: ROOT / name for name in ("ebpo_sim", "llm", "paper_figures", "tests")}

PLAIN = {"errors", "typed", "numbers", "host", "groups", "sides", "part", "labels"}  # what everything may stand on
PARTS = {"estimators", "objectives", "sampling", "registry"}
# terminals, files, processes
SHELL = {
    "html",
    "report",
    "plots",
    "budget",
    "tables",
    "sources",
    "cache",
    "plugins",
    "pool",
    "cli",
    "folders",
    "rungs",
}
SIMULATION = {"worlds", "counts", "chains"}
MAY_IMPORT = {  # room -> the rooms it may import; what is not listed may not
    "errors": set(),
    "labels": set(),
    "typed": {"errors"},
    "numbers": {"errors"},
    "host": {"errors"},
    "part": {"typed"},
    "sides": {"errors", "host", "numbers"},
    "groups": {"errors", "host", "numbers", "sides"},
    "registry": {"errors", "typed"},
    "estimators": PLAIN,
    "objectives": PLAIN | {"registry"},
    "sampling": PLAIN | {"registry", "estimators"},
    "html": set(),
    "report": {"errors"},
    "budget": {"errors"},
    "plugins": {"errors"},
    "pool": {"errors", "plugins"},
    "rungs": PLAIN | PARTS,
    "methods": PLAIN | PARTS | {"cli", "report", "rungs"},
    "sources": set(),
    "tables": {"errors", "budget"},
    "cache": {"report", "sources"},
    "worlds": PLAIN | {"estimators", "sampling", "tables"},
    "folders": set(),
    "cli": {"errors", "folders", "plugins", "report"},
    "counts": PLAIN | PARTS | {"worlds"},
    "chains": PLAIN | PARTS | {"worlds", "report", "rungs", "methods"},
    "bias": PLAIN | PARTS,
    "compare": {"errors", "labels", "numbers", "cache", "pool", "report"},
    "studies": PLAIN | PARTS | SHELL | SIMULATION | {"bias", "compare", "methods"},
    "conventions": PLAIN | PARTS | {"cli", "report", "rungs", "worlds", "counts"},
    "docs": PLAIN | PARTS | {"cli", "report", "rungs", "worlds", "counts", "claims", "methods"},
    "timing": set(),
    "plots": set(),
    "bench": PLAIN | PARTS | SHELL | SIMULATION | {"timing"},
    "claims": PLAIN | PARTS | SHELL | SIMULATION | {"bias", "studies"},
    "diagnose": PLAIN | PARTS | SHELL | {"worlds", "counts", "studies"},
    "integrations": PLAIN | PARTS | {"report", "rungs", "methods", "plugins"},
    "__init__": PLAIN | PARTS,
    "__main__": {"cli", "report"},
    "dossier": PLAIN | PARTS | SHELL | {"check", "claims", "methods", "studies"},
    "check": PLAIN | PARTS | {"cli", "report", "plugins"},
    "leaderboard": {"cli", "studies"},
    "sample_log": {"cli", "report", "chains"},
    **{f"{name}_study": {"cli", "studies"}
       for name in ("mse", "entropy", "failure", "clustering", "hidden_bias", "training", "prediction", "noise",
                    "recorded", "allocation", "methods")},
}  # fmt: skip


def room(path: Path) -> str:
    """The folder or module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names of everything a file imports, wherever in the file; from-imports name what they take."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(path: Path) -> set[str]:
    """The rooms of the package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("ebpo_sim.")} - {room(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """Guards the layers: every module has a room, and imports only from the rooms below it."""
    assert room(path) in MAY_IMPORT, "a new module needs its place in MAY_IMPORT"
    assert inside(path) <= MAY_IMPORT[room(path)]


def test_the_layers_have_no_cycle() -> None:
    """Guards the table above: it can be put in an order in which every room follows those it imports."""
    assert circles({name: below - {name} for name, below in MAY_IMPORT.items()}) == set()


def taken(path: Path) -> set[str]:
    """The rooms of the package that a file outside of it imports; `ebpo_sim` for its front door, group_rewards."""
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("ebpo_sim.")}
    return {"ebpo_sim" if name not in MAY_IMPORT and hasattr(ebpo_sim, name) else name for name in rooms}


def folders_of(path: Path) -> set[str]:
    """The checkout's folders that a file imports from, and the modules of tests/."""
    return {name.split(".")[0] for name in imports(path)} & {*FOLDERS, *(p.stem for p in FOLDERS["tests"].glob("*.py"))}


def test_llm_stands_on_the_estimators_alone() -> None:
    """Guards the way up: llm imports parts and what touches files, never numba, a simulation or a study."""
    allowed = PLAIN | PARTS | SHELL | {"ebpo_sim", "compare", "integrations", "methods", "timing"}
    for path in sorted(FOLDERS["llm"].rglob("*.py")):
        assert "numba" not in {name.split(".")[0] for name in imports(path)}, path
        assert taken(path) <= allowed, path
        assert folders_of(path) <= {"ebpo_sim", "llm"}, path


def test_nothing_imports_what_stands_above_it() -> None:
    """Guards the folders: the package imports no other, the figures all of it but not llm, tests only their helpers."""
    for path in MODULES:
        assert folders_of(path) <= {"ebpo_sim"}, path
    for path in sorted(FOLDERS["paper_figures"].rglob("*.py")):
        assert taken(path) <= {"ebpo_sim", *MAY_IMPORT}, path
        assert folders_of(path) <= {"ebpo_sim", "paper_figures"}, path
    for path in sorted(FOLDERS["tests"].rglob("*.py")):
        assert not {name for name in folders_of(path) if name.startswith("test_")}, path


def graph() -> dict[str, set[str]]:
    """Dotted name of every module -> the modules it names in an import, for types and in functions too."""
    files = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for f in FOLDERS.values() for p in f.rglob("*.py")}
    files = {name.removesuffix(".__init__").removeprefix("tests."): path for name, path in files.items()}
    return {
        name: {(given if given in files else given.rpartition(".")[0]) for given in imports(path)} & files.keys()
        for name, path in files.items()
    }


def circles(edges: Mapping[str, set[str]]) -> set[str]:
    """The nodes that are left when those whose targets are all gone are taken away again and again."""
    left = {name: below & edges.keys() for name, below in edges.items()}
    while free := {name for name, below in left.items() if not below}:
        left = {name: below - free for name, below in left.items() if name not in free}
    return set(left)


def test_no_circle_between_modules() -> None:
    """Guards reading order: there is an order of all modules in which each comes after those it imports."""
    edges = graph()
    assert "paper_figures.data" in edges["paper_figures.language_model"] and "battery" in edges["test_contract"]
    assert circles(edges) == set()
    assert circles(edges | {"ebpo_sim.errors": {"ebpo_sim.cli"}}) >= {"ebpo_sim.errors", "ebpo_sim.cli"}


def test_the_adapters_are_short_and_every_package_is_shipped() -> None:
    """Guards the wheel and the adapters: every folder is a package and is found, and no adapter outgrows a reading."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert listed == {"find": {"include": ["ebpo_sim*"]}}
    assert {p.parent for p in MODULES} == {p.parent for p in PACKAGE.rglob("__init__.py")}
    for name in ("trl", "verl"):
        assert len((PACKAGE / "integrations" / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 200


def test_no_file_outgrows_a_reading() -> None:
    """Guards reading: no production file has more than 300 lines."""
    files = [p for name in ("ebpo_sim", "llm", "paper_figures") for p in FOLDERS[name].rglob("*.py")]
    lines = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert {name: n for name, n in lines.items() if n > 300} == {} and max(lines.values()) > 250


def test_the_import_reader_sees_imports() -> None:
    """Guards the guard: the modules that are known to import something are seen to do so."""
    assert inside(PACKAGE / "numbers" / "formulas.py") == inside(PACKAGE / "errors.py") == set()
    assert {"worlds", "estimators"} <= inside(PACKAGE / "counts" / "streams.py")
    assert {"rungs", "counts", "numbers"} <= inside(PACKAGE / "studies" / "mse" / "study.py")
    assert imports(PACKAGE / "numbers" / "formulas.py") == ()


def users_of(library: str) -> set[str]:
    return {p.name for p in MODULES if any(name.split(".")[0] == library for name in imports(p))}


def test_heavy_libraries_have_one_door() -> None:
    """Guards optional weight: numba only in kernels, torch only at the edge, matplotlib only where figures are made."""
    assert users_of("numba") == {"kernels.py"}
    assert users_of("torch") == {"host.py", "trl.py", "trl_loss.py", "trl_score_norms.py", "verl.py", "verl_loss.py"}
    assert {name for name in users_of("matplotlib") if not name.endswith("plots.py")} == {"report.py"}


def test_importing_the_estimators_is_light() -> None:
    """Guards trainers: importing the estimators, and using one, loads neither numba nor torch nor matplotlib."""
    program = (
        "import sys, ebpo_sim.estimators as e, ebpo_sim\n"
        "estimator = e.make('ebpo')\n"
        "estimator.step(estimator.init(), ebpo_sim.group_rewards([[0, 1], [1, 1]]))\n"
        "heavy = {'numba', 'torch', 'matplotlib', 'tqdm', 'tabulate', 'ebpo_sim.counts', 'ebpo_sim.worlds'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "[]", "")


def prints(path: Path) -> list[int]:
    """Lines that call print, or write to a standard stream."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "sys.stdout.write", "sys.stderr.write"):
                found.append(node.lineno)
    return found


def test_only_the_report_prints() -> None:
    """Guards one place for output: no call of print or write to a standard stream outside report.py."""
    assert {p.name for p in MODULES if prints(p)} == {"report.py"}


def decides_by_name(path: Path) -> list[int]:
    """Lines that ask whether a text is, holds or begins with the name of a preset or of a family of them."""
    names = {*ebpo_sim.estimators.names(), "oracle", "oracle_"}
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = node.args if node.func.attr in ("startswith", "endswith", "removeprefix", "find", "count") else []
        elif isinstance(node, ast.Compare) and getattr(node.left, "attr", "") != "kin":
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.match_case):
            asked = [n for n in ast.walk(node.pattern) if isinstance(n, ast.expr)]
        parts = [n for e in asked for n in ([e, *e.elts] if isinstance(e, (ast.Tuple, ast.List, ast.Set)) else [e])]
        if any(isinstance(n, ast.Constant) and str(n.value).partition(":")[0].rstrip("_") in names for n in parts):
            found.append(parts[0].lineno)
    return found


def test_general_code_names_no_method(tmp_path: Path) -> None:
    """Guards growth: what a rule is called decides nothing; kin and needs do. Claims and bias are about named ones."""
    own = {"estimators", "claims", "bias", "integrations"}  # integrations: names that verl has beside ours
    files = [path for name in ("ebpo_sim", "llm", "paper_figures") for path in FOLDERS[name].rglob("*.py")]
    general = [path for path in files if not (path.is_relative_to(PACKAGE) and room(path) in own)]
    assert {str(path.relative_to(ROOT)): lines for path in general if (lines := decides_by_name(path))} == {}
    for line in ("a.startswith('ebpo')", "a.startswith(('x', 'oracle_'))", "'grpo' in a", "a == 'ebpo:memory=0.9'",
                 "a in ('rloo', 'x')", "a[a != 'ebpo_debiased']"):  # fmt: skip
        (tmp_path / "bad.py").write_text(line)
        assert decides_by_name(tmp_path / "bad.py") == [1], line


def test_public_names_are_those_imported() -> None:
    """Guards __all__: exactly the names that the package's __init__ imports, each of them there."""
    imported = {name.rpartition(".")[2] for name in imports(Path(ebpo_sim.__file__))}
    assert sorted(ebpo_sim.__all__) == sorted(imported)
    assert all(hasattr(ebpo_sim, name) for name in ebpo_sim.__all__)


@pytest.mark.parametrize("name", ["estimators", "estimators.transforms", "objectives", "worlds", "claims"])
def test_rooms_export_what_they_import(name: str) -> None:
    """Guards the front doors: every name that such an __init__ takes from its own room is exported as it is called
    there, for type checkers too (`import x as x`), and is there; but for what it uses itself."""
    module = importlib.import_module(f"ebpo_sim.{name}")
    tree, seen = ast.parse(Path(module.__file__).read_text(encoding="utf-8")), 0
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        for alias in (
            node.names if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ebpo_sim.") else ()
        ):
            assert alias.asname == alias.name or alias.name in used, alias.name
            assert hasattr(module, alias.name)
            seen += alias.asname == alias.name
    assert seen >= 10


def tracked() -> list[Path]:
    """Text files of the checkout, by folder."""
    files = [path for folder in FOLDERS.values() for path in folder.rglob("*") if "__pycache__" not in path.parts]
    kinds = {".py", ".md", ".toml", ".csv", ".json", ".yaml", ".yml", ".cfg", ".sh"}
    return [path for path in (*files, *ROOT.glob("*")) if path.suffix in kinds and path.is_file()]


def test_no_machine_path_in_the_sources() -> None:
    """Guards portability: no path that exists on one machine only."""
    folders = ("home", "Users", "root", "work", "mnt", "srv", "scratch")
    pattern = re.compile(rf"(?<![\w.)/])/(?:{'|'.join(folders)})/\w")
    assert pattern.search("see /" + "home/someone/file")
    assert not pattern.search("https://example.org/" + "home/page")
    found = [str(path.relative_to(ROOT)) for path in tracked() if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []
    assert PACKAGE / "counts" / "kernels.py" in tracked()
