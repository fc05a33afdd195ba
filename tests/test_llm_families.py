"""The contract of every generated task that has a file of its own: its answers, verdicts, sizes and splits."""

from __future__ import annotations

import json
import random
import re
import sys
from itertools import combinations_with_replacement, islice
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import policy, tasks, train
from llm.outcomes import Outcome
from llm.scores import diversity, right_answers, scores
from llm.settings import Settings
from llm.tasks import Cell, Problem, family, names
from llm.tasks.splits import SPLITS, key_of

NAMES = names()
EVERY = [Cell(name, level) for name in NAMES for level in (*family(name).levels, *family(name).longer)]
JUDGE = tasks.make_verifier("generated")


def is_right(prompt: str, text: str) -> bool:
    """The verdict by another road than the task's own."""
    if prompt[0] == ":":
        a, b = map(int, prompt[1:-1].split("+"))
        said = text.split("=")[-1]
        return said == str(a + b).zfill(len(prompt) // 2 - 1)
    if prompt[0] == "%":
        value = prompt[3]
        for i in range(4, len(prompt) - 1, 2):
            value = str(eval(value + prompt[i : i + 2]) % int(prompt[1]))
        return text.split(">")[-1] == value
    if prompt[0] == "*":
        return text.split(">")[-1] == "".join(letter * prompt.count(letter) for letter in "abcdefghij")
    total, digits = prompt[1:-1].split(":")
    return bool(re.fullmatch(rf"[{digits}](\+[{digits}])*", text)) and eval(text) == int(total)


def problems(cell: Cell, count: int = 60) -> list[Problem]:
    rng = random.Random(0)
    return [tasks.draw(rng, cell) for _ in range(count)]


def test_the_tasks_are_there() -> None:
    assert {"addition", "chain", "sums", "swaps"} <= set(NAMES) and not set(NAMES) & set(tasks.TOPICS)
    assert {cell.topic for cell in tasks.cells("all")} == set(tasks.TOPICS)


@pytest.mark.parametrize("cell", EVERY, ids=str)
def test_worked_answers(cell: Cell) -> None:
    """Guards what the warm start imitates: right by a second solver, encodable, as long as promised and no longer."""
    rng, tokenizer, found = random.Random(1), tasks.CharTokenizer(), family(cell.topic)
    drawn = problems(cell)
    texts = [tasks.worked(p, rng) for p in drawn]
    for problem, text in zip(drawn, texts, strict=True):
        assert is_right(problem.prompt, text), (problem, text)
        assert 0 < len(text) <= found.longest(cell.level) == tasks.longest_answer([cell])
        ids = tokenizer.encode(problem.prompt + text)
        assert len(ids) + 1 <= policy.MAX_TOKENS and tokenizer.decode(ids) == problem.prompt + text
        assert problem.id == problem.prompt and problem.answer and tasks.is_generated(problem.prompt)
        assert [n for n in NAMES if re.fullmatch(family(n).pattern, problem.prompt)] == [cell.topic]
    assert JUDGE.scores(texts, drawn) == [1.0] * len(drawn)
    assert tasks.draw(random.Random(5), cell) == tasks.draw(random.Random(5), cell)


@pytest.mark.parametrize("cell", EVERY, ids=str)
def test_verdicts(cell: Cell) -> None:
    """Guards rewards: answers with a character changed, left out or added, and hostile ones, get the second solver's
    verdict; none raises."""
    rng, alphabet = random.Random(2), "0123456789+-*%=<>#:abcdefghij"
    hostile = ["", " ", "=", ">", "+", "٣", "²", "1e3", "\\boxed{7}", "9" * 5000, "1+" * 3000, "\ud800", "-0", "++"]
    seen: set[float] = set()
    for problem in problems(cell, 20):
        text = tasks.worked(problem, rng)
        tries: list[str | None] = [*hostile, None]
        for _ in range(20):
            i, letter = rng.randrange(len(text)), rng.choice(alphabet)
            tries += [text[:i] + letter + text[i + 1 :], text[:i] + text[i + 1 :], text[:i] + letter + text[i:]]
        said = JUDGE.scores(tries, [problem] * len(tries))
        assert said == [float(bool(t) and is_right(problem.prompt, t)) for t in tries]
        seen |= {*said[len(hostile) :]}
    assert seen == {0.0, 1.0} and not any(JUDGE.failures.values())


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_splits(name: str) -> None:
    """Guards length generalisation: what is imitated, trained and held out; no split knows a prompt of another."""
    found = family(name)
    assert found.traced in found.levels and found.traced < max(found.levels) < min(found.longer)
    chosen = tasks.cells(name)
    assert {c.level for c in chosen} == set(found.levels) and not set(chosen) & set(tasks.longer_cells(name))
    assert {c.level for c in tasks.traced(chosen)} == {n for n in found.levels if n <= found.traced}
    pools = {split: {key_of(p.prompt) for p in tasks.pool(split, chosen, 25, 0)} for split in SPLITS}
    assert all(len(pools[split]) >= 2 for split in SPLITS) and len(pools["train"]) >= 25 * (len(chosen) - 1)
    assert not (pools["train"] & pools["validation"] or (pools["train"] | pools["validation"]) & pools["heldout"])
    sizes = [{p.prompt for p in problems(cell, 200)} for cell in EVERY if cell.topic == name]
    assert len(set().union(*sizes)) == sum(map(len, sizes))  # no size has a problem of another
    warm = list(islice(tasks.stream("train", tasks.traced(chosen), random.Random(3)), 200))
    assert {tasks.split_of(p.prompt) for p in warm} == {"train"} and {p.cell.topic for p in warm} == {name}
    assert max(p.cell.level for p in warm) == found.traced


def test_names_and_sizes_that_are_none() -> None:
    with pytest.raises(InputError, match="did you mean 'swaps'"):
        tasks.cells("swap")
    with pytest.raises(InputError, match="have"):
        tasks.longer_cells("all")
    with pytest.raises(InputError, match="has worked answers"):
        tasks.traced([Cell("swaps", 6)])
    assert key_of(":12+07=") == key_of(":07+12=") != key_of("12+07=")


def test_the_same_topic_of_a_data_set_is_another() -> None:
    """Guards data sets that call a topic as a task does: their answers are compared as they stand."""
    own = Problem("1+1", "3=2", Cell("addition", 0), "file:0")
    assert tasks.make_verifier("exact").scores(["3=2", "2"], [own, own]) == [1.0, 0.0]
    assert tasks.compared_text(own, "3=2") == "3=2" and not tasks.has_many(own)


def test_distinct_answers_by_hand() -> None:
    """Guards diversity: the same digits in another order are one answer; distinct@k is its mean over draws of k."""
    problem = Problem("+6:12345=", "6:12345", Cell("sums", 2), "+6:12345=")
    texts = ("1+5", "5+1", "2+4", "9+9")
    outcome = Outcome(problem, texts, (1.0, 1.0, 1.0, 0.0), (4, 4, 4, 4), (0.1,) * 4)
    assert right_answers(outcome) == ["1+5", "1+5", "2+4", None]
    row = scores([outcome], [1, 2, 4], "generated")[0]
    kinds = [{"1+5"}, {"1+5"}, {"2+4"}, set()]
    pairs = [len(kinds[i] | kinds[j]) for i in range(4) for j in range(i)]
    assert row["distinct@1"] == pytest.approx(0.75) and row["distinct@4"] == 2
    assert row["distinct@2"] == pytest.approx(sum(pairs) / 6)
    assert row["maj@4"] == 1.0


def test_a_run_tells_of_diversity(tmp_path: Path) -> None:
    """Guards training on many answers: validations count the different right ones, in a file whose rows are alike."""
    tiny = Settings(
        topics="sums", max_level=2, prompts=4, steps=2, per_cell=8, eval_every=2, eval_per_cell=4, sft_steps=1,
        sft_batch=8, hidden=16, layers=1, heads=2, kv_heads=1,
    )  # fmt: skip
    train.train(tiny, tmp_path / "run", tmp_path)
    first, last = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert first["validation_distinct"] is None and 0 <= last["validation_distinct"] <= tiny.eval_samples
    problem = Problem("+6:12345=", "6:12345", Cell("sums", 2), "+6:12345=")
    one = Outcome(problem, ("1+5", "5+1", "2+4", None), (1.0, 1.0, 1.0, 0.0), (4,) * 4, (0.1,) * 4)
    assert diversity([one, one._replace(rewards=(0.0,) * 4)]) == {"validation_distinct": 1.0}
    assert diversity([one, one._replace(problem=problem._replace(id="file:1"))]) == {}


def test_sums_have_many_answers() -> None:
    """Guards the point of the task: by enumeration, nearly every problem has several right answers."""
    counts = []
    for problem in problems(Cell("sums", 4), 40):
        total, _, digits = problem.answer.partition(":")
        sizes = (combinations_with_replacement(map(int, digits), n) for n in range(2, 7))
        counts.append(sum(sum(c) == int(total) for size in sizes for c in size))
    assert sum(n >= 5 for n in counts) >= 30
