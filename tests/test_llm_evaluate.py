"""pass@k and maj@k of llm/ by enumeration, and the evaluation program on a checkpoint."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

from ebpo_sim import InputError
from llm import evaluate, score_norms, train
from llm.evaluate import final_answer, maj_at_k, mean_and_error, pass_at_k
from llm.settings import Settings


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (4, 3), (6, 2), (6, 6)])
def test_pass_at_k_is_unbiased(p: float, n: int, k: int) -> None:
    """Guards pass@k: over every outcome of n draws its expectation is 1 - (1-p)^k."""
    expected = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_maj_at_k_is_unbiased() -> None:
    """Guards maj@k: over every sequence of 6 answers its expectation is that of one vote of 3."""
    chance = {"a": 0.5, "b": 0.2, None: 0.2, "": 0.1}

    def expected(n: int) -> float:
        return sum(
            math.prod(chance[t] for t in texts) * maj_at_k(texts, [float(t == "a") for t in texts], 3)
            for texts in itertools.product(chance, repeat=n)
        )

    assert expected(6) == pytest.approx(expected(3), abs=1e-12)


def voted(texts: list[str | None], gold: str, k: int) -> float:
    return maj_at_k(texts, [float(text == gold) for text in texts], k)


def test_votes() -> None:
    """Guards the vote: missing and empty answers do not vote, ties are shared, no vote is no point."""
    assert voted(["a", "a", "b"], "a", 3) == 1
    assert voted([None, None, "a"], "a", 3) == 1
    assert voted(["a", "b", None], "a", 3) == 0.5
    assert voted([None, "", None], "", 3) == 0
    assert voted(["a", "b", "b", "a"], "a", 1) == 0.5
    assert mean_and_error([0.0, 1.0]) == (0.5, 0.5)
    for bad in (lambda: pass_at_k(4, 5, 1), lambda: pass_at_k(4, 1, 5), lambda: voted(["a"], "a", 2)):
        with pytest.raises(InputError):
            bad()


def test_the_final_answer_votes() -> None:
    """Guards maj@k of worked solutions: the last box votes, however the way to it is told."""
    assert final_answer(r"so \boxed{1} no: \boxed{\frac{1}{ 2}} done") == r"\frac{1}{2}"
    assert final_answer(r"\boxed{unclosed") == r"\boxed{unclosed"
    assert final_answer(" 12 ") == "12"
    assert final_answer(r"\boxed{\{1, 2\}}") == r"\{1,2\}"
    texts = [r"a \boxed{3}", r"b \boxed{ 3}", r"c \boxed{4}", None]
    assert maj_at_k(texts, [1.0, 1.0, 0.0, 0.0], 4) == 1.0


def test_score_norms_by_pass_rate() -> None:
    """Guards the table, by hand: means over prompts, the ratio that is the best baseline, and their standard errors."""
    prompts = [([1.0, 0.0], [0.5, 1.5]), ([0.0, 1.0], [2.5, 0.1]), ([0.0, 0.0], [1.0, 3.0]), ([1.0, 1.0], [0.2, 0.4])]
    never, half, always = score_norms.table(prompts)
    assert (never["pass_rate"], never["wrong"], never["right"], never["best_baseline"]) == ("0", 2.0, None, None)
    assert (always["pass_rate"], always["prompts"], always["right"]) == ("1", 1, pytest.approx(0.3))
    assert always["right se"] is always["wrong"] is always["best_baseline"] is None
    assert (half["pass_rate"], half["prompts"], half["mean_pass_rate"]) == ("0.4-0.6", 2, 0.5)
    assert (half["right"], half["right se"]) == pytest.approx((0.3, 0.2))
    assert (half["wrong"], half["wrong se"]) == pytest.approx((2.0, 0.5))
    best = 0.6 / 4.6
    away = [0.5 - best * 2.0, 0.1 - best * 2.6]
    assert half["best_baseline"] == pytest.approx(best)
    assert half["best_baseline se"] == pytest.approx(math.sqrt(2 * sum(a * a for a in away)) / 4.6)
    assert [score_norms.bin_of(x) for x in (0.0, 0.2, 0.25, 0.8, 0.99, 1.0)] == [
        "0", "0-0.2", "0.2-0.4", "0.6-0.8", "0.8-1", "1",
    ]  # fmt: skip


def test_evaluation_of_a_checkpoint(tmp_path: Path) -> None:
    """Guards the program: scores agree with the rollouts it writes, and bad arguments are refused."""
    tiny = Settings(
        prompts=4, steps=1, topics="count", max_level=3, per_cell=24, eval_per_cell=2, eval_samples=2, sft_steps=30,
        sft_batch=64, hidden=16, layers=1, heads=2, kv_heads=1, threads=1,
    )  # fmt: skip
    train.train(replace(tiny), tmp_path / "run", tmp_path / "cache")
    argv = [str(tmp_path / "run/checkpoint.pt"), "--per-cell", "5", "--samples", "6", "--threads", "1"]
    argv += ["--out", str(tmp_path / "out")]
    evaluate.main([*argv, "--k", "1,3"])
    with (tmp_path / "out/rollouts.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "out/scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert len(rows) == 5 * 6 and len({row["prompt_id"] for row in rows}) == 5
    assert {row["cluster"] for row in rows} == {"count"}
    assert [(row["topic"], row["level"]) for row in scores] == [("all", "all"), ("count", "all"), ("count", "3")]
    assert float(scores[0]["pass@1"]) == pytest.approx(sum(float(row["reward"]) for row in rows) / 30)
    with (tmp_path / "out/score_norms.csv").open() as file:
        norms = list(csv.DictReader(file))
    assert sum(int(row["prompts"]) for row in norms) == 5 and min(float(row["score_norm"]) for row in rows) > 0
    assert (tmp_path / "out/score_norms.png").stat().st_size > 5000
    assert float(scores[0]["pass@3"]) >= float(scores[0]["pass@1"]) and "maj@3 se" in scores[0]
    with pytest.raises(InputError, match="--k"):
        evaluate.main([*argv, "--k", "1,7"])
    with pytest.raises(InputError, match="whole numbers"):
        evaluate.main([*argv, "--k", "two"])
