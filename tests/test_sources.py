"""The sources that a module imports: a change in any of them changes its hash and its keys, one elsewhere does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpo_sim import cache, sources
from ebpo_sim.studies.failure import study as failure_study

ROOT = Path(sources.__file__).parent.parent
USERS = ("ebpo_sim.studies.failure.study", "ebpo_sim.studies.training.cells", "llm.compare_runner")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The project's packages in a folder where they may be changed."""
    root = tmp_path_factory.mktemp("copy")
    for name in sources.PROJECT:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "gallery", "measured"))
    return tuple(root / name for name in sources.PROJECT)


def digest(module: str, folders: tuple[Path, ...]) -> str:
    sources.digest.cache_clear()
    return sources.digest(module, folders)


@pytest.mark.parametrize("module", USERS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_change_is_seen_exactly_where_it_counts(module: str, copy: tuple[Path, ...], data: st.DataObject) -> None:
    """Guards keys: a byte more in any file that is reached gives another hash, in any other file the same one."""
    within = set(sources.reached(module, copy))
    files = sorted(p for folder in copy for p in folder.rglob("*") if p.suffix in (".py", ".csv"))
    path = data.draw(st.sampled_from(files))
    before, content = digest(module, copy), path.read_bytes()
    path.write_bytes(content + b"\n")
    try:
        assert (digest(module, copy) != before) == (path in within)
    finally:
        path.write_bytes(content)


def test_what_is_reached_is_what_python_imports() -> None:
    """Guards the reader: a fresh interpreter that imports a study has loaded no file of the project beside those."""
    for module in USERS[:2]:
        program = (
            f"import sys, {module}\nprint(*(m.__file__ for m in [*sys.modules.values()] if hasattr(m, '__file__')))"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        loaded = {Path(p) for p in run.stdout.split() if Path(p).is_relative_to(ROOT / "ebpo_sim")}
        assert loaded and loaded <= set(sources.reached(module, sources.project()))


def test_a_mended_formula_is_never_served_the_old_table(copy: tuple[Path, ...]) -> None:
    """Guards what rests on what: tables on sums, worlds and their data; verified answers on the worker's scripts."""
    names = {p.relative_to(copy[0].parent).as_posix() for p in sources.reached(USERS[0], copy)}
    assert {"ebpo_sim/counts/exact.py", "ebpo_sim/counts/updates.py", "ebpo_sim/worlds/observed.csv"} <= names
    assert not {n for n in names if n.startswith(("llm/", "paper_figures/", "ebpo_sim/diagnose/", "ebpo_sim/claims/"))}
    names = {p.relative_to(copy[0].parent).as_posix() for p in sources.reached(USERS[2], copy)}
    scripts = {"verifier_worker", "verifier_function", "process_limits", "math_answers"}
    assert {f"llm/tasks/{name}.py" for name in scripts} <= names and "llm/gpu_check.py" not in names


def test_forms_of_import(tmp_path: Path) -> None:
    """Guards the reader: every form of import that runs a file is followed, what is for types alone is not."""
    package = tmp_path / "ebpo_sim"
    (package / "room").mkdir(parents=True)
    for name in ("__init__", "a", "b", "c", "d", "e", "room/__init__", "room/f", "room/script", "room/g"):
        (package / f"{name}.py").write_text("")
    (package / "a.py").write_text(
        "from __future__ import annotations\nimport os, ebpo_sim.b\n"
        "from ebpo_sim import c\nfrom ebpo_sim.room.f import x\n"
        "if TYPE_CHECKING:\n    from ebpo_sim import d\nelse:\n    from ebpo_sim.errors import y\n"
        "def later():\n    from ebpo_sim.b import z\n    import ebpo_sim.e as w\n"
    )
    (package / "room" / "f.py").write_text('run("script.py", "a path/g.py", "no.py")\n')
    found = {p.relative_to(package).as_posix() for p in sources.reached("ebpo_sim.a", (package,))}
    assert found == {f"{n}.py" for n in ("__init__", "a", "b", "c", "e", "room/__init__", "room/f", "room/script")}


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards names of files: settings and sources count, the order of a mapping does not; no strangers."""
    module = failure_study.__name__
    key = cache.key(module, {"a": 1, "b": (2,)}, "x")
    assert key == cache.key(module, {"b": [2], "a": 1}, "x") and len(key) == 20
    others = [
        cache.key(module, {"a": 1, "b": (3,)}, "x"),
        cache.key(module, {"a": 1, "b": (2,)}),
        cache.key(USERS[1], {}),
    ]
    assert len({key, *others}) == 4
    monkeypatch.setattr(sources, "digest", lambda name: "another")
    assert cache.key(module, {"a": 1, "b": (2,)}, "x") != key
    monkeypatch.undo()
    for stranger in ("numpy", "ebpo_sim.nothing", "ebpo_sim.errors.InputError"):
        with pytest.raises(ValueError, match="no module"):
            cache.key(stranger)
