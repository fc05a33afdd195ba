"""The generated tasks of llm/: splits, answers, tokenizer, verifier."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import tasks
from llm.tasks.splits import SPLITS
from llm.tasks.tokenizer import pad_left, pad_right


def solve(prompt: str) -> str:
    """The answer, by another road than the generator's."""
    body = prompt[:-1]
    if body[0] == "<":
        return "".join(body[i] for i in range(len(body) - 1, 0, -1))
    if body[0] == ">":
        return "".join(letter * body.count(letter) for letter in "abcdefghij")
    if body[0] == "#":
        return str(sum(letter == body[1] for letter in body[3:]))
    for symbol in "+-*%":
        if symbol in body:
            a, b = map(int, body.split(symbol))
            return str({"+": a + b, "-": a - b, "*": sum([a] * b), "%": a - b * (a // (b or 1))}[symbol])
    raise AssertionError(prompt)


def test_splits_are_disjoint_and_decided_by_the_prompt_alone() -> None:
    """Guards held-out numbers: no prompt is in two splits, whatever the seed, and all three are populated."""
    pools = {split: {p.prompt for s in (0, 1) for p in tasks.pool(split, tasks.CELLS, 20, s)} for split in SPLITS}
    assert not pools["train"] & pools["validation"]
    assert not pools["train"] & pools["heldout"]
    assert not pools["validation"] & pools["heldout"]
    assert all(tasks.split_of(prompt) == split for split, prompts in pools.items() for prompt in prompts)
    warm = islice(tasks.stream("train", tasks.CELLS, random.Random(3)), 300)
    assert {tasks.split_of(p.prompt) for p in warm} == {"train"}
    share = [tasks.split_of(f"{i}+{i}=") for i in range(4000)]
    assert abs(share.count("train") / 4000 - 0.8) < 0.03  # 4.7 standard errors


@pytest.mark.parametrize("cell", tasks.CELLS, ids=str)
def test_answers_are_right_and_fit(cell: tasks.Cell) -> None:
    """Guards the gold answers: they agree with a second solver, are encodable and never empty or over-long."""
    rng, tokenizer = random.Random(0), tasks.CharTokenizer()
    for problem in (tasks.draw(rng, cell) for _ in range(50)):
        assert problem.answer == solve(problem.prompt)
        assert (problem.id, problem.messages) == (problem.prompt, ())
        assert 0 < len(problem.answer) <= tasks.MAX_ANSWER
        assert tokenizer.decode(tokenizer.encode(problem.prompt + problem.answer)) == problem.prompt + problem.answer


def test_pools_are_distinct_repeatable_and_end_in_small_cells() -> None:
    """Guards the pool: a cell of a hundred prompts gives what it has and does not spin."""
    small = tasks.pool("train", tasks.cells("add", 1), 500, 0)
    assert len({p.prompt for p in small}) == len(small) < 100
    assert small == tasks.pool("train", tasks.cells("add", 1), 500, 0)
    assert small != tasks.pool("train", tasks.cells("add", 1), 500, 1)


@pytest.mark.parametrize("answer", [None, "", "8", " 7", "7 ", "07", "7$", "٧", "7" * 500, "1e0", "x"])
def test_wrong_missing_empty_and_over_long_answers_score_nothing(answer: str | None) -> None:
    assert tasks.score(answer, "7") == 0.0
    assert tasks.score("7", "7") == 1.0


def test_an_empty_gold_answer_is_refused() -> None:
    """Guards against a free point for an empty answer to an empty gold; long gold answers are exact text too."""
    with pytest.raises(InputError, match="gold answer"):
        tasks.score("", "")
    assert tasks.score("seventy-seven", "seventy-seven") == 1.0


def test_bad_names_and_texts_are_refused() -> None:
    tokenizer = tasks.CharTokenizer()
    with pytest.raises(InputError, match="did you mean 'reverse'"):
        tasks.cells("add,revers")
    with pytest.raises(InputError, match="--max-level"):
        tasks.cells("sort", 2)
    with pytest.raises(InputError, match="outside the vocabulary"):
        tokenizer.encode("12×3=")
    with pytest.raises(InputError, match="empty"):
        tokenizer.encode("")
    with pytest.raises(InputError, match="per cell"):
        tasks.pool("train", tasks.CELLS, 0, 0)


def test_padding_is_on_the_left_for_prompts_and_on_the_right_for_answers() -> None:
    """Guards the two sides: prompts end together, answers start together, and only real tokens are in the masks."""
    tokenizer = tasks.CharTokenizer()
    ids, mask = pad_left([tokenizer.encode(text) for text in ("1+1=", "<abc=")], tokenizer.pad_id)
    assert ids[0, 0] == tokenizer.pad_id and mask.tolist() == [[False] + [True] * 4, [True] * 5]
    assert tokenizer.decode(ids[0, 1:].tolist()) == "1+1="
    ids, mask = pad_right([[*tokenizer.encode(text), *tokenizer.eos_ids] for text in ("2", "cba")], tokenizer.pad_id)
    assert ids[0].tolist()[1:] == [*tokenizer.eos_ids, tokenizer.pad_id, tokenizer.pad_id]
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
