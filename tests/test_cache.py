"""Finished work in files: given back exactly, and never believed when it is not what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import cache

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@given(content=JSON)
def test_what_was_stored_is_given_back(content: object, folder: Path) -> None:
    """Guards exactness: every float to the last bit, after the way through the file."""
    path = folder / "kept.json"
    assert cache.store(path, content) == content
    assert repr(cache.load(path)) == repr(content)


CONTENT = {"scores": [0.25, 0.5], "rates": [1.0, 2.0]}


@given(at=st.integers(min_value=0), other=st.binary(min_size=1, max_size=1))
def test_a_changed_byte_is_seen(at: int, other: bytes, folder: Path) -> None:
    """Guards the checksum: with one byte replaced the file gives the same content (white space) or nothing."""
    path = folder / "changed.json"
    cache.store(path, CONTENT)
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + other + whole[at + 1 :])
    assert cache.load(path) in (CONTENT, None)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[]", b"[1]", b"null", b"7", b'"text"', b"NaN", b"\xff\xfe\x00", b"[" * 100_000, b'{"content": NaN}',
     b'{"name": "kept.json", "sha256": 5, "content": {}}'],
    ids=repr,
)  # fmt: skip
def test_damage_is_said_and_nothing_is_read(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards healing: whatever stands there instead, one line on standard error, and the work is done again."""
    path = tmp_path / "kept.json"
    assert cache.load(path) is None and capsys.readouterr().err == ""  # nothing there is no damage
    path.write_bytes(damage)
    assert cache.load(path) is None
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "kept.json is damaged" in err
    assert cache.store(path, CONTENT) == cache.load(path) == CONTENT


def test_a_file_in_another_s_place_and_a_cut_one(tmp_path: Path) -> None:
    """Guards names: content belongs to the file it was written to; half a file, one more key, a folder are none."""
    path = tmp_path / "kept.json"
    cache.store(path, CONTENT)
    (tmp_path / "other.json").write_bytes(path.read_bytes())
    assert cache.load(tmp_path / "other.json") is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    assert cache.load(path) is None
    cache.store(path, CONTENT)
    path.write_bytes(path.read_bytes()[:-9])
    assert cache.load(path) is None
    assert cache.load(tmp_path) is None
