"""Data sets of math word problems: layouts, conversions, refusals, and the sample that comes along."""

from __future__ import annotations

import csv
import json
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm.tasks import Cell, Problem, load_problems, make_verifier
from llm.tasks.word_problems import INSTRUCTION, SAMPLE

Row = dict[str, Any]
END = "\n" + INSTRUCTION


def write(path: Path, rows: list[Row]) -> str:
    """Rows as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return str(path)


def dapo(content: str, truth: str, index: str) -> Row:
    """A row in the layout of BytedTsinghua-SIA/DAPO-Math-17k."""
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": content, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": truth, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def test_dapo_repeats_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the published set, where every row comes about a hundred times: one problem each, contradictions none."""
    once = [dapo(f"Solve.\n\n{i}+{i}?\n\nRemember.", str(2 * i), f"uuid-{i}") for i in range(5)]
    wrong = [dapo("1+1?", "2", "a"), dapo("1+1?", "3", "b"), dapo("1+1?", "2", "c")]
    again = [dapo("Solve.\n\n0+0?\n\nRemember.", "0", "another-uuid")]  # one text under two ids is one prompt
    found = load_problems(write(tmp_path / "dapo-math-17k.parquet", once * 100 + wrong + again))
    text = "Solve.\n\n3+3?\n\nRemember."
    assert found[3] == Problem(text, "6", Cell("math_dapo", 0), "dapo-math-17k:uuid-3", (("user", text),))
    assert [p.id for p in found] == [f"dapo-math-17k:uuid-{i}" for i in range(5)]
    said = capsys.readouterr().out
    assert "5 problems" in said and "496 rows that repeat a prompt" in said and "3 whose prompt has different" in said


MATH_500 = {"problem": "Find $x$.", "solution": "...", "answer": r"\frac{3}{4}", "subject": "Precalculus", "level": 2,
            "unique_id": "test/precalculus/807.json"}  # fmt: skip
OLYMPIAD = {"id": 1606, "subfield": "Algebra", "context": None, "question": "Find all $x$.", "solution": ["..."],
            "final_answer": ["$2$", "$-\\frac{1}{2}$"], "is_multiple_answer": True, "unit": None,
            "answer_type": "Numerical", "error": None}  # fmt: skip
LAYOUTS: list[tuple[str, str, Row, Problem]] = [
    ("MATH-500", "m.jsonl", MATH_500,
     Problem("Find $x$." + END, r"\frac{3}{4}", Cell("Precalculus", 2), "m:test/precalculus/807.json")),
    ("MATH with a level in words", "m.csv", MATH_500 | {"level": "Level 5"},
     Problem("Find $x$." + END, r"\frac{3}{4}", Cell("Precalculus", 5), "m:test/precalculus/807.json")),
    ("HuggingFaceH4/aime_2024", "a24.parquet",
     {"id": 60, "problem": "P?", "solution": "S", "answer": "204", "url": "u", "year": "2024"},
     Problem("P?" + END, "204", Cell("a24", 0), "a24:60")),
    ("Maxwell-Jia/AIME_2024", "a24.parquet", {"ID": "2024-I-1", "Problem": "P?", "Solution": "S", "Answer": 33},
     Problem("P?" + END, "33", Cell("a24", 0), "a24:2024-I-1")),
    ("opencompass/AIME2025", "aime2025-I.jsonl", {"question": "Q?", "answer": "70"},
     Problem("Q?" + END, "70", Cell("aime2025-I", 0), "aime2025-I:0")),
    ("math-ai/aime25", "a25.jsonl", {"problem": "P?", "answer": "70", "id": "0"},
     Problem("P?" + END, "70", Cell("a25", 0), "a25:0")),
    ("MathArena/aime_2025", "a25.parquet", {"problem_idx": 1, "problem": "P?", "answer": 70},
     Problem("P?" + END, "70", Cell("a25", 0), "a25:1")),
    ("AI-MO/aimo-validation-amc", "amc.parquet", {"id": 0, "problem": "P?", "answer": 142.0, "url": "u"},
     Problem("P?" + END, "142", Cell("amc", 0), "amc:0")),
    ("AMC23 with both names", "amc.jsonl", {"id": 0, "problem": "P?", "answer": 27.0, "url": "u", "question": "P?"},
     Problem("P?" + END, "27", Cell("amc", 0), "amc:0")),
    ("math-ai/amc23, numbers as text", "amc.jsonl", {"id": 3, "question": "Q?", "answer": "27.0"},
     Problem("Q?" + END, "27", Cell("amc", 0), "amc:3")),
    ("OlympiadBench", "OE_TO_maths_en_COMP.json", OLYMPIAD,
     Problem("Find all $x$." + END, r"2, -\frac{1}{2}", Cell("Algebra", 0), "OE_TO_maths_en_COMP:1606")),
    ("OlympiadBench with context", "o.parquet", OLYMPIAD | {"context": "Let $n=1$.", "final_answer": ["$n$"]},
     Problem("Let $n=1$.\n\nFind all $x$." + END, "n", Cell("Algebra", 0), "o:1606")),
    ("openai/gsm8k", "gsm8k.parquet", {"question": "Q?", "answer": "2+2=<<2+2=4>>4\n1000*4=4000\n#### 4,000"},
     Problem("Q?" + END, "4000", Cell("gsm8k", 0), "gsm8k:0")),
    ("plain", "mine.csv", {"prompt": " P, Q? ", "answer": " [0, 1) ", "topic": "sets", "level": 3, "id": "x"},
     Problem("P, Q?" + END, "[0, 1)", Cell("sets", 3), "mine:x")),
    ("plain, the least", "mine.arrow", {"prompt": "P?", "answer": 0.5},
     Problem("P?" + END, "0.5", Cell("mine", 0), "mine:0")),
    ("plain with messages", "chat.jsonl",
     {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "P?"}], "answer": 1},
     Problem("Be brief.\n\nP?" + END, "1", Cell("chat", 0), "chat:0", (("system", "Be brief."), ("user", "P?" + END)))),
    ("open-r1/DAPO-Math-17k-Processed", "d.jsonl", dapo("x", "6", "u") | {"prompt": "P?", "solution": "6"},
     Problem("P?" + END, "6", Cell("math_dapo", 0), "d:u")),
]  # fmt: skip


@pytest.mark.parametrize(("file", "row", "expected"), [case[1:] for case in LAYOUTS], ids=[case[0] for case in LAYOUTS])
def test_layouts(tmp_path: Path, file: str, row: Row, expected: Problem) -> None:
    """Guards the table of layouts: a row with the true columns of each data set becomes the right problem."""
    assert load_problems(write(tmp_path / file, [row])) == [expected]


def test_instruction(tmp_path: Path) -> None:
    """Guards the prompt's ending: the default, the user's own, none, and chat prompts that bring theirs."""
    plain = write(tmp_path / "p.jsonl", [{"prompt": "P?", "answer": "1"}])
    chat = write(tmp_path / "c.jsonl", [dapo("P?", "1", "u")])
    assert [load_problems(plain, instruction=x)[0].prompt for x in (None, "", "Think.")] == [
        "P?" + END,
        "P?",
        "P?\nThink.",
    ]
    assert [load_problems(chat, instruction=x)[0].prompt for x in (None, "", "Think.")] == ["P?", "P?", "P?\nThink."]
    assert load_problems(chat, instruction="Think.")[0].messages == (("user", "P?\nThink."),)


def test_ids_fall_back_to_rows(tmp_path: Path) -> None:
    """Guards stable, distinct ids: where own ids repeat or are missing, all are rows, and a limit changes no id."""
    rows = [{"prompt": f"P{i}?", "answer": i, "id": i % 3} for i in range(4)]
    path = write(tmp_path / "p.jsonl", rows[:1] + rows)  # row 1 repeats row 0
    assert [p.id for p in load_problems(path)] == ["p:0", "p:2", "p:3", "p:4"]
    path = write(
        tmp_path / "q.jsonl", [{"prompt": "A?", "answer": 1, "id": "a"}, {"prompt": "B?", "answer": 1, "id": None}]
    )
    assert [p.id for p in load_problems(path)] == ["q:0", "q:1"]
    path = write(tmp_path / "r.jsonl", [{"prompt": f"{x}?", "answer": 1, "id": x} for x in "ab"])
    assert [p.id for p in load_problems(path)] == ["r:a", "r:b"]


P = {"prompt": "P?", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"text": "P?", "label": "1"}],
            r"columns text, label, which is no known layout: .*prompt and answer \(plain\)",
        ),
        ([P, {"prompt": "P?"}], "row 1, has no 'answer'"),
        ([P, P | {"prompt": "  "}], "row 1: the prompt is empty"),
        ([P | {"prompt": []}], "prompt must be text or messages with role and content"),
        ([P | {"prompt": [{"role": "user"}]}], "prompt must be text or messages with role and content"),
        ([P | {"prompt": None}], "prompt must be text or messages"),
        ([P | {"answer": " "}], "row 0: the answer is empty"),
        ([P | {"answer": "so\n####"}], "row 0: the answer is empty"),
        ([P | {"answer": None}], "answer must be text or a number, got None"),
        ([P | {"answer": True}], "answer must be text or a number, got True"),
        ([P | {"answer": []}], r"answer must be text or a number, got \[\]"),
        ([P | {"answer": float("nan")}], "answer must be text or a number, got nan"),
        ([dapo("P?", "1", "u") | {"reward_model": {"style": "rule"}}], "answer must be text or a number, got None"),
        ([OLYMPIAD | {"question": "See <image_1>."}], "needs a picture"),
        ([OLYMPIAD | {"final_answer": None}], "answer must be text or a number, got None"),
        ([P, P | {"answer": "2"}], "no problem to use: 2 rows, all contradictory"),
        ([], "holds no row"),
    ],
)
def test_rows_that_are_no_problem_are_refused(tmp_path: Path, rows: list[Row], said: str) -> None:
    """Guards against silence: what cannot be a problem is refused with its row and the reason."""
    path = write(tmp_path / "p.jsonl", rows)
    with pytest.raises(InputError, match=said):
        load_problems(path)


def damaged(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (damaged("p.jsonl", b'{"prompt": "P?", "answer": 1}\n{"prompt": "P'), "row 2 is not JSON"),
        (damaged("p.jsonl", b"[1]\n"), "not a JSON object"),
        (damaged("p.json", b'[{"prompt": "P?"'), "cannot be read"),
        (damaged("p.parquet", b"PAR1 and then nothing"), "cannot be read"),
        (damaged("p.arrow", b"nothing"), "cannot be read"),
        (damaged("p.csv", b"prompt,answer\nP?,1,2\n"), "line 2 has 3 of 2 columns"),
        (damaged("p.csv", b"\xff\xfe\xfa"), "cannot be read"),
        (damaged("p.csv", b"prompt,answer\n"), "holds no row"),
        (lambda folder: str(folder / "absent.jsonl"), "does not exist"),
        (lambda folder: str(folder / "absent.txt"), 'must be "sample", a file'),
        (lambda folder: str(folder), "no file of the split 'train': it holds no table"),
    ],
)
def test_damaged_and_missing_sources_are_refused(tmp_path: Path, source: Callable[[Path], str], said: str) -> None:
    """Guards the first minute of a run: a cut, foreign or missing file is named, whatever its reader raises."""
    with pytest.raises(InputError, match=said):
        load_problems(source(tmp_path))


def test_folders(tmp_path: Path) -> None:
    """Guards data sets on disk: the split's files alone, in order, in the two layouts of the Hugging Face libraries."""
    hub, saved, bare = tmp_path / "hub" / "amc", tmp_path / "saved", tmp_path / "bare"
    for part, file in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-0-of-1", "test_cn-0-of-1"]):
        write(hub / "data" / f"{file}.parquet", [{"problem": f"P{part}?", "answer": part, "id": part}])
    for part, file in enumerate(["train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"]):
        write(saved / file, [{"prompt": f"P{part}?", "answer": part}])
    write(saved / "test/cache-1234.arrow", [{"prompt": "other", "answer": 1}])
    for file in ("dataset_dict.json", "train/dataset_info.json", "train/state.json", "test/state.json"):
        (saved / file).write_text("{}")
    write(bare / "b.jsonl", [{"prompt": "B?", "answer": 1}])
    write(bare / "a.jsonl", [{"prompt": "A?", "answer": 1}])
    assert [(p.answer, p.id, p.cell.topic) for p in load_problems(str(hub))] == [
        ("0", "amc:0", "amc"),
        ("1", "amc:1", "amc"),
    ]
    assert [p.answer for p in load_problems(str(hub), "test")] == ["2"]
    assert [p.answer for p in load_problems(str(hub), "test_cn")] == ["3"]
    assert [p.id for p in load_problems(str(saved), "test")] == ["saved:0"]
    assert [(p.prompt[:2], p.id) for p in load_problems(str(bare))] == [("A?", "bare:0"), ("B?", "bare:1")]
    with pytest.raises(InputError, match="no file of the split 'validation': it holds data/test-0"):
        load_problems(str(hub), "validation")
    with pytest.raises(InputError, match=r"no file of the split 'test': it holds a\.jsonl, b\.jsonl"):
        load_problems(str(bare), "test")
    write(saved / "other/train/data-00000-of-00001.arrow", [{"prompt": "P?", "answer": 1}])
    with pytest.raises(InputError, match=r"'train' more than once: name one of .*other.train"):
        load_problems(str(saved))


class FakeDataset:
    """What `load_problems` uses of a datasets.Dataset."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows, self.column_names = rows, list(rows[0])

    def select_columns(self, names: list[str]) -> list[Row]:
        return [{name: row[name] for name in names} for row in self.rows]

    def __iter__(self) -> Any:
        assert "image" not in self.column_names, "this decodes every picture"
        return iter(self.rows)


def test_hub_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way to the hub: name, configuration and split arrive; only known columns are read."""
    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(name: str, config: str | None = None, *, split: str) -> FakeDataset:
        asked.append((name, config, split))
        if split == "nope":
            raise ValueError("Unknown split \"nope\". Should be one of ['train', 'test'].")
        return FakeDataset(
            [{"foreign": 1}] if name == "org/odd" else [{"question": "Q?", "answer": "#### 7", "image": object()}]
        )

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert load_problems("openai/gsm8k:main", "test") == [
        Problem("Q?" + END, "7", Cell("openai/gsm8k:main", 0), "openai/gsm8k:main:0")
    ]
    assert load_problems("org/name")[0].id == "org/name:0"
    assert asked == [("openai/gsm8k", "main", "test"), ("org/name", None, "train")]
    with pytest.raises(InputError, match=r"split 'nope', cannot be loaded \(Unknown split .*org/name:config"):
        load_problems("org/name", "nope")
    with pytest.raises(InputError, match="columns foreign"):
        load_problems("org/odd")


def test_missing_libraries_name_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards optional dependencies: one line says what to install, and only where it is needed."""
    path = write(tmp_path / "p.parquet", [P])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        load_problems("org/name")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        load_problems(path)
    assert load_problems(write(tmp_path / "p.jsonl", [P]))[0].answer == "1"


def test_the_datasets_library_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the fake above, where the library is there: real objects and real folders give the same problems."""
    datasets = pytest.importorskip("datasets")
    rows = [{"problem": f"P{i}?", "answer": i, "id": i} for i in range(3)]
    made = datasets.DatasetDict(train=datasets.Dataset.from_list(rows), test=datasets.Dataset.from_list(rows[:1]))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: made[split])
    assert [p.id for p in load_problems("org/name")] == ["org/name:0", "org/name:1", "org/name:2"]
    made.save_to_disk(str(tmp_path / "saved"))
    assert [p.answer for p in load_problems(str(tmp_path / "saved"))] == ["0", "1", "2"]
    assert [p.answer for p in load_problems(str(tmp_path / "saved"), "test")] == ["0"]


def sample_rows() -> list[Row]:
    return [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def test_the_sample_covers_topics_and_levels() -> None:
    """Guards the offline path: about forty distinct problems, every topic at every level, golds in many forms."""
    found = load_problems("sample")
    assert len(found) == len(sample_rows()) == len({p.prompt for p in found}) == len({p.id for p in found}) >= 40
    assert {p.cell.topic for p in found} == {"arithmetic", "fractions", "percent", "geometry", "algebra", "counting"}
    assert {p.cell for p in found} == {Cell(p.cell.topic, level) for p in found for level in (1, 2, 3, 4)}
    assert min(Counter(p.cell.topic for p in found).values()) >= 5
    assert all(p.prompt.endswith(END) and p.id.startswith("sample:") for p in found)
    assert load_problems("sample", "test") == found


def test_the_samples_answers_are_right() -> None:
    """Guards the gold answers: each equals its own computation, a wrong key would not, and no other problem's does."""
    sympy = pytest.importorskip("sympy")
    pytest.importorskip("math_verify")
    names = {**vars(sympy), "x": sympy.Symbol("x", real=True), "y": sympy.Symbol("y", real=True)}
    values = [eval(row["expression"], names) for row in sample_rows()]
    texts = [rf"\boxed{{{value if isinstance(value, str) else sympy.latex(value)}}}" for value in values]
    problems = load_problems("sample")
    other = [
        (text, p) for i, text in enumerate(texts) for p in problems[i + 1 : i + 2] if p.answer != problems[i].answer
    ]
    with make_verifier("math", seconds=60.0) as verifier:
        right = verifier.scores(texts, problems)
        assert [p.id for p, score in zip(problems, right, strict=True) if score != 1.0] == []
        assert sum(verifier.scores([text for text, _ in other], [p for _, p in other])) == 0.0
        assert set(verifier.failures.values()) == {0}
