"""What the Monte Carlo engine costs, against the vectorised NumPy a user would write; all measured in this run.

Same work on both sides: given each prompt's p, draw its G rewards, and find over the batch the squared error of
EBPO's baseline (Algorithm 1 on a first batch) and of the group mean. Rounds alternate between the contestants;
a ratio is taken within a round, and reported as median [lower quartile, upper quartile].
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import cli, report
from ebpo_sim.bench.chains import training_throughput
from ebpo_sim.bench.memory import prompt_memory
from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.counts.streams import (
    Design,
    batch_sums,
    mean_with_error,
    simulate_errors,
    simulate_stream,
    squared_error,
    words_of,
)
from ebpo_sim.estimators import baseline_table, make
from ebpo_sim.groups import count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.timing import race, ratio, seconds, spread
from ebpo_sim.worlds import Beta, parse_world

PROMPTS = 1 << 16
STREAMS = 64
LARGE = 10**8


def engine_batch(p_P: Array, group_size: int, words: Sequence[NDArray[np.uint64]]) -> Array:
    """One batch per stream of `words` through the engine and the real estimators: (EBPO's error, group mean's)."""
    from ebpo_sim.counts.kernels import draw_and_tally

    sums = np.zeros((len(words), 3, group_size + 1))
    for stream, out in zip(words, sums, strict=True):
        draw_and_tally(p_P, group_size, stream, out)
    ebpo, grpo = make("ebpo"), make("grpo")
    batch = count_groups(group_size, sums[:, 0])
    state = ebpo.update(ebpo.init(), batch)
    mine = squared_error(baseline_table(ebpo, state, group_size), sums, group_size)
    plain = squared_error(baseline_table(grpo, grpo.init(), group_size), sums, group_size)
    return np.stack([mine, np.broadcast_to(plain, mine.shape)])


def numpy_batch(p_P: Array, mean_P: Array, group_size: int) -> tuple[float, float]:
    """The same for one stream, from its group means, as one writes it: Algorithm 1 on a first binary batch."""
    mu = mean_P.mean()
    noise = mu * (1 - mu) / group_size
    shrinkage = noise / (noise + mean_P.var())
    baseline_P = (1 - shrinkage) * mean_P + shrinkage * mu
    return float(np.mean((baseline_P - p_P) ** 2)), float(np.mean((mean_P - p_P) ** 2))


def against_numpy(group_size: int, rounds: int, seed: int) -> dict[str, Any]:
    """ns per group of the engine and of NumPy's two ways, one thread, and the ratios to the engine."""
    rng = np.random.default_rng(seed)
    words = [words_of(seed) for seed in np.random.SeedSequence(seed).spawn(STREAMS)]
    p_P = rng.beta(0.5, 0.7, PROMPTS)

    def uniforms() -> list[tuple[float, float]]:
        drawn = ((rng.random((PROMPTS, group_size)) < p_P[:, None]).mean(axis=1) for _ in range(STREAMS))
        return [numpy_batch(p_P, mean_P, group_size) for mean_P in drawn]

    def binomials() -> list[tuple[float, float]]:
        drawn = (rng.binomial(group_size, p_P) / group_size for _ in range(STREAMS))
        return [numpy_batch(p_P, mean_P, group_size) for mean_P in drawn]

    ways: dict[str, Callable[[], object]] = {
        "engine": partial(engine_batch, p_P, group_size, words),
        "rng.random((P, G)) < p": uniforms,
        "rng.binomial": binomials,
    }
    for work in ways.values():
        work()  # compile and warm up
    times = race({name: partial(seconds, work) for name, work in ways.items()}, rounds)
    row: dict[str, Any] = {"G": group_size}
    for name, values in times.items():
        row[name] = spread([1e9 * t / PROMPTS / STREAMS for t in values])
        if name != "engine":
            row[f"{name} / engine"] = ratio(values, times["engine"])
    return row


def scaling_with_prompts(group_size: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """ns per group of whole batches, prompts drawn as well, for batches of 2^8 to 2^20 prompts."""
    rows = []
    for world in (Beta(0.5, 0.7), parse_world("observed:Qwen2.5-7B")):
        for exponent in range(8, 21, 4):
            prompts = 1 << exponent
            rng = np.random.default_rng(seed)
            words = words_of(np.random.SeedSequence(seed))
            batch_sums(world, group_size, prompts, rng, words)
            times = [seconds(lambda: batch_sums(world, group_size, prompts, rng, words)) for _ in range(rounds)]  # noqa: B023
            rows.append(
                {"world": world.name, "prompts": prompts, "ns per group": spread([1e9 * t / prompts for t in times])}
            )
    return rows


def scaling_with_threads(group_size: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Speed-up of one simulation with 1, 2, ... threads over one thread, in the same round."""
    design = Design(prompts=1 << 16, steps=4, burn_in=0, replicates=8, seed=seed)
    world = Beta(0.5, 0.7)
    counts = [n for n in (1, 2, 4, 8, 16) if n <= cli.available_cores()]
    ways = {str(n): partial(seconds, partial(simulate_stream, world, group_size, design, n)) for n in counts}
    times = race(ways, max(3, rounds // 4))
    return [{"threads": n, "speed-up": ratio(times["1"], times[str(n)])} for n in counts]


def exact_against_simulation(group_size: int, rounds: int, seed: int) -> dict[str, Any]:
    """Time of the exact risk, and of simulating until the relative standard error is 0.1 %."""
    world, estimator = Beta(0.5, 0.7), make("ebpo")
    limit_risk(estimator, world, group_size)
    exact = [seconds(lambda: limit_risk(estimator, world, group_size)) for _ in range(rounds)]
    design = Design(prompts=1 << 16, steps=2, burn_in=1, replicates=16, seed=seed)
    took, relative = [], []
    for i in range(max(3, rounds // 4)):
        cell = design._replace(seed=seed + i)
        start = time.perf_counter()
        errors = simulate_errors(world, group_size, [estimator], cell)[0].mean(axis=1)
        took.append(time.perf_counter() - start)
        found = mean_with_error(errors)
        relative.append(found.se / found.value)
    needed = [t * (r / 1e-3) ** 2 for t, r in zip(took, relative, strict=True)]
    return {
        "exact, ms": spread([1e3 * t for t in exact]),
        "simulation to 0.1 %, ms": spread([1e3 * t for t in needed]),
        "ratio": ratio(needed, exact),
    }


def bounded_memory(group_size: int, groups: int, seed: int) -> dict[str, Any]:
    """One stream of `groups` groups: seconds, and the growth of this process's peak memory."""
    before = peak_megabytes()
    design = Design(prompts=groups // 20, steps=10, burn_in=5, replicates=2, seed=seed)
    took = seconds(lambda: simulate_errors(Beta(0.5, 0.7), group_size, [make("ebpo")], design))
    return {"groups": groups, "seconds": took, "peak MB": peak_megabytes(), "grown by MB": peak_megabytes() - before}


def peak_megabytes() -> float:
    """Peak resident memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(quick: bool, seed: int) -> dict[str, Any]:
    """All parts of the benchmark."""
    rounds = 5 if quick else 15
    with report.progress(11, "bench") as bar:

        def done(part: Any) -> Any:
            bar.update()
            return part

        return {
            "against_numpy": [done(against_numpy(g, rounds, seed)) for g in (2, 4, 8, 16, 32)],
            "prompts": done(scaling_with_prompts(8, rounds, seed)),
            "threads": done(scaling_with_threads(8, rounds, seed)),
            "exact": done(exact_against_simulation(8, rounds, seed)),
            "training": done(training_throughput(3 if quick else 7, seed)),
            "prompt_memory": done(prompt_memory(rounds, seed)),
            "memory": done(bounded_memory(8, LARGE // 100 if quick else LARGE, seed)),
        }


TITLES = {  # of the parts that are tables, one row or several
    "against_numpy": f"ns per group, one thread, {STREAMS} streams of {PROMPTS} prompts; ratios NumPy / engine",
    "prompts": "Whole batches, prompts drawn too, G = 8, one thread",
    "threads": "Threads, G = 8",
    "exact": "Exact risk against simulation, ebpo, G = 8",
    "memory": "One long stream, G = 8",
    "prompt_memory": "Memory of each prompt, spo, G = 8, one core, CPU time",
}


def tables(found: dict[str, Any]) -> str:
    """The benchmark as text."""
    parts = []
    for name, title in TITLES.items():
        rows = found[name] if isinstance(found[name], list) else [found[name]]
        lines = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values()] for row in rows]
        parts.append(f"{title}\n{report.text_table(list(rows[0]), lines)}")
    training = [(name, str(value)) for name, value in found["training"].items()]
    title = "Training: 1000 steps x 512 prompts x G = 4, ebpo, Adam, one core, CPU time"
    parts.append(f"{title}\n{report.text_table(('', 'median [quartiles]'), training)}")
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "fewer rounds, a shorter stream")
    seed: int = cli.seed_option("of the random draws (times vary all the same)")
    out: str = cli.out_option("where bench.json goes (default %(default)s)", "results/bench")
    json: bool = cli.json_option("JSON")


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.bench", __doc__, argv)
    out = report.writable_folder(args.out)
    with report.locked(out):
        found = measure(args.quick, args.seed)
        text = report.to_json(found)
        report.write_bytes(out / "bench.json", text.encode())
    report.say(text if args.json else tables(found))
