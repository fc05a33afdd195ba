"""pass@1, unbiased pass@k and maj@k of a checkpoint or model, with intervals over prompts, by topic and level.

    python llm/evaluate.py results/llm/train/checkpoint.pt --split heldout --samples 16
    python llm/evaluate.py Qwen/Qwen3-0.6B --dataset math500.jsonl --device cuda --dtype bf16 --max-new 2048

Writes rollouts.csv (one row a rollout: prompt_id, cluster, reward, level, length, score_norm), which
`python -m ebpo_sim.diagnose` reads, scores.csv, and for verdicts of 0 and 1 score_norms.csv and .png: score norms of
right and wrong answers by pass rate. Exit code 2 and one line for bad input.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    from llm import early

    early.guard()

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from llm import checkpoints, score_norms
from llm.engines import Engine, answer, precision
from llm.folders import alone_in
from llm.run import engine_of, load_policy, sized, verifier_of
from llm.settings import Settings
from llm.sizes import use_threads
from llm.target import FROM_TRAINING, problems_of, target_of
from llm.tasks import Problem, Verifier
from llm.tasks.final_answer import contents


class Outcome(NamedTuple):
    """All answers to one problem: their texts (None: never ended), verdicts, lengths in tokens, and score norms."""

    problem: Problem
    texts: tuple[str | None, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    norms: tuple[float, ...]


def sampled_outcomes(
    engine: Engine, verifier: Verifier, problems: Sequence[Problem], samples: int, seed: int, temperature: float = 1.0,
    done: Callable[[int], object] = lambda problems: None,
) -> list[Outcome]:  # fmt: skip
    """`samples` answers to each problem; the same seed, the same draws. done: told how many problems each call adds."""
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    found = []
    per_call = max(1, engine.chunk // samples)
    for start in range(0, len(problems), per_call):
        some = list(problems[start : start + per_call])
        # a seed for each call, so that a problem's answers depend on nothing sampled before its own call; apart by
        # the answers of the calls before, as an engine may count seeds up by answers
        rolled, texts, rewards = answer(engine, verifier, some, samples, seed + start * samples, temperature)
        lengths, norms = rolled.mask_NT.sum(dim=1).tolist(), rolled.score_norm_N.tolist()
        for i, problem in enumerate(some):
            part = slice(i * samples, (i + 1) * samples)
            columns = (texts[part], rewards[part], lengths[part], norms[part])
            found.append(Outcome(problem, *(tuple(column) for column in columns)))
        done(len(some))
    return found


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold a success: unbiased for k <= n."""
    if not 1 <= k <= n or not 0 <= successes <= n:
        raise InputError(f"pass@k needs 1 <= k <= n and 0 <= successes <= n, got k {k}, n {n}, successes {successes}")
    return 1.0 - math.comb(n - successes, k) / math.comb(n, k)


def maj_at_k(texts: Sequence[str | None], rewards: Sequence[float], k: int) -> float:
    """Reward of the majority vote, averaged over the n // k disjoint runs of k answers: unbiased for the vote of k.

    Votes are counted by `final_answer`, spelled the same or not at all. Answers that never ended or are empty do not
    vote; a tie is the mean over the tied.
    """
    if not 1 <= k <= len(texts):
        raise InputError(f"maj@k needs 1 <= k <= the number of samples, got k {k}, samples {len(texts)}")
    parts = [slice(i * k, (i + 1) * k) for i in range(len(texts) // k)]
    votes = [_vote(texts[part], rewards[part]) for part in parts]
    return sum(votes) / len(votes)


def _vote(texts: Sequence[str | None], rewards: Sequence[float]) -> float:
    cast: dict[str, list[float]] = {}
    for text, reward in zip(texts, rewards, strict=True):
        if text:
            cast.setdefault(final_answer(text), []).append(reward)
    most = max(map(len, cast.values()), default=0)
    first = [sum(given) / len(given) for given in cast.values() if len(given) == most]
    return sum(first) / len(first) if first else 0.0


def final_answer(text: str) -> str:
    """What an answer votes for: the contents of its last \\boxed{...}, without spaces, else its whole text."""
    box = contents(text)
    return "".join(box.split()) if box else text.strip()


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over prompts and its standard error (None for a single prompt)."""
    n = len(values)
    mean = sum(values) / n
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) / math.sqrt(n) if n > 1 else None


def pass_rates(outcomes: Sequence[Outcome]) -> list[float]:
    """Share of right answers of each prompt: its pass@1."""
    return [sum(o.rewards) / len(o.rewards) for o in outcomes]


def scores(outcomes: Sequence[Outcome], ks: Sequence[int]) -> list[dict[str, Any]]:
    """One row for all problems, each topic, and each level of a topic: measures with standard errors."""
    binary = all(r in (0.0, 1.0) for o in outcomes for r in o.rewards)
    groups: dict[tuple[str, str], list[Outcome]] = {("all", "all"): list(outcomes)}
    for by_level in (False, True):
        for o in outcomes:
            level = str(o.problem.cell.level) if by_level else "all"
            groups.setdefault((o.problem.cell.topic, level), []).append(o)
    rows = []
    for (topic, level), members in groups.items():
        row: dict[str, Any] = {"topic": topic, "level": level, "prompts": len(members)}
        for name, values in _measured(members, ks, binary):
            row |= zip((name, f"{name} se"), mean_and_error(values), strict=True)
        rows.append(row)
    return rows


def _measured(outcomes: Sequence[Outcome], ks: Sequence[int], binary: bool) -> Iterator[tuple[str, list[float]]]:
    yield "pass@1", pass_rates(outcomes)
    for k in ks:
        if k > 1 and binary:
            yield f"pass@{k}", [pass_at_k(len(o.rewards), int(sum(o.rewards)), k) for o in outcomes]
        if k > 1:
            yield f"maj@{k}", [maj_at_k(o.texts, o.rewards, k) for o in outcomes]


def rollout_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row a rollout, in the columns that `ebpo_sim.diagnose` knows."""
    return [
        {
            "prompt_id": o.problem.id,
            "cluster": o.problem.cell.topic,
            "reward": reward,
            "level": o.problem.cell.level,
            "length": length,
            "score_norm": norm,
        }
        for o in outcomes
        for reward, length, norm in zip(o.rewards, o.lengths, o.norms, strict=True)
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `scores` as text, value ± standard error."""
    names = [key for key in rows[0] if "@" in key and not key.endswith(" se")]
    body = [
        [row["topic"], row["level"], str(row["prompts"]), *(report.with_error(row[n], row[f"{n} se"]) for n in names)]
        for row in rows
    ]
    return report.text_table(["topic", "level", "prompts", *names], body)


@dataclass(frozen=True)
class Options:
    """The command line's own options; those of `FROM_TRAINING` stand beside them."""

    split: Literal["train", "validation", "heldout", "all"] = cli.option(
        "heldout",
        "problems: heldout, neither trained on nor validated with as far as the policy has a record; all: any "
        "(default heldout)",
    )
    trust_checkpoint: bool = cli.option(False, "run the verifier that the checkpoint names, as --verifier does")
    per_cell: int = cli.option(32, "generated problems a cell, where the split has as many (default 32)", 1)
    limit: int = cli.option(0, "problems of a data set, 0 for all (default 0)", 0)
    samples: int = cli.option(16, "answers a problem (default 16)", 1)
    k: str = cli.option("", "k of pass@k and maj@k, at most --samples (default 1,4,16 as far as --samples goes)")
    seed: int = cli.seed_option("same seed, same generated problems and answers (default 0)")
    out: str = cli.option(
        "results/llm/evaluate", "folder for rollouts.csv, scores.csv, score_norms.csv and its picture"
    )


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    parser = cli.Parser(prog="python llm/evaluate.py", description=__doc__.splitlines()[0])
    target = "a checkpoint.pt written by python llm/train.py, or a Hugging Face model by name or folder"
    parser.add_argument("target", help=target)
    cli.add_options(parser, Options)
    note = " (default: the checkpoint's, or that of llm/train.py)"
    cli.add_options(parser, Settings, dict.fromkeys(FROM_TRAINING), lambda default: note)
    given = parser.parse_args(argv)
    cli.options_of(Options, given)
    given.k = given.k or ",".join(str(k) for k in (1, 4, 16) if k <= given.samples)
    try:
        ks = sorted({int(k) for k in given.k.split(",")})
    except ValueError:
        raise InputError(f"--k must be whole numbers with commas, as in 1,4,16, got {given.k!r}") from None
    if ks[0] < 1 or ks[-1] > given.samples:
        raise InputError(f"--k must be between 1 and --samples {given.samples}, got {given.k}: raise --samples")
    out = report.writable_folder(given.out)
    with alone_in(out):
        run(given, ks, out)


def run(given: argparse.Namespace, ks: Sequence[int], out: Path) -> None:
    """Evaluate what the arguments ask for and write its files into `out`."""
    target = target_of(given)
    settings, saved, _ = target
    use_threads(settings.threads)
    where = precision(settings.device, settings.dtype)
    problems = problems_of(target, given)
    settings = sized(settings, problems, where, given.samples * len(problems), trains=False)
    with verifier_of(settings) as verifier:
        verifier.start()
        model, tokenizer = load_policy(settings, out / "cache", where, trained=saved is not None)
        if saved is not None:
            checkpoints.put_weights(model, saved["model"])
        engine = engine_of(settings, model, tokenizer, where)
        with report.progress(len(problems), "evaluate") as bar:
            outcomes = sampled_outcomes(
                engine, verifier, problems, given.samples, given.seed, settings.temperature, bar.update
            )
        failed = sum(verifier.failures.values())
    report.write_csv(out / "rollouts.csv", rollout_rows(outcomes))
    if any(r not in (0.0, 1.0) for o in outcomes for r in o.rewards):
        report.say("scores other than 0 and 1: pass@k has no meaning and is left out for k > 1, and so are score norms")
    else:
        norms = score_norms.table([(o.rewards, o.norms) for o in outcomes])
        report.write_csv(out / "score_norms.csv", norms)
        report.save_figure(out / "score_norms.png", score_norms.figure(norms))
    found = scores(outcomes, ks)
    report.write_csv(out / "scores.csv", found)
    report.say(table(found))
    trained = "" if saved is None else f"step {saved['step']}, "
    report.say(f"{trained}{settings.dataset}, {len(problems)} problems, ± one standard error over prompts")
    if failed:
        report.say(f"the verifier failed on {failed} answers, scored 0: {verifier.failures}")
    report.say(
        f"files: {given.out}/{{scores.csv,rollouts.csv,...}}; python -m ebpo_sim.diagnose {given.out}/rollouts.csv"
    )


if __name__ == "__main__":
    cli.run(main)
