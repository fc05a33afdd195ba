"""The one reader of tables: what every format shares, and what a row's place is called."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ebpo_sim import budget, tables
from ebpo_sim.errors import InputError

ROWS = [{"a": "1", "b": "x,\ny"}, {"a": "2", "b": "#z"}]
CSV = '\ufeff# a comment, "\n# another\na,b\n1,"x,\ny"\n\n2,#z\n'
LINES = "".join(json.dumps(row) + "\n\n" for row in ROWS)
TEXTS = {
    "t.csv": (CSV, ("line 5", "line 7")),
    "t.tsv": (CSV.replace("a,b", "a\tb").replace('1,"', '1\t"').replace("2,", "2\t"), ("line 5", "line 7")),
    "no_suffix": (CSV, ("line 5", "line 7")),
    "t.jsonl": (LINES, ("row 1", "row 2")),
    "lines.json": (LINES, ("row 1", "row 2")),
    "list.json": (json.dumps(ROWS, indent=1), ("row 1", "row 2")),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_text_formats_give_the_same_rows(name: str, packed: bool, tmp_path: Path) -> None:
    """Guards formats: comments, a byte order mark, line breaks in cells and blank lines, plain and compressed; rows
    and chunks of columns alike."""
    text, places = TEXTS[name]
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    for size in (1, 8):
        assert list(tables.rows(path, ("a", "b"), size=size)) == [
            (f"{path}, {place}", row) for place, row in zip(places, ROWS, strict=True)
        ]
    if tables.format_of(path):
        (chunk,) = tables.chunks(path, ["b"])
        assert (chunk.row, chunk.size, list(chunk.columns["b"])) == (1, 2, ["x,\ny", "#z"])
        assert tables.peek(path) == (["a", "b"], ROWS[0])


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_binary_formats_give_the_same_rows(suffix: str, tmp_path: Path) -> None:
    """Guards Parquet and Arrow: the wanted columns alone, missing values as None."""
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table, path = arrow.Table.from_pylist([{"a": 1, "b": None}, {"a": None, "b": ["x"]}]), tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with arrow.OSFile(str(path), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    found = [row for _, row in tables.rows(path, wanted={"b"}, size=1)]
    assert found == [{"b": None}, {"b": ["x"]}]
    assert [where for where, _ in tables.rows(path, size=1)] == [f"{path}, row 1", f"{path}, row 2"]
    with pytest.raises(InputError, match="no column 'c': it needs a, c"):
        next(tables.rows(path, ("a", "c")))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,a\n1,2\n", "names a column twice: a, a"),
        ("t.csv", "a,b\n1,2\n1\n", "line 3 has 1 of 2 columns"),
        ("t.jsonl", '{"a": 1}\n{"b": 1}\n', "row 2 has no column 'a': it needs a"),
        ("t.json", '[{"a": 1}, 2]', "row 2 is not a JSON object"),
        ("t.json", '[{"a": 1}', "cannot be read"),
    ],
)
def test_refusals_name_file_and_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        list(tables.rows(tmp_path / name, ("a",)))
    assert str(tmp_path / name) in str(refused.value)


def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards memory: the one form that is read as a whole is compared with the machine; lines of any number are not."""
    monkeypatch.setattr(budget, "machine_memory", lambda: 100.0)
    (tmp_path / "t.json").write_text(json.dumps(ROWS))
    with pytest.raises(InputError, match=r"a JSON list, would take about .*write one JSON object a line"):
        next(tables.rows(tmp_path / "t.json"))
    (tmp_path / "t.jsonl").write_text(LINES)
    assert len(list(tables.rows(tmp_path / "t.jsonl"))) == 2
