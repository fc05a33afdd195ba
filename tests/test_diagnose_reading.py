"""Reading logs: every format, column detection, streaming, and every bad input refused with nothing written."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import cli, tables
from ebpo_sim.diagnose.__main__ import main, read
from ebpo_sim.diagnose.columns import detect, overrides
from ebpo_sim.diagnose.gathering import Log, gather
from ebpo_sim.diagnose.population import Population, populations
from ebpo_sim.diagnose.runs import of_one_size
from ebpo_sim.errors import InputError

ROWS = [("a", 1.0), ("b", 0.0), ("a", 0.0), ("b", 0.0), ("c", 1.0), ("c", 1.0), ("a", 1.0), ("b", 1.0), ("c", 1.0)]


def csv_text(rows: Sequence[Sequence[Any]], header: str) -> str:
    return header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def json_lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def put(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def only(path: str, columns: Sequence[str] = ()) -> Population:
    (population,) = read([path], columns)[1]
    return population


def counts(population: Population) -> list[tuple[int, int]]:
    assert population.successes is not None
    return sorted(zip(population.n.astype(int).tolist(), population.successes.astype(int).tolist(), strict=True))


def parquet(path: Path, columns: dict[str, list[Any]]) -> str:
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow.table(columns), path)
    return str(path)


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.tsv", "r.jsonl", "r.jsonl.gz", "r.parquet"])
def test_every_format_gives_the_same_groups(tmp_path: Path, name: str) -> None:
    """Guards the readers: the same rows in any format, plain or compressed, are the same groups."""
    if "parquet" in name:
        path = parquet(tmp_path / name, {"prompt_id": [p for p, _ in ROWS], "reward": [r for _, r in ROWS]})
    elif "json" in name:
        path = put(tmp_path / name, json_lines([{"prompt_id": p, "reward": r} for p, r in ROWS]))
    else:
        text = csv_text(ROWS, "prompt_id,reward")
        path = put(tmp_path / name, text.replace(",", "\t") if "tsv" in name else text)
    assert counts(only(path)) == [(3, 1), (3, 2), (3, 3)]


def test_verl_dumps_are_read_as_written(tmp_path: Path) -> None:
    """Guards verl: a folder of STEP.jsonl; the score is the reward whatever else is dumped; -1 and 1 become 0 and 1."""
    for step in (1, 2, 10):
        dumped = {"output": "", "gts": "4", "step": step, "acc": 9.0, "reward": 9.0}
        rows = [
            {"input": f"solve {q} " * 30, "score": float(s), **dumped}
            for q in range(3)
            for s in (1, -1, 1 if q else -1, -1)
        ]  # fmt: skip
        put(tmp_path / "dump" / f"{step}.jsonl", json_lines(rows))
    columns, (population,) = read([str(tmp_path / "dump")])
    assert (columns.role["prompt"], columns.rewards, columns.role["step"]) == ("input", ("score",), "step")
    assert counts(population) == [(4, 1)] * 3 + [(4, 2)] * 6
    assert population.step is not None and sorted(set(population.step)) == [1, 2, 10]
    assert (population.prompts, population.groups) == (3, 9)
    assert any("-1 or 1" in note for note in population.notes)


def test_trl_tables_are_read_as_written(tmp_path: Path) -> None:
    """Guards TRL: reward functions between completion and advantage are summed; a row that none applies to is left out;
    conversations are prompts."""
    talk = [[{"role": "user", "content": q}] for q in ("x", "x", "x", "y", "y", "y")]
    path = parquet(
        tmp_path / "completions_00001.parquet",
        {
            "step": [1] * 6,
            "prompt": talk,
            "completion": ["c"] * 6,
            "accuracy": [1.0, 0.0, 1.0, 0.0, None, 0.0],
            "format": [0.5, 0.0, None, 0.5, None, 0.0],
            "note": ["n"] * 6,
            "advantage": [0.0] * 6,
        },
    )
    columns, (population,) = read([path])
    assert columns.rewards == ("accuracy", "format")
    assert population.n.tolist() == [3, 2]
    np.testing.assert_allclose(population.rate, [2.5 / 3, 0.25])
    assert {note.split(" ")[0] for note in population.notes} >= {"1", "the"}
    assert population.flat_R.tolist() == [[False, False], [True, False]]
    assert only(path, ["reward=accuracy"]).rate.tolist() == [2 / 3, 0.0]


def test_one_row_a_prompt_and_histograms(tmp_path: Path) -> None:
    """Guards counts: rows with ids, rows without, and histogram cells with a multiplicity."""
    ids = put(tmp_path / "ids.csv", "prompt_id,rollouts,successes\na,4,1\nb,4,3\nc,8,0\n")
    assert counts(only(ids)) == [(4, 1), (4, 3), (8, 0)]
    anonymous = put(tmp_path / "no.csv", "rollouts,successes\n4,1\n4,1\n")
    assert only(anonymous).groups == 2
    histogram = put(tmp_path / "h.csv", "model,rollouts,successes,prompts\nm,4,1,10\nm,4,3,5\nk,4,0,1\nk,4,2,1\n")
    names = {p.name: p.groups for p in read([histogram])[1]}
    assert names == {"m": 15, "k": 2}


def test_columns_are_detected_and_overridden() -> None:
    """Guards detection: near names, order of preference, overrides, and a role left out."""
    found = detect(["Question_ID", "Score", "global_step", "difficulty"], {}, {}, "f")
    assert dict(found.role) == {"prompt": "Question_ID", "step": "global_step", "cluster": "difficulty"}
    assert found.rewards == ("Score",)
    changed = detect(["q", "r1", "r2", "level"], {}, overrides(["reward=r1+r2,prompt=q", "cluster="]), "f")
    assert (changed.rewards, dict(changed.role)) == (("r1", "r2"), {"prompt": "q"})
    assert "reward = r1 + r2" in changed.said()
    with pytest.raises(InputError, match="ROLE=COLUMN"):
        overrides(["nothing=x"])
    with pytest.raises(InputError, match="no column 'z'"):
        detect(["q"], {}, {"prompt": "z"}, "f")


@given(st.data())
def test_streaming_equals_one_shot(data: st.DataObject) -> None:
    """Guards streaming: chunks of any size and early merges give the same groups; binary ones to the last bit."""
    binary = data.draw(st.booleans())
    reward = st.sampled_from([0.0, 1.0]) if binary else st.floats(-1e3, 1e3)
    rows = data.draw(st.lists(st.tuples(st.sampled_from("abcd"), reward), min_size=1, max_size=40))
    size = data.draw(st.integers(1, 9))
    names = ["prompt_id", "reward"]
    columns = detect(names, {}, {}, "f")

    def log(step: int, pending: int) -> Log:
        parts = [rows[i : i + step] for i in range(0, len(rows), step)]
        made = [
            tables.Chunk("f.jsonl", 1, dict(zip(names, map(list, zip(*part, strict=True)), strict=True)), len(part))
            for part in parts
        ]
        return gather(iter(made), columns, pending)

    whole, pieces = log(len(rows), 10**6), log(size, 3)
    for a, b in zip(whole.groups, pieces.groups, strict=True):
        if binary and a is not whole.groups.m2 and a is not whole.groups.mean:
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9)
    for key, n, mean, m2 in zip(*whole.groups[:4], strict=True):
        code = list(dict.fromkeys(p for p, _ in rows))[int(key) >> 24]
        own = [r for p, r in rows if p == code]
        assert n == len(own)
        assert mean == pytest.approx(np.mean(own), abs=1e-9)
        assert m2 == pytest.approx(np.var(own) * len(own), rel=1e-9, abs=1e-6)
    if binary and len(rows) > 1:
        try:
            a, b = populations(whole), populations(pieces)
        except InputError:
            return
        assert a[0].counts == b[0].counts


GOOD = "prompt_id,reward\na,1\na,0\nb,1\nb,0\n"
BAD = {
    "missing.csv": ("x,y\n1,2\n", "no column for the prompt id"),
    "no_reward.csv": ("prompt_id,y\n1,2\n", "no column for the reward"),
    "text.csv": ("prompt_id,reward\na,1\na,good\n", "row 2: reward must be a number, got 'good'"),
    "text.jsonl": ('{"prompt_id": 1, "reward": "0.5"}\n', "reward must be a number, got '0.5'"),
    "infinite.csv": ("prompt_id,reward\na,1\na,inf\n", "must be finite"),
    "single.csv": ("prompt_id,reward\na,1\nb,0\nc,1\n", "one rollout"),
    "one_prompt.csv": ("prompt_id,reward\na,1\na,0\na,1\n", "fewer than 2 prompts"),
    "duplicate.csv": ("prompt_id,rollouts,successes\na,4,1\na,4,2\n", "repeat a prompt id, first 'a'"),
    "impossible.csv": ("rollouts,successes\n4,5\n", "row 1: needs whole numbers"),
    "half.csv": ("rollouts,successes\n4,0.5\n", "whole numbers"),
    "short.csv": ("prompt_id,reward,step\na,1,1\na,0\n", "row 2 has 2 of 3 columns"),
    "cut.jsonl": ('{"prompt_id": 1, "reward": 1}\n{"prompt_id": 1, "rew', "row 2 is not JSON"),
    "list.jsonl": ("[1, 2]\n", "not a JSON object"),
    "hole.jsonl": ('{"prompt_id": 1, "reward": 1}\n{"prompt_id": 1}\n', "row 2 has no column 'reward'"),
    "no_id.jsonl": ('{"prompt_id": null, "reward": 1}\n', "prompt id in column 'prompt_id' is empty"),
    "step.csv": ("prompt_id,reward,step\na,1,x\n", "step must be a number"),
    "empty.csv": ("", "holds no row"),
    "header.csv": ("prompt_id,reward\n", "holds no row"),
    "nothing.csv": ("prompt_id,reward\na,\na,\n", "no rollout with a reward"),
    "twice.csv": ("prompt_id,reward,reward\na,1,1\n", "names a column twice"),
    "broken.parquet": ("PAR1 and then nothing", "Parquet"),
    "unknown.xlsx": (GOOD, "no known format"),
    "binary.csv": ("\ud800", "cannot be read"),
}


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["diagnose", *arguments])
    with pytest.raises(SystemExit) as leaving:
        cli.run(main)
    assert leaving.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Guards refusals: one line that names the trouble, exit code 2, nothing written."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    text, message = BAD[name]
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    out = tmp_path / "out"
    said = refusal(monkeypatch, capsys, [str(tmp_path / name), "--out", str(out)])
    assert message in said and said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("cut", [20, -9, 60])
def test_damaged_gzip_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    """Guards compressed logs: truncated or altered ones are refused, wherever the damage lies."""
    rng = np.random.default_rng(0)
    rows = "".join(f"q{i // 4},{rng.integers(2)}\n" for i in range(4000))
    whole = gzip.compress(("prompt_id,reward\n" + rows).encode())
    broken = whole[:cut] if cut < 0 else whole[:cut] + bytes(8) + whole[cut + 8 :]
    (tmp_path / "r.csv.gz").write_bytes(broken)
    out = tmp_path / "out"
    said = refusal(monkeypatch, capsys, [str(tmp_path / "r.csv.gz"), "--out", str(out)])
    assert "r.csv.gz" in said
    assert not out.exists()


def test_bad_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards options: near names are suggested, a breakdown needs its column, sizes have a range."""
    path = put(tmp_path / "r.csv", GOOD)
    out = tmp_path / "out"
    for arguments, message in (
        (["--estimator", "epbo"], "did you mean 'ebpo'"),
        (["--by", "step"], "no such column"),
        (["--group-size", "0"], "--group-size must be at least 1, got 0: 2 to 32 are usual"),
        (["--model", "x"], "unknown --model"),
        (["--columns", "reward=z"], "no column 'z'"),
        (["--seed", "-1"], "--seed"),
        ([str(tmp_path / "absent.csv")], "does not exist"),
        ([str(tmp_path)], "no column"),
    ):
        if arguments == [str(tmp_path)]:
            put(tmp_path / "z.csv", "a,b\n1,2\n")
        assert message in refusal(monkeypatch, capsys, [path, *arguments, "--out", str(out)])
    assert not out.exists()


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the optional import: without pyarrow the refusal says what to install."""
    put(tmp_path / "r.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"ebpo-sim\[diagnose\]"):
        read([str(tmp_path / "r.parquet")])


def test_mixed_sizes_single_rollouts_and_missing_rewards_are_said(tmp_path: Path) -> None:
    """Guards restrictions: what is left out, and what estimates then rest on, is stated."""
    rows = [("a", 1), ("a", 0), ("b", 1), ("b", 0), ("b", 0), ("c", 1), ("d", ""), ("d", 1), ("d", 0)]
    population = only(put(tmp_path / "r.csv", csv_text(rows, "prompt_id,reward")))
    notes = (*population.notes, of_one_size(population, 0)[2])
    assert any("1 of 4 groups have one rollout" in n for n in notes)
    assert any("1 of 9 rows have no reward" in n for n in notes)
    assert any("2 to 3 rollouts" in n for n in notes)
