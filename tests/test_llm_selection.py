"""What a run leaves out and keeps: filters of prompts, shares of levels, penalties on long answers, the best policy."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # llm runs from the checkout; it is not installed

import torch

from ebpo_sim import InputError, group_rewards, make
from llm import checkpoints, evaluate, prompt_filter, train
from llm.problems import task
from llm.settings import Settings
from llm_toys import save_model

TINY = Settings(
    prompts=4, steps=4, lr=3e-3, warmup=1, topics="count,mod", max_level=3, per_cell=24, eval_every=1, eval_per_cell=4,
    eval_samples=2, checkpoint_every=2, sft_steps=80, sft_batch=64, hidden=16, layers=1, heads=2, kv_heads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started tiny model, trained once."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_prompts_are_filtered_by_the_start_policy(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards --filter-prompts: only prompts within the bounds are met, the file says why, a resumed run keeps them."""
    settings = replace(TINY, filter_prompts="0.2,0.9", filter_samples=5)
    train.train(settings, tmp_path, cache)
    found = rows(tmp_path / "filter.csv")
    assert len(found) == len(task(settings).train)
    assert all((0.2 <= float(r["pass_rate"]) <= 0.9) == (r["kept"] == "True") for r in found)
    assert all(round(5 * float(r["pass_rate"]), 9).is_integer() for r in found)
    kept = {r["prompt_id"] for r in found if r["kept"] == "True"}
    met = {r["prompt_id"] for r in rows(tmp_path / "rollouts.csv")}
    assert met <= kept and 0 < len(kept) < len(found) and "by 5 answers of the start policy" in capsys.readouterr().out
    saved = checkpoints.load(tmp_path / "checkpoint.pt")["rates"]
    assert saved == [float(r["pass_rate"]) for r in found]
    (tmp_path / "filter.csv").unlink()
    train.train(settings, tmp_path, cache, resume=True)
    assert rows(tmp_path / "filter.csv") == found


@pytest.mark.parametrize("bad", ["0.5", "0.9,0.1", "-1,0.5", "0,2", "a,b", "0,nan", "0.1,0.2,0.3"])
def test_bounds_that_are_none(bad: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--filter-prompts must be two pass rates"):
        train.train(replace(TINY, filter_prompts=bad), tmp_path, cache)


def test_a_filter_that_leaves_too_few(cache: Path, tmp_path: Path) -> None:
    """Guards the refusal, before a file is written; and that --ranking takes the place of rollouts."""
    problems = task(TINY).train
    with pytest.raises(InputError, match="leaves 0 problems, fewer than the 4 of a step"):
        prompt_filter.by_rate(replace(TINY, filter_prompts="0.4,0.6"), problems, [0.0] * len(problems))
    ranking = tmp_path / "rates.csv"
    lines = [f"{p.id},{int(i < 5)}" for i, p in enumerate(problems)]
    ranking.write_text("prompt_id,reward\n" + "\n".join(lines))
    settings = replace(TINY, filter_prompts="0.5,1", ranking=str(ranking), steps=1)
    train.train(settings, tmp_path / "run", cache)
    assert {r["prompt_id"] for r in rows(tmp_path / "run/rollouts.csv")} <= {p.id for p in problems[:5]}


def test_long_prompts_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards --max-prompt-tokens: training and validation lose exactly the longer prompts, and it is said."""
    lines = [json.dumps({"prompt": "q" * (i % 9 + 1) + str(i), "answer": "a", "topic": "t"}) for i in range(90)]
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    settings = Settings(
        model=str(save_model(tmp_path / "model")), dataset=str(tmp_path / "set.jsonl"), instruction="none",
        verifier="exact", prompts=4, steps=3, max_new=2, eval_samples=1, max_prompt_tokens=6, max_prompt=6,
    )  # fmt: skip
    train.train(settings, tmp_path / "out", tmp_path)
    said = capsys.readouterr().out
    for name, some in zip(("training", "validation"), task(settings), strict=True):
        longer = sum(len(p.prompt) > 6 for p in some)  # a token a byte
        assert longer > 0 and f"left out {longer} of {len(some)} {name} problems" in said
    short = {p.id for p in task(settings).train if len(p.prompt) <= 6}
    assert {r["prompt_id"] for r in rows(tmp_path / "out/rollouts.csv")} <= short
    with pytest.raises(InputError, match="--max-prompt-tokens 1 leaves no training problem"):
        train.train(replace(settings, max_prompt_tokens=1), tmp_path / "none", tmp_path)


def test_level_shares() -> None:
    """Guards mixtures of sizes: counts follow the shares, at the same number of problems; what is none is refused."""
    settings = replace(TINY, topics="chain", max_level=9, per_cell=40, level_shares="2=0.3,5=0.1")
    counts = [p.cell.level for p in task(settings).train]
    assert (counts.count(2), counts.count(5), len(counts)) == (150, 50, 200)
    for bad in ("2", "9=1", "2=-1,3=2", "2=0", "2=nan", "2=inf", "x=1"):
        with pytest.raises(InputError, match="--level-shares must be"):
            task(replace(settings, level_shares=bad))


def test_overlong_answers(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards `+ overlong` here: logged advantages are the estimator's of rewards less the penalty, by hand; a penalty
    that no answer can reach is said."""
    settings = replace(TINY, estimator="grpo + overlong:longest=9,cache=8,factor=0.5", steps=2)
    train.train(settings, tmp_path / "run", cache)
    plain, found, changed = make("grpo"), rows(tmp_path / "run/rollouts.csv"), 0
    for step in ("1", "2"):
        mine = [r for r in found if r["step"] == step]
        reward, length, advantage = (
            np.array([float(r[name]) for r in mine]).reshape(4, 4) for name in ("reward", "length", "advantage")
        )
        shaped = reward + 0.5 * np.clip((9 - 8 - length) / 8, -1, 0)
        expected = plain.score(plain.init(), group_rewards(shaped))[0]
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
        changed += int((advantage != plain.score(plain.init(), group_rewards(reward))[0]).sum())
    assert changed > 0 and "no answer reaches" not in capsys.readouterr().out
    train.train(replace(settings, estimator="grpo + overlong", steps=1), tmp_path / "far", cache)
    assert "no answer reaches the penalty" in capsys.readouterr().out


def test_the_best_policy_is_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards best.pt: of the highest validation, the first of equals, after a resumed run too, and readable."""
    values = {1: 0.3, 2: 0.6, 3: 0.6, 4: 0.1}
    real, seen = train.mean_and_error, []

    def told(rates: list[float]) -> tuple[float, float | None]:
        seen.append(1)
        return values[(len(seen) - 1) % 4 + 1], real(rates)[1]

    monkeypatch.setattr(train, "mean_and_error", told)
    found = train.train(TINY, tmp_path, cache, keep_best=True)
    assert checkpoints.load(tmp_path / "best.pt")["step"] == 2 == found["best"]["step"]
    assert found["best"]["validation_pass1"] == 0.6 and found["best"]["validations"] == 4
    first = (tmp_path / "best.pt").read_bytes()
    content = checkpoints.load(tmp_path / "best.pt")
    checkpoints.save(tmp_path / "checkpoint.pt", {name: content[name] for name in checkpoints.PARTS})
    del seen[2:]
    train.train(TINY, tmp_path, cache, resume=True, keep_best=True)
    assert (tmp_path / "best.pt").read_bytes() == first
    evaluate.main([str(tmp_path / "best.pt"), "--samples", "2", "--per-cell", "2", "--out", str(tmp_path / "scores")])
    train.train(replace(TINY, steps=1), tmp_path, cache)
    assert not (tmp_path / "best.pt").exists()
