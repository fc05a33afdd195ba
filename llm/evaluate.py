"""pass@1, pass@k, maj@k and avg@k of a checkpoint or model on one or several data sets, with intervals.

    python llm/evaluate.py results/llm/train/checkpoint.pt --split heldout --samples 16
    python llm/evaluate.py Qwen/Qwen3-0.6B --dataset aime24.jsonl --dataset math500.jsonl --samples 32 --top-p 0.95 \
        --engine vllm --device cuda --dtype bf16 --max-new 2048

Every data set has rows of its own; with several there is a pooled row too, over the prompts of all, which says so.
Writes scores.csv, rollouts.csv (one row a rollout: prompt_id, cluster, reward, level, length, score_norm), which
`python -m ebpo_sim.diagnose` reads, answers.jsonl (each with its text), and for verdicts of 0 and 1 score_norms.csv and
.png: score norms of right and wrong answers by pass rate. What a stopped evaluation has drawn is kept after every call
of the engine: --resume goes on from it and ends in the same files. Exit code 2 and one line for bad input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if not __package__:  # run as a script: the repository instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    from llm import early

    early.guard()

from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from llm import checkpoints, engine_vllm, hub, outcomes, score_norms, scores
from llm.collect import seed_for
from llm.engines import Engine, Precision, precision
from llm.folders import alone_in
from llm.outcomes import Outcome, Unfinished, sampled_outcomes
from llm.problems import endings
from llm.run import engine_of, load_policy, sized, verifier_of
from llm.settings import Settings
from llm.sizes import use_threads
from llm.target import FROM_TRAINING, Target, problems_of, targets_of
from llm.tasks import Problem, Verifier, key_of
from llm.tasks.tokenizer import Tokenizer

CALL = 1 << 14  # answers asked for at once, at most: what is drawn is kept after every call


@dataclass(frozen=True)
class Options:
    """The command line's own options; those of `FROM_TRAINING` stand beside them."""

    dataset: tuple[str, ...] = cli.option(
        (), "generated, sample, a file or a Hugging Face name (repeatable; default: the checkpoint's, or sample)"
    )
    dataset_split: tuple[str, ...] = cli.option(
        (), "split of a Hugging Face data set: once for all, or once for each --dataset (default: the checkpoint's)"
    )
    split: Literal["train", "validation", "heldout", "longer", "all"] = cli.option(
        "heldout",
        "problems: heldout, neither trained on nor validated with as far as the policy has a record; longer: of a "
        "generated task's sizes that nothing is ever trained on; all: any (default heldout)",
    )
    trust_checkpoint: bool = cli.option(False, "run the verifier that the checkpoint names, as --verifier does")
    per_cell: int = cli.option(32, "generated problems a cell, where the split has as many (default 32)", 1)
    limit: int = cli.option(0, "problems of a data set, 0 for all (default 0)", 0)
    samples: int = cli.option(16, "answers a problem (default 16)", 1)
    k: str = cli.option("", "k of pass@k and maj@k, at most --samples (default 1,4,16 as far as --samples goes)")
    top_p: float = cli.option(1.0, "answers are drawn from the likeliest tokens that have this probability (default 1)")
    seed: int = cli.seed_option("same seed, same generated problems and answers (default 0)")
    resume: bool = cli.option(False, "go on from what a stopped evaluation has left in --out")
    out: str = cli.option(
        "results/llm/evaluate", "folder for scores.csv, rollouts.csv, answers.jsonl, score_norms.csv and its picture"
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
    if not 0 < given.top_p <= 1:
        raise InputError(f"--top-p must be above 0 and at most 1, got {given.top_p}: 1 leaves no token out")
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
    targets = targets_of(given)
    settings = targets[0].settings
    if settings.engine == "vllm":
        engine_vllm.check(settings.model, settings.device)
    use_threads(settings.threads)
    where = precision(settings.device, settings.dtype)
    sets = {target.settings.dataset: problems_of(target, given) for target in targets}
    _check_ids(sets)
    everything = [problem for problems in sets.values() for problem in problems]
    settings = sized(settings, everything, where, given.samples * len(everything), trains=False)
    with ExitStack() as stack:
        verifiers = {t.settings.dataset: stack.enter_context(verifier_of(t.settings)) for t in targets}
        for verifier in verifiers.values():
            verifier.start()
        kept = Unfinished(out, _identity(given, settings, sets), given.resume)
        engine = _engine(given, settings, targets[0].saved, out, where)
        engine.chunk = min(engine.chunk, CALL)
        found = _sample(given, settings, engine, sets, verifiers, kept)
    write(out, found, ks, _pooled(found, targets))
    kept.end()
    step = "" if targets[0].saved is None else f"step {targets[0].saved['step']}, "
    report.say(f"{step}{', '.join(sets)}, {len(everything)} problems, ± one standard error over prompts")
    for name, verifier in verifiers.items():
        if failed := sum(verifier.failures.values()):
            report.say(f"{name}: the verifier failed on {failed} answers, scored 0: {verifier.failures}")
    report.say(
        f"files: {given.out}/{{scores.csv,rollouts.csv,...}}; python -m ebpo_sim.diagnose {given.out}/rollouts.csv"
    )


def _engine(
    given: argparse.Namespace, settings: Settings, saved: dict[str, Any] | None, out: Path, where: Precision
) -> Engine:
    """The sampler; vLLM reads a model that is evaluated as it is by itself."""
    tokenizer: Tokenizer
    if settings.engine == "vllm" and saved is None:
        tokenizer = hub.read_tokenizer(settings.model, settings.chat, settings.max_prompt)
        return engine_of(settings, None, tokenizer, where, given.top_p)
    model, tokenizer = load_policy(settings, out / "cache", where, trained=saved is not None)
    if saved is not None:
        checkpoints.put_weights(model, saved["model"])
    return engine_of(settings, model, tokenizer, where, given.top_p)


def _sample(
    given: argparse.Namespace, settings: Settings, engine: Engine, sets: dict[str, list[Problem]],
    verifiers: dict[str, Verifier], kept: Unfinished,
) -> dict[str, list[Outcome]]:  # fmt: skip
    """The outcomes of every data set; those that a stopped evaluation has drawn are taken from it."""
    found = {}
    with report.progress(sum(map(len, sets.values())), "evaluate") as bar:
        for number, (name, problems) in enumerate(sets.items()):
            known = kept.known(name, problems)
            bar.update(len(known))

            def note(some: list[Outcome], name: str = name) -> None:
                kept.add(name, some)
                bar.update(len(some))

            seed = seed_for(given.seed, "data set", number) if number else given.seed
            fresh = sampled_outcomes(
                engine, verifiers[name], problems, given.samples, seed, settings.temperature, note, len(known)
            )
            found[name] = known + fresh
    return found


def _check_ids(sets: dict[str, list[Problem]]) -> None:
    seen: dict[str, str] = {}
    for name, problems in sets.items():
        for problem in problems:
            if seen.setdefault(problem.id, name) != name:
                raise InputError(
                    f"--dataset {name!r} and {seen[problem.id]!r} both have a problem with the id {problem.id!r}: "
                    "rename one of the files, or evaluate them apart"
                )


def _identity(given: argparse.Namespace, settings: Settings, sets: dict[str, list[Problem]]) -> dict[str, Any]:
    """What decides the answers."""
    names = ("target", "samples", "seed", "top_p")
    chosen = {name: getattr(given, name) for name in names} | {name: getattr(settings, name) for name in FROM_TRAINING}
    content = {name: [(p.id, p.prompt, p.answer) for p in problems] for name, problems in sets.items()}
    return chosen | {
        "policy": _policy_mark(Path(given.target)),
        "problems": {name: _mark(json.dumps(rows).encode()) for name, rows in content.items()},
    }


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _policy_mark(path: Path) -> str:
    """Changes with the policy: a file's content, or names, sizes and times of a folder's; not of a hub name."""
    if path.is_file():
        return _mark(path.read_bytes())
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    stats = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return _mark(json.dumps(stats).encode())


def _pooled(found: dict[str, list[Outcome]], targets: Sequence[Target]) -> list[Outcome]:
    """All outcomes of several data sets, a problem that is in more than one of them once; empty for one data set."""
    if len(found) < 2:
        return []
    ends = {ending for target in targets for ending in endings(target.settings)}
    once = {key_of(o.problem.prompt, ends): o for some in reversed(found.values()) for o in reversed(some)}
    repeated = sum(map(len, found.values())) - len(once)
    if repeated:
        report.say(f"{repeated} problems are there more than once: the pooled row counts them once")
    return list(once.values())[::-1]


def write(out: Path, found: dict[str, list[Outcome]], ks: Sequence[int], pooled: Sequence[Outcome]) -> None:
    """The files of the evaluation, and its table on the terminal."""
    rows = [row for name, some in found.items() for row in outcomes.rows(some, name)]
    report.write_csv(out / "rollouts.csv", [{k: v for k, v in row.items() if k != "text"} for row in rows])
    report.write_bytes(out / "answers.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    norms = []
    for number, (name, some) in enumerate(found.items(), 1):
        if any(r not in (0.0, 1.0) for o in some for r in o.rewards):
            report.say(
                f"{name}: scores other than 0 and 1: pass@k has no meaning and is left out for k > 1, and so are "
                "score norms"
            )
        elif rows[0]["score_norm"] is not None:
            table = score_norms.table([(o.rewards, o.norms) for o in some])
            norms += [{"dataset": name, **row} for row in table]
            picture = f"score_norms_{number}.png" if len(found) > 1 else "score_norms.png"
            report.save_figure(out / picture, score_norms.figure(table))
    if norms:
        report.write_csv(out / "score_norms.csv", norms)
    told = [row for name, some in found.items() for row in scores.scores(some, ks, name)]
    told += scores.scores(pooled, ks, scores.POOLED) if pooled else []
    columns = dict.fromkeys(key for row in told for key in row)
    report.write_csv(out / "scores.csv", [{key: row.get(key) for key in columns} for row in told])
    report.say(scores.table(told))
    report.say(scores.errors_text(told))


if __name__ == "__main__":
    cli.run(main)
