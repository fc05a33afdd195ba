"""Parts of one's own: one file outside the package, in every command, workers included, with nothing edited."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ebpo_sim import InputError, plugins, rungs
from ebpo_sim import registry as parts
from ebpo_sim.estimators import Estimator, make, names, register, registry
from ebpo_sim.methods.method import KINDS
from ebpo_sim.pool import workers
from ebpo_sim.worlds import grammar

ROOT = Path(__file__).resolve().parents[1]
TOY = """
from dataclasses import dataclass
import numpy as np
from ebpo_sim.estimators import Estimator, Evaluation, StatelessBaseline, Subtract, register

@dataclass(frozen=True)
class Constant(StatelessBaseline):
    value: float = 0.1

    def evaluate(self, state, groups):
        return Evaluation(np.full((*groups.size_P.shape, 1), self.value))

@dataclass(frozen=True)
class Remembering(Constant):
    needs = frozenset({"prompt_ids"})

@register
def toy(*, value: float = 0.1) -> Estimator:
    return Estimator("toy", (Subtract(Constant(value)),))

@register
def toy_by_prompt() -> Estimator:
    return Estimator("toy_by_prompt", (Subtract(Remembering()),))

from ebpo_sim.objectives import Push, register_objective
from ebpo_sim.objectives.base import library
from ebpo_sim.part import Stateless

@register_objective("only_up")
@dataclass(frozen=True)
class OnlyUp(Stateless):
    strength: float = 1.0
    scope = "token"
    zero_at_zero = True

    def push(self, state, tokens, draw=None):
        xp = library(tokens.log_prob_NT)
        up = tokens.mask_NT & (tokens.advantage_NT > 0)
        return Push(xp.where(up, self.strength * tokens.advantage_NT, 0.0 * tokens.log_prob_NT))

    def value(self, state, tokens, held):
        return self.push(state, held).log_prob_NT * tokens.log_prob_NT

from ebpo_sim.worlds import Beta, register_world

@register_world("even")
def even(body):
    return Beta(float(body), float(body))

from ebpo_sim.sampling import Kept, Plan, register_allocation, register_selection

@register_allocation("twos_and_fours")
@dataclass(frozen=True)
class TwosAndFours(Stateless):
    needs = frozenset({"prompt_choice"})

    def plan(self, state, pool, ask, draw):
        prompt_P = draw.generator().integers(pool.count, size=ask.prompts)
        return Plan(prompt_P, 2 + 2 * (np.arange(ask.prompts) % 2))

@register_selection("without_the_worst")
@dataclass(frozen=True)
class WithoutTheWorst(Stateless):
    share: float = 0.5
    needs = frozenset({"batch_choice"})
    after = False
    batches = 1

    def weigh(self, state, groups, advantage_PG, draw):
        fails = groups.mask_PG & (groups.rewards_PG == 0)
        drop = fails & (np.cumsum(fails, axis=-1) > np.ceil(self.share * fails.sum(axis=-1, keepdims=True)))
        return Kept(groups.mask_PG & ~drop)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TOY)
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command from the repository's root, as a user types it."""
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False
    )


SAMPLING = "twos_and_fours + without_the_worst:share=0.25"
SMALL = ("--quick", "--threads", "1", "--prompts", "4", "--steps", "4", "--burn-in", "2", "--replicates", "2",
         "--group-size", "2", "--world", "points:0.2,0.7", "--json")  # fmt: skip


def test_a_loaded_rule_is_in_the_study(toy: Path, tmp_path: Path) -> None:
    """By name with its settings, and by itself among all that can stand there; one that cannot is left out of them."""
    for options in (["--estimator", "toy:value=0.45 + without_the_worst"], []):
        done = run("-m", "ebpo_sim.mse_study", *SMALL, *options, "--load", str(toy), "--out", str(tmp_path / "o"))
        assert done.returncode == 0, done.stderr
        found = {row["estimator"]: row for row in json.loads(done.stdout)["rows"]}
        name = options[1] if options else "toy"
        value = 0.45 if options else 0.1  # whatever is left out, it is the same constant
        assert found[name]["mse_exact"] == pytest.approx(((value - 0.2) ** 2 + (value - 0.7) ** 2) / 2)
        assert "toy_by_prompt" not in found and (options or "ebpo" in found)


def test_a_world_of_ones_own(toy: Path, tmp_path: Path) -> None:
    """A loaded population by its text: p ~ Beta(2, 2), whose best line has a third of the group mean's error."""
    small = [option if option != "points:0.2,0.7" else "even:2" for option in SMALL]
    done = run("-m", "ebpo_sim.mse_study", *small, "--load", str(toy), "--estimator", "oracle_linear",
               "--out", str(tmp_path / "o"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = next(r for r in json.loads(done.stdout)["rows"] if r["estimator"] == "oracle_linear")
    assert (row["world"], row["ratio_exact"]) == ("even:2", pytest.approx(2 / 6))


def test_what_cannot_stand_on_a_rung_is_refused_with_the_remedy(toy: Path, tmp_path: Path) -> None:
    done = run("-m", "ebpo_sim.mse_study", *SMALL, "--estimator", "toy_by_prompt", "--load", str(toy),
               "--out", str(tmp_path / "o"))  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "toy_by_prompt needs prompt_ids, which counts" in done.stderr and "one stable id a prompt" in done.stderr


def test_workers_and_chains_know_it_too(toy: Path, tmp_path: Path) -> None:
    """A rule that needs prompt ids, with an objective, an allocation and a selection of one's own, trains on the chains
    in two worker processes."""
    method = f"toy_by_prompt + only_up:strength=0.5 + {SAMPLING}"
    done = run("-m", "ebpo_sim.training_study", "--quick", "--threads", "2", "--group-size", "2", "--order", "shuffled",
               "--optimiser", "sgd", "--estimator", method, "--load", str(toy), "--json",
               "--out", str(tmp_path / "o"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert method in {row["estimator"] for row in json.loads(done.stdout)["final"]}


def test_the_language_model_trains_with_it(toy: Path, tmp_path: Path) -> None:
    """The same file and the same text in llm/train.py: two steps of a tiny model."""
    pytest.importorskip("transformers")
    method = f"toy_by_prompt + only_up + {SAMPLING}"
    done = run("llm/train.py", "--estimator", method, "--load", str(toy), "--steps", "2",
               "--sft-steps", "5", "--hidden", "16", "--layers", "1", "--prompts", "4", "--per-cell", "8",
               "--eval-per-cell", "1", "--out", str(tmp_path / "o"), "--cache", str(tmp_path / "c"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "checkpoint.pt").exists()
    with (tmp_path / "o" / "rollouts.csv").open() as file:
        assert Counter(row["step"] for row in csv.DictReader(file)) == {"1": 12, "2": 12}


def test_trl_trains_with_it(toy: Path, tmp_path: Path) -> None:
    """The same file on TRL: an estimator and an objective of one's own; its allocation is refused there by name."""
    pytest.importorskip("trl")
    small = ("--load", str(toy), "--backend", "trl", "--steps", "1", "--sft-steps", "2", "--hidden", "16",
             "--layers", "1", "--prompts", "2", "--per-cell", "4", "--eval-per-cell", "1", "--out", str(tmp_path / "o"),
             "--cache", str(tmp_path / "c"))  # fmt: skip
    done = run("llm/train.py", "--estimator", "toy + only_up", *small)
    assert done.returncode == 0, done.stderr
    refused = run("llm/train.py", "--estimator", "toy + twos_and_fours", *small)
    assert refused.returncode == 2 and "twos_and_fours needs prompt_choice, which trl" in refused.stderr


def test_the_table_lists_it(toy: Path) -> None:
    done = run("-m", "ebpo_sim.methods", "--json", "--load", str(toy))
    rows = {row["part"]: row for row in json.loads(done.stdout)}
    assert rows["toy"]["counts"] == rows["toy"]["llm"] == rows["toy_by_prompt"]["chains"] == ""
    assert rows["toy_by_prompt"]["counts"] == "needs prompt_ids"


BAD = {
    "missing": ("gone.py", None, "is no Python file"),
    "other": ("mine.txt", "x = 1", "is no Python file"),
    "syntax": ("bad.py", "def", "SyntaxError"),
    "raises": ("bad.py", "raise RuntimeError('no\\nway')", "RuntimeError: no"),
    "twice": ("bad.py", TOY.replace("def toy(", "def ebpo("), "already registered"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_loaded_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, words = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content)
    done = run("-m", "ebpo_sim.methods", "--load", str(tmp_path / name))
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_an_unknown_rule_is_told_of_load() -> None:
    with pytest.raises(InputError, match=r"--load FILE\.py"):
        make("of_mine")


def _known() -> tuple[str, ...]:
    return names()


def test_load_runs_a_file_once_and_marks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process and in its workers; the mark changes with the contents."""
    monkeypatch.setattr(plugins, "_loaded", {})
    for owner, name in ((registry, "_PRESETS"), (grammar, "_own"), (parts, "_kind_of"),
                        *((kind, "_parts") for kind in KINDS)):  # fmt: skip
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    assert plugins.mark() == ""
    path = tmp_path / "once.py"
    path.write_text(TOY.replace("def toy", "def once_toy"))
    plugins.load([path, str(path)])
    first = plugins.mark()
    assert first and "once_toy" in names() and plugins.loaded() == (str(path),)
    with workers(2) as pool:
        assert pool is not None
        assert "once_toy" in pool.submit(_known).result()
    other = tmp_path / "other.py"
    other.write_text("x = 1")
    plugins.load([other])
    assert plugins.mark() != first


def test_every_shipped_rule_stands_where_it_is_used() -> None:
    """Guards the table: presets stand everywhere but where what they need by name is not there."""
    for rung in rungs.RUNGS:
        standing = set(rungs.standing(rung))
        asking = {
            "true_prior": {"oracle_linear", "oracle_bayes"},
            "score_norms": {"optimal_token_baseline", "optimal"},
            "prompt_ids": {"regression", "spo", "dbb", "anchor"},
            "answers": {"copo"},
            "components": {"gdpo"},
            "greedy_reward": {"remax"},
            "rollout_order": {"krpo", "riskpo"},
        }
        lacking = {name for need, these in asking.items() if need not in rung.provides for name in these}
        assert standing == set(names()) - lacking
    assert set(names()) - set(rungs.standing(rungs.CHAINS)) == {"gdpo"}  # one reward
    assert isinstance(make("ebpo"), Estimator) and callable(register)
