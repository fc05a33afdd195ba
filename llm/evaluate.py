"""pass@1, unbiased pass@k and maj@k of a checkpoint, with standard errors over prompts, by topic and level.

    python llm/evaluate.py results/llm/train/checkpoint.pt --split heldout --samples 16

Writes rollouts.csv (one row a rollout: prompt_id, cluster, reward, level, length), which `python -m ebpo_sim.diagnose`
reads, and scores.csv. Exit code 2 and one line for bad input.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from transformers import PreTrainedModel

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from llm import checkpoints, policy, rollouts
from llm.tasks import MAX_ANSWER, CharTokenizer, Problem, cells, pool, score
from llm.tasks.generated import SPLITS

CHUNK = 512  # sequences sampled at once


class Outcome(NamedTuple):
    """All answers to one problem: their texts (None: never ended), verdicts and lengths in tokens."""

    problem: Problem
    texts: tuple[str | None, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]


def sampled_outcomes(
    model: PreTrainedModel, problems: Sequence[Problem], samples: int, seed: int, temperature: float = 1.0
) -> list[Outcome]:
    """`samples` answers to each problem; the same seed, the same draws."""
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    tokenizer, generator = CharTokenizer(), torch.Generator().manual_seed(seed)
    found = []
    per_call = max(1, CHUNK // samples)
    for start in range(0, len(problems), per_call):
        some = list(problems[start : start + per_call])
        ids_PL, mask_PL = tokenizer.pad_left([p.prompt for p in some])
        rolled = rollouts.sample(model, ids_PL, mask_PL, samples, MAX_ANSWER + 1, tokenizer, generator, temperature)
        texts, lengths = rollouts.answers(rolled, tokenizer), rolled.mask_NT.sum(dim=1).tolist()
        for i, problem in enumerate(some):
            part = slice(i * samples, (i + 1) * samples)
            verdicts = tuple(score(text, problem.answer) for text in texts[part])
            found.append(Outcome(problem, tuple(texts[part]), verdicts, tuple(lengths[part])))
    return found


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a success: unbiased for k <= n."""
    if not 1 <= k <= n or not 0 <= successes <= n:
        raise InputError(f"pass@k needs 1 <= k <= n and 0 <= successes <= n, got k {k}, n {n}, successes {successes}")
    return 1.0 - math.comb(n - successes, k) / math.comb(n, k)


def maj_at_k(texts: Sequence[str | None], gold: str, k: int) -> float:
    """Share of right majority votes over the n // k disjoint runs of k answers: unbiased for the vote of k.

    Answers that never ended or are empty do not vote; a tie counts as the chance to pick the right one of the tied.
    """
    if not 1 <= k <= len(texts):
        raise InputError(f"maj@k needs 1 <= k <= the number of samples, got k {k}, samples {len(texts)}")
    votes = [_vote(texts[i * k : (i + 1) * k], gold) for i in range(len(texts) // k)]
    return sum(votes) / len(votes)


def _vote(texts: Sequence[str | None], gold: str) -> float:
    counts = Counter(text for text in texts if text)
    first = [text for text, count in counts.items() if count == max(counts.values())]
    return 1 / len(first) if gold in first else 0.0


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over prompts and its standard error (NaN for a single prompt)."""
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return mean, spread / math.sqrt(n)


def pass_rates(outcomes: Sequence[Outcome]) -> list[float]:
    """Share of right answers of each prompt: its pass@1."""
    return [sum(o.rewards) / len(o.rewards) for o in outcomes]


def scores(outcomes: Sequence[Outcome], ks: Sequence[int]) -> list[dict[str, Any]]:
    """One row for all problems, each topic, and each level of a topic: measures with standard errors."""
    measures: dict[str, Callable[[Outcome], float]] = {"pass@1": lambda o: sum(o.rewards) / len(o.rewards)}
    for k in ks:
        if k > 1:
            measures[f"pass@{k}"] = lambda o, k=k: pass_at_k(len(o.rewards), int(sum(o.rewards)), k)
            measures[f"maj@{k}"] = lambda o, k=k: maj_at_k(o.texts, o.problem.answer, k)
    groups: dict[tuple[str, str], list[Outcome]] = {("all", "all"): list(outcomes)}
    for outcome in outcomes:
        groups.setdefault((outcome.problem.cell.topic, "all"), []).append(outcome)
    for outcome in outcomes:
        groups.setdefault((outcome.problem.cell.topic, str(outcome.problem.cell.level)), []).append(outcome)
    rows = []
    for (topic, level), members in groups.items():
        row: dict[str, Any] = {"topic": topic, "level": level, "prompts": len(members)}
        for name, measure in measures.items():
            mean, error = mean_and_error([measure(o) for o in members])
            row |= {name: mean, f"{name} se": None if math.isnan(error) else error}
        rows.append(row)
    return rows


def rollout_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row a rollout, in the columns that `ebpo_sim.diagnose` knows."""
    return [
        {
            "prompt_id": o.problem.prompt,
            "cluster": o.problem.cell.topic,
            "reward": reward,
            "level": o.problem.cell.level,
            "length": length,
        }
        for o in outcomes
        for reward, length in zip(o.rewards, o.lengths, strict=True)
    ]


def table(rows: Sequence[dict[str, Any]], levels: bool = False) -> str:
    """Rows of `scores` as text, value ± standard error; topics only, unless levels are asked for."""
    names = [key for key in rows[0] if "@" in key and not key.endswith(" se")]
    shown = [row for row in rows if levels or row["level"] == "all"]
    body = [
        [row["topic"], row["level"], str(row["prompts"]), *(report.with_error(row[n], row[f"{n} se"]) for n in names)]
        for row in shown
    ]
    return report.text_table(["topic", "level", "prompts", *names], body)


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python llm/evaluate.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("checkpoint", help="a checkpoint.pt written by python llm/train.py")
    add("--split", default="heldout", choices=SPLITS, help="which problems (default heldout)")
    add("--per-cell", type=int, default=32, help="problems a cell, where the split has as many (default 32)")
    add("--samples", type=int, default=16, help="answers a problem (default 16)")
    add("--k", default="1,4,16", help="k of pass@k and maj@k, at most --samples (default 1,4,16)")
    add("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    add("--seed", type=int, default=0, help="same seed, same answers (default 0)")
    add("--threads", type=int, default=1, help="of torch (default 1)")
    add("--out", default="results/llm/evaluate", help="folder for rollouts.csv and scores.csv")
    given = parser.parse_args(argv)
    try:
        ks = sorted({int(k) for k in given.k.split(",")})
    except ValueError:
        raise InputError(f"--k must be whole numbers with commas, as in 1,4,16, got {given.k!r}") from None
    if ks[0] < 1 or ks[-1] > given.samples:
        raise InputError(f"--k must be between 1 and --samples {given.samples}, got {given.k}: raise --samples")
    if given.threads < 1 or given.temperature < 0:
        raise InputError(f"--threads must be at least 1, --temperature 0, got {given.threads}, {given.temperature}")
    out = report.writable_folder(given.out)
    torch.set_num_threads(given.threads)
    saved = checkpoints.load(Path(given.checkpoint))
    settings = saved["settings"]
    model = policy.build(policy.Shape(**{k: settings[k] for k in policy.Shape.__dataclass_fields__}), 0)
    model.load_state_dict(saved["model"])
    problems = pool(given.split, cells(settings["topics"], settings["max_level"]), given.per_cell, given.seed)
    if not problems:
        raise InputError(f"the {given.split} split has no problem in these cells: raise --per-cell")
    outcomes = sampled_outcomes(model, problems, given.samples, given.seed, given.temperature)
    found = scores(outcomes, ks)
    report.write_csv(out / "rollouts.csv", rollout_rows(outcomes))
    report.write_csv(out / "scores.csv", found)
    report.say(table(found, levels=True))
    report.say(f"step {saved['step']}, {given.split} split, ± one standard error over prompts")


if __name__ == "__main__":
    cli.run(main)
