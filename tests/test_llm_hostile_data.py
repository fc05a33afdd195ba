"""Data sets that no reader expects: problems with plain text, or one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm.tasks import load_problems

ROW = '{"prompt": %s, "answer": %s}\n'
HOSTILE = {
    "brackets": "[" * 100_000,
    "long number": ROW % ('"p"', "1" * 6000),
    "infinite number": ROW % ('"p"', "1e400"),
    "not a number": ROW % ('"p"', "NaN"),
    "half a pair in the prompt": ROW % (r'"a\ud800"', '"1"'),
    "half a pair in the answer": ROW % ('"p"', r'"\udfff"'),
    "half a pair in a message": ROW % (r'[{"role": "user", "content": "\ud800"}]', '"1"'),
    "half a pair in the topic": r'{"prompt": "p", "answer": "1", "topic": "\ud800"}',
    "deep answer": ROW % ('"p"', "[" * 800 + "1" + "]" * 800),
    "deep id": '{"prompt": "p", "answer": "1", "id": ' + "[" * 990 + "]" * 990 + "}",
    "binary": "\x00\x01",
    "list": "[1, 2]",
    "text": '"a"',
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".arrow"])
def test_hostile_files_are_one_line(case: str, suffix: str, tmp_path: Path) -> None:
    """Guards reading: whatever the bytes, problems with plain text or one line; never another exception."""
    path = tmp_path / f"hostile{suffix}"
    path.write_text(HOSTILE[case])
    try:
        found = load_problems(str(path))
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert case == "deep id" and found[0].prompt.startswith("p")


def test_names_that_no_file_can_have_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_problems("x" * 5000)
    with pytest.raises(InputError, match="must be"):
        load_problems("a\0b")


def test_levels_of_any_length(tmp_path: Path) -> None:
    """Guards levels: the digits of a text may be more than Python turns into a number."""
    path = tmp_path / "l.jsonl"
    path.write_text(json.dumps({"prompt": "p", "answer": "1", "level": "9" * 6000}))
    assert load_problems(str(path))[0].cell.level == 999_999_999
