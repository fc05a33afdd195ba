"""pass@k and maj@k of llm/ by enumeration, and the evaluation program on a checkpoint."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch

from ebpo_sim import InputError
from llm import evaluate, outcomes, rollouts, score_norms, scores, train
from llm.outcomes import Outcome
from llm.scores import final_answer, maj_at_k, mean_and_error, pass_at_k
from llm.settings import Settings
from llm.tasks import Cell, Problem
from llm_toys import save_model

PROBLEM = Problem("q", "a", Cell("t", 0), "q")


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


def test_parts_of_an_error() -> None:
    """Guards the components, exactly: over every outcome of 3 answers to prompts of known chances, the samples' part of
    avg@3 is unbiased, and the jackknife of pass@1 is the same; of pass@2 it is never too small."""
    chances = (0.2, 0.7)
    expected = {"avg": 0.0, "pass@2": 0.0}
    true = {"avg": sum(p * (1 - p) / 3 for p in chances) / 4, "pass@2": 0.0}
    for p in chances:
        weights = [math.comb(3, c) * p**c * (1 - p) ** (3 - c) for c in range(4)]
        values = [pass_at_k(3, c, 2) for c in range(4)]
        true["pass@2"] += sum(w * (v - (1 - (1 - p) ** 2)) ** 2 for w, v in zip(weights, values, strict=True)) / 4
    for answers in itertools.product((0.0, 1.0), repeat=6):
        rewards = answers[:3], answers[3:]
        chance = math.prod(p if r else 1 - p for p, some in zip(chances, rewards, strict=True) for r in some)
        some = [Outcome(PROBLEM, ("a",) * 3, r, (1,) * 3, (0.5,) * 3) for r in rewards]
        row = scores.scores(some, [1, 2], "set")[0]
        assert row["avg@3"] == row["pass@1"] and row["avg@3 se samples"] == row["pass@1 se samples"]
        kinds = [r or None for r in rewards[0]]
        first = scores.jackknife(kinds, lambda left: pass_at_k(len(left), sum(x is not None for x in left), 1))
        assert first == pytest.approx(scores.variance_of_mean(rewards[0]))
        total, own = row["avg@3 se"], row["avg@3 se samples"]
        assert row["avg@3 se prompts"] == pytest.approx(math.sqrt(max(0.0, total**2 - own**2)))
        expected["avg"] += chance * own**2
        expected["pass@2"] += chance * row["pass@2 se samples"] ** 2
    assert expected["avg"] == pytest.approx(true["avg"], abs=1e-12)
    assert true["pass@2"] <= expected["pass@2"] < 4 * true["pass@2"]
    alone = scores.scores([Outcome(PROBLEM, ("a",), (1.0,), (1,), (0.5,))] * 2, [1], "set")[0]
    assert alone["avg@1 se"] == 0 and alone["avg@1 se samples"] is None is alone["avg@1 se prompts"]


def test_the_nucleus() -> None:
    """Guards --top-p, by hand: the fewest likeliest tokens that reach it; and that draws stay among them."""
    p = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.25, 0.25, 0.25, 0.25]])
    assert torch.equal(rollouts.nucleus(p, 1.0), p)
    assert rollouts.nucleus(p, 0.7)[0].tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert rollouts.nucleus(p, 0.75)[0].tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert rollouts.nucleus(p, 0.76)[0].tolist() == pytest.approx([0, 0.5, 0.15, 0.25])
    assert rollouts.nucleus(p, 0.5)[1].count_nonzero() == 2 and rollouts.nucleus(p, 1e-9).count_nonzero(
        dim=1
    ).tolist() == [1, 1]
    logits, draw = p[:1].log().repeat(2000, 1), torch.Generator().manual_seed(0)
    token, log_prob, *_ = rollouts._choose(logits, 1.0, draw, 0.7)
    assert set(token.tolist()) == {1, 3} and abs(float((token == 1).float().mean()) - 2 / 3) < 0.05  # 4.7 errors
    assert log_prob[token == 3][0].item() == pytest.approx(math.log(0.25))  # of the whole distribution


def two_sets(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Arguments that evaluate a tiny model on two files, which share a prompt; how many problems each has."""
    for name, prompts in (("one", [f"q{i}" for i in range(7)]), ("two", ["q0", *(f"r{i}" for i in range(4))])):
        lines = [json.dumps({"prompt": p, "answer": "a", "topic": name}) for p in prompts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    argv = [str(save_model(folder / "model")), "--verifier", "exact", "--max-new", "3", "--samples", "4"]
    argv += [x for name in ("one", "two") for x in ("--dataset", str(folder / f"{name}.jsonl"))]
    return [*argv, "--sample-rows", "12", "--top-p", "0.9", "--instruction", "none"], {"one": 7, "two": 5}


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_several_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards pooling: every set has its own rows, the pooled row is named and counts a shared prompt once."""
    argv, sizes = two_sets(tmp_path)
    evaluate.main([*argv, "--out", str(tmp_path / "out")])
    said, rows = capsys.readouterr().out, table(tmp_path / "out/scores.csv")
    whole = [(Path(r["dataset"]).stem, int(r["prompts"])) for r in rows if r["topic"] == "all"]
    assert whole == [*sizes.items(), ("pooled", 11)]
    assert "1 problems are there more than once" in said and said.count(": avg@4") == 3
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(answers) == len(table(tmp_path / "out/rollouts.csv")) == 12 * 4
    assert {Path(a["dataset"]).stem for a in answers} == set(sizes) and any(a["text"] for a in answers)
    assert (tmp_path / "out/score_norms_2.png").is_file() and not (tmp_path / "out/unfinished.jsonl").exists()
    for bad, match in (
        (["--dataset", argv[argv.index("--dataset") + 1]], "each data set once"),
        (["--dataset-split", "a", "--dataset-split", "b", "--dataset-split", "c"], "once or for each"),
        (["--top-p", "0"], "--top-p must be"), (["--top-p", "nan"], "--top-p must be"),
        (["--engine", "vllm"], "pip install vllm"), (["--split", "longer"], "of the generated task"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=match):
            evaluate.main([*argv, *bad, "--out", str(tmp_path / "bad")])


def test_a_stopped_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards --resume: stopped after any call, even within a line, it ends in the same bytes; others are refused."""
    argv, _ = two_sets(tmp_path)
    evaluate.main([*argv, "--out", str(tmp_path / "whole")])
    calls, real = [], outcomes.Unfinished.add

    def stop(self: outcomes.Unfinished, dataset: str, some: list[Outcome]) -> None:
        real(self, dataset, some)
        calls.append(len(some))
        if len(calls) == 4:
            raise KeyboardInterrupt

    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="no unfinished evaluation"):
        evaluate.main([*argv, *out, "--resume"])
    monkeypatch.setattr(outcomes.Unfinished, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([*argv, *out])
    assert calls == [3, 3, 1, 3] and not (tmp_path / "out/scores.csv").exists()
    with (tmp_path / "out/unfinished.jsonl").open("a") as file:
        file.write('["cut')
    with pytest.raises(InputError, match="unfinished: add --resume"):
        evaluate.main([*argv, *out])
    with pytest.raises(InputError, match="had another seed"):
        evaluate.main([*argv, *out, "--resume", "--seed", "1"])
    evaluate.main([*argv, *out, "--resume"])
    assert calls == [3, 3, 1, 3, 2]
    for name in ("scores.csv", "rollouts.csv", "answers.jsonl", "score_norms.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
