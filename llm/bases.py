"""Warm starts at a wanted ICC and pass rate: which warm-up steps, and which mixture of sizes, give them.

    python -m llm.bases --topic sort --icc 0.15 --icc 0.4 --icc 0.75 --pass-rate 0.4

A mixture with shares w of levels whose pass rates have the moments E p and E p^2 has the pass rate sum of w E p = m and
sum of w E p^2 = m^2 + ICC m (1 - m): two linear equations, so a linear programme finds the shares, and the number of
warm-up steps is the least at which it comes nearest. Shares and steps are the same for all warm-start seeds; what is
told was measured afterwards on other problems. Writes bases.csv and bases.md; measurements are cached.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    from llm import early

    early.guard()

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from scipy.optimize import linprog

from ebpo_sim import cache as files
from ebpo_sim import cli, report
from ebpo_sim.errors import InputError
from ebpo_sim.part import Draw
from llm.engines import precision
from llm.outcomes import pass_rates, sampled_outcomes
from llm.problems import by_cell
from llm.run import engine_of, load_policy, verifier_of
from llm.settings import Settings
from llm.sizes import use_threads
from llm.tasks import cells, pool

Array = NDArray[np.float64]
MODULE = "llm.bases"  # for the names of cached files, as a program too
LEAST_SHARE = 0.02  # smaller ones are left out
RESAMPLES = 2000


class Moments(NamedTuple):
    """Of the pass rates of the prompts of each level: E p and E p^2, both unbiased."""

    levels: tuple[int, ...]
    first_L: Array
    second_L: Array


class Measured(NamedTuple):
    """Mean pass rate and ICC of some prompts, each with its standard error over prompts, by the bootstrap."""

    rate: float
    rate_se: float
    icc: float
    icc_se: float


@dataclass(frozen=True)
class Options:
    """The command line."""

    topic: str = cli.option("sort", "topic of the generated task (default sort)")
    icc: tuple[float, ...] = cli.option((), "wanted ICC (repeatable; default 0.15, 0.4, 0.75)")
    pass_rate: float = cli.option(0.4, "wanted mean pass rate, the same for all (default 0.4)")
    sft_steps: tuple[int, ...] = cli.option((), "warm-up steps tried (repeatable; default 40, 80, 160)", 1)
    seeds: int = cli.option(3, "warm-start seeds (default 3)", 1)
    prompts: int = cli.option(48, "prompts a level that decide the shares, and a level's worth that check them", 2)
    samples: int = cli.option(16, "answers a prompt (default 16)", 2)
    out: str = cli.out_option("where files go (default %(default)s)", "results/llm/bases")
    cache: str = cli.option("results/llm/cache", "warm starts and measurements (default results/llm/cache)")


def moments(levels: Sequence[int], rates: Sequence[Sequence[float]], samples: int) -> Moments:
    """rates: of each level, shares of right answers of its prompts, of `samples` answers each."""
    first_L = np.array([np.mean(r) for r in rates])
    pairs = [np.mean([p * (p * samples - 1) / (samples - 1) for p in r]) for r in rates]  # of two answers both right
    return Moments(tuple(levels), first_L, np.array(pairs))


def shares(found: Moments, rate: float, icc: float) -> tuple[Array, float]:
    """(shares of the levels, how far the mixture's two moments are from the wanted ones: the sum of the distances)."""
    n, second = len(found.levels), rate**2 + icc * rate * (1 - rate)
    rows = np.vstack([found.first_L, found.second_L, np.ones(n)])
    slack = np.vstack([np.kron(np.eye(2), [1.0, -1.0]), np.zeros(4)])
    solved = linprog(np.r_[np.zeros(n), np.ones(4)], A_eq=np.hstack([rows, slack]), b_eq=[rate, second, 1.0])
    x = np.asarray(solved.x)[:n]
    share_L = np.where(x < LEAST_SHARE, 0.0, x)
    share_L = share_L / share_L.sum()
    away = abs(share_L @ found.first_L - rate) + abs(share_L @ found.second_L - second)
    return share_L, float(away)


def icc_of(rate_P: Array, samples: int) -> float:
    """Share of the variance between prompts, by analysis of variance; 0 where answers are all alike."""
    within = float(np.mean(rate_P * (1 - rate_P))) * samples / (samples - 1)
    between = max(0.0, float(np.var(rate_P, ddof=1)) - within / samples)
    return between / (between + within) if between + within > 0 else 0.0


def measured(rate_P: Array, samples: int) -> Measured:
    """Mean pass rate and ICC of these prompts with their errors."""
    draw = Draw(0, "bootstrap", 0).generator()
    index = draw.integers(0, len(rate_P), (RESAMPLES, len(rate_P)))
    again = np.array([(rate_P[i].mean(), icc_of(rate_P[i], samples)) for i in index])
    rate_se, icc_se = again.std(axis=0, ddof=1)
    return Measured(float(rate_P.mean()), float(rate_se), icc_of(rate_P, samples), float(icc_se))


def rates_of(settings: Settings, per_cell: int, samples: int, seed: int, cache: Path) -> list[list[float]]:
    """Pass rates of training problems of the warm start, a list a cell; from the cache where they are there."""
    asked = [settings.as_dict(), per_cell, samples, seed, torch.__version__, transformers.__version__]
    path = cache / f"bases_{files.key('llm.bases', *asked)}.json"
    known = files.load(path)
    if known is not None:
        return [list(map(float, row)) for row in known]
    chosen, where = cells(settings.topics, settings.max_level), precision(settings.device, settings.dtype)
    with contextlib.redirect_stdout(io.StringIO()):
        model, tokenizer = load_policy(settings, cache, where)
    engine, found = engine_of(settings, model, tokenizer, where), []
    with verifier_of(settings) as verifier:
        for cell, count in by_cell(settings, chosen, per_cell):
            some = pool("train", [cell], count, seed)
            found.append(pass_rates(sampled_outcomes(engine, verifier, some, samples, seed)))
    files.store(path, found)
    return found


def spelled(levels: Sequence[int], share_L: Array) -> str:
    """As --level-shares."""
    return ",".join(f"{level}={share:.3f}" for level, share in zip(levels, share_L, strict=True) if share > 0)


def bases(options: Options, cache: Path) -> list[dict[str, Any]]:
    """One row a wanted ICC and warm-start seed: settings that give it, and what they were measured to give."""
    levels = [cell.level for cell in cells(options.topic)]
    steps, wanted = options.sft_steps or (40, 80, 160), options.icc or (0.15, 0.4, 0.75)
    base = Settings(topics=options.topic, per_cell=options.prompts)
    seen: dict[int, Moments] = {}
    with report.progress(len(steps) * options.seeds, "warm starts") as bar:
        for count in steps:
            rates: list[list[float]] = [[] for _ in levels]
            for seed in range(options.seeds):
                settings = replace(base, sft_steps=count, sft_seed=seed)
                fresh = rates_of(settings, options.prompts, options.samples, 0, cache)
                rates = [[*whole, *some] for whole, some in zip(rates, fresh, strict=True)]
                bar.update()
            seen[count] = moments(levels, rates, options.samples)
    rows = []
    for icc in wanted:
        tried = {count: shares(found, options.pass_rate, icc) for count, found in seen.items()}
        count = min(tried, key=lambda c: (round(tried[c][1], 3), c))
        text = spelled(levels, tried[count][0])
        for seed in range(options.seeds):
            settings = replace(base, sft_steps=count, sft_seed=seed, level_shares=text)
            rate_P = np.concatenate(rates_of(settings, options.prompts, options.samples, 1, cache))
            place = {
                "icc_wanted": icc,
                "sft_steps": count,
                "level_shares": text,
                "sft_seed": seed,
                "prompts": len(rate_P),
            }
            rows.append(place | measured(rate_P, options.samples)._asdict() | {"away": tried[count][1]})
    return rows


def markdown(options: Options, rows: Sequence[dict[str, Any]]) -> str:
    """The table, and the command of each base."""
    lines = [
        "| ICC wanted | warm-up steps | shares of levels | pass rate, by warm-start seed | ICC, by warm-start seed |",
        "|---|---|---|---|---|",
    ]
    for icc in dict.fromkeys(row["icc_wanted"] for row in rows):
        own = [row for row in rows if row["icc_wanted"] == icc]
        rate, found = (
            ", ".join(report.with_error(row[name], row[f"{name}_se"]) for row in own) for name in ("rate", "icc")
        )
        lines.append(f"| {icc:g} | {own[0]['sft_steps']} | {own[0]['level_shares']} | {rate} | {found} |")
    command = f"python llm/train.py --topics {options.topic} --sft-steps STEPS --sft-seed SEED --level-shares SHARES"
    note = f"± one standard error over {rows[0]['prompts']} or so prompts. A base: `{command}`."
    return "\n".join([*lines, "", note, ""])


def main(argv: Sequence[str]) -> None:
    """The command line; see the module's docstring."""
    options = cli.parse(Options, "python -m llm.bases", __doc__.splitlines()[0], argv)
    for name, values in (("--icc", options.icc), ("--pass-rate", (options.pass_rate,))):
        if not all(0 < x < 1 for x in values):
            raise InputError(f"{name} must be above 0 and below 1, got {values}: 0.4 is the default's middle")
    use_threads(1)
    out, cache = report.writable_folder(options.out), report.writable_folder(options.cache)
    with report.locked(out):
        rows = bases(options, cache)
        report.write_csv(out / "bases.csv", rows)
        report.write_bytes(out / "bases.md", (text := markdown(options, rows)).encode())
    report.say(text)


if __name__ == "__main__":
    cli.run(main)
