r"""Math word problems from data sets, in any layout of `LAYOUTS`.

What is converted, always in the same way:
- Prompts: text, or chat messages (kept in Problem.messages; Problem.prompt joins their contents with empty lines).
  White space at the ends goes. OlympiadBench's `context` stands before its question.
- Answers: whole numbers and floats as text (27.0 is 27), "27.0" too; a list with commas; a pair of dollars around the
  whole is taken off; of GSM8K what stands after ####, without thousands commas. Everything else stays LaTeX.
- Topic: the first of `TOPIC_COLUMNS` that is there, else the data set's name. Level: the number in `level` ("Level 5"
  is 5), else 0.
- id: "name:own id", with the first of `ID_COLUMNS` or extra_info.index. Where one of them is missing, or two prompts
  share one, all are "name:row", counted from 0 before anything is left out.
- A prompt that repeats with the same answer is kept once; one that repeats with another answer is left out altogether.
  How many is said.
Refused: missing columns, empty prompts, answers that are missing, empty or no text, problems that need a picture, text
that is no Unicode (half a surrogate pair), and rows nested beyond reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebpo_sim import report
from ebpo_sim.errors import InputError
from ebpo_sim.tables import Row
from llm.tasks import gym
from llm.tasks.base import Cell, Problem
from llm.tasks.tables import Table, open_table

SAMPLE = Path(__file__).with_name("sample_math.jsonl")
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


class Layout(NamedTuple):
    """Columns by which a data set is known."""

    name: str
    prompt: str
    answer: str


LAYOUTS = (  # the first whose columns are all there
    Layout("verl, DAPO-Math-17k", "prompt", "reward_model"),
    Layout("OlympiadBench", "question", "final_answer"),
    Layout("MATH-500, AIME, AMC, MathArena", "problem", "answer"),
    Layout("AIME_2024 with capitals", "Problem", "Answer"),
    Layout("GSM8K, AMC23, AIME2025", "question", "answer"),
    Layout("plain", "prompt", "answer"),
)
TOPIC_COLUMNS = ("topic", "subject", "subfield", "data_source")
LEVEL_COLUMN = "level"
ID_COLUMNS = ("unique_id", "id", "ID", "problem_idx")
PICTURE = re.compile(r"<image_?\d*>|<img_\d+>")
WANTED = {column for layout in LAYOUTS for column in layout[1:]} | {
    *TOPIC_COLUMNS, LEVEL_COLUMN, *ID_COLUMNS, "extra_info", "context"
}  # fmt: skip


def load(source: str, split: str = "train", instruction: str | None = None) -> list[Problem]:
    """The problems of a data set in its own order, each prompt once; what is converted stands in the module.

    source: "sample" (about forty problems that come along), a .jsonl, .json, .csv, .parquet or .arrow file, a folder of
    them, or a name on the Hugging Face hub, "org/name" or "org/name:config". split: of a folder or a hub data set; the
    sample and files are one split, whatever it says. instruction: appended to every prompt after a line break; None is
    INSTRUCTION, and nothing for the chat prompts of the verl layout, which bring their own; "" is nothing.
    "reasoning_gym:NAME" is a generator of that library (`llm.tasks.gym`).
    Raises InputError for sources that do not exist or are in no known layout, and for rows as listed in the module.
    """
    if source.startswith(gym.PREFIX):
        return gym.load(source, INSTRUCTION if instruction is None else instruction)
    table = open_table(str(SAMPLE) if source == "sample" else source, split, WANTED)
    if source == "sample":
        table = table._replace(name="sample")
    kept: dict[str, tuple[int, Problem] | None] = {}  # row and problem; None: answers that contradict each other
    repeated = contradicted = 0
    for row, problem in enumerate(_convert(table, instruction)):
        first = kept.setdefault(problem.prompt, (row, problem))
        if first is None:
            contradicted += 1
        elif first[1].answer != problem.answer:
            kept[problem.prompt] = None
            contradicted += 2
        elif first[0] != row:
            repeated += 1
    left = [found for found in kept.values() if found is not None]
    if not left:
        raise InputError(f"data set {table.where!r} has no problem to use: {contradicted} rows, all contradictory")
    if repeated or contradicted:
        report.say(
            f"{table.where}: {len(left)} problems; left out {repeated} rows that repeat a prompt and {contradicted} "
            "whose prompt has different answers"
        )
    own = [problem.id for _, problem in left]
    unique = all(own) and len(set(own)) == len(own)
    return [problem._replace(id=f"{table.name}:{problem.id if unique else row}") for row, problem in left]


def _convert(table: Table, instruction: str | None) -> Iterator[Problem]:
    """Every row as a problem with its own id, "" without one. Raises InputError for rows that cannot be one, and where
    there is none."""
    layout = None
    for number, row in enumerate(table.rows):
        where = f"{table.where}, row {number}"
        layout = layout or _layout(row, table.where)
        try:
            said = _converted(row, layout, table.name, instruction, where)
            texts = (said.prompt, said.answer, said.cell.topic, said.id)
            "".join((*texts, *(part for message in said.messages for part in message))).encode()
        except RecursionError as error:
            raise InputError(f"{where} is nested too deeply: leave the row out") from error
        except UnicodeEncodeError as error:
            raise InputError(f"{where} holds text that is no Unicode: leave the row out") from error
        yield said
    if layout is None:
        raise InputError(f"data set {table.where!r} holds no row: name another file or split")


def _converted(row: Row, layout: Layout, name: str, instruction: str | None, where: str) -> Problem:
    """One row."""
    for column in layout[1:]:
        if column not in row:
            raise InputError(f"{where}, has no {column!r}: every row needs it")
    messages = _messages(row[layout.prompt], where)
    own_instruction = bool(messages) and layout is LAYOUTS[0]
    ending = instruction if instruction is not None else "" if own_instruction else INSTRUCTION
    prompt, messages = _prompt(row, layout, messages, ending, where)
    answer = row[layout.answer]
    if layout is LAYOUTS[0]:
        answer = answer.get("ground_truth") if isinstance(answer, dict) else None
    text = _answer(answer, where)
    topic = next((str(row[c]).strip() for c in TOPIC_COLUMNS if row.get(c)), name)
    cell = Cell(topic, _level(row.get(LEVEL_COLUMN)))
    return Problem(prompt, text, cell, _own_id(row), messages)


def _layout(row: Row, where: str) -> Layout:
    """The first layout whose columns the row has."""
    for layout in LAYOUTS:
        if layout.prompt in row and layout.answer in row:
            return layout
    known = "; ".join(f"{x.prompt} and {x.answer} ({x.name})" for x in LAYOUTS)
    raise InputError(
        f"data set {where!r} has the columns {', '.join(map(str, row))}, which is no known layout: {known}"
    )


def _messages(prompt: Any, where: str) -> tuple[tuple[str, str], ...]:
    """Chat messages as (role, content) pairs; empty for a prompt that is text."""
    if not isinstance(prompt, list):
        return ()
    try:
        pairs = tuple((message["role"], message["content"]) for message in prompt)
    except (TypeError, KeyError):
        pairs = ()
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise InputError(f"{where}: the prompt must be text or messages with role and content, got {repr(prompt)[:80]}")
    return pairs


def _prompt(
    row: Row, layout: Layout, messages: tuple[tuple[str, str], ...], ending: str, where: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(prompt, messages), both with the instruction at the end."""
    ending = f"\n{ending}" if ending else ""
    if messages:
        messages = (*messages[:-1], (messages[-1][0], messages[-1][1].strip() + ending))
        said = [content for _, content in messages]
    else:
        if not isinstance(row[layout.prompt], str):
            raise InputError(f"{where}: the prompt must be text or messages, got {repr(row[layout.prompt])[:80]}")
        context = str(row.get("context") or "").strip()
        said = [*filter(None, [context]), row[layout.prompt].strip() + ending]
    prompt = "\n\n".join(said)
    if prompt == ending:
        raise InputError(f"{where}: the prompt is empty: leave the row out")
    if PICTURE.search(prompt):
        raise InputError(f"{where}: the problem needs a picture: use the text-only part of the data set")
    return prompt, messages


def _answer(value: Any, where: str) -> str:
    """The gold answer as text."""
    if isinstance(value, list) and value:
        return ", ".join(_answer(part, where) for part in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if not isinstance(value, str):
        raise InputError(f"{where}: the answer must be text or a number, got {repr(value)[:80]}: leave the row out")
    text, mark, after = value.rpartition("####")
    text = after.replace(",", "").strip() if mark else value.strip()
    if re.fullmatch(r"\$[^$]+\$", text):
        text = text[1:-1].strip()
    if re.fullmatch(r"-?\d+\.0", text):
        text = text[:-2]
    if not text:
        raise InputError(f"{where}: the answer is empty: leave the row out")
    return text


def _level(value: Any) -> int:
    digits = re.search(r"\d{1,9}", str(value))
    return int(digits.group()) if digits else 0


def _own_id(row: Row) -> str:
    extra = row.get("extra_info")
    inner = extra.get("index") if isinstance(extra, dict) else None
    return next((str(x).strip() for x in (*map(row.get, ID_COLUMNS), inner) if x is not None and str(x).strip()), "")
