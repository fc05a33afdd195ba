"""Real pass rates that ship with the package: histograms of success counts of real language models."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from ebpo_sim import tables
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.worlds.counts import Counts

SOURCES = {
    "MATH": (
        "Qwen2/2.5 on MATH, 12,500 prompts, 50 rollouts, T = 1.0: public per-prompt success rates, "
        "github.com/KabakaWilliam/llms_know_difficulty (LLMs Encode Their Failures)"
    ),
    "MATH-2000": "as MATH, 2,000 prompts, 1000 rollouts, T = 1.0",
    "LiveCodeBench": (
        "LiveCodeBench, April 2024, 400 problems, 10 rollouts, T = 0.2 (colder than RL training), "
        "clusters = difficulty: livecodebench.github.io, CC BY-SA 4.0"
    ),
}

STUDIED = (  # the worlds of the main study and of the claims, by intra-class correlation
    "observed:Qwen2.5-1.5B",
    "observed:Qwen2.5-7B",
    "observed:Qwen2-1.5B",
    "observed:Qwen2.5-Math-1.5B",
    "observed:Qwen2-1.5B-Instruct",
    "observed:Qwen2.5-Math-7B-Instruct",
    "observed:Qwen2.5-Math-1.5B-Instruct/MATH",
    "observed:CodeLlama-7b-Base/LiveCodeBench",
    "observed:GPT-4-0613/LiveCodeBench",
    "observed:Claude-2/LiveCodeBench",
)


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str, str], tuple[tuple[int, int, int], ...]]:
    """(model, benchmark, cluster) -> (rollouts, successes, prompts) rows."""
    rows: dict[tuple[str, str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for _, row in tables.rows(Path(__file__).with_name("observed.csv")):
        key = (row["model"], row["benchmark"], row["cluster"])
        rows[key].append((int(row["rollouts"]), int(row["successes"]), int(row["prompts"])))
    return {key: tuple(value) for key, value in rows.items()}


def observed_names() -> tuple[str, ...]:
    """Every `observed:` world without its clusters, as MODEL/BENCHMARK."""
    return tuple(dict.fromkeys(f"{model}/{benchmark}" for model, benchmark, _ in _table()))


def observed_counts(name: str) -> Counts:
    """Counts of MODEL/BENCHMARK, MODEL/BENCHMARK/CLUSTER, or MODEL where only one benchmark has it."""
    parts = name.split("/")
    by_model = [key for key in _table() if key[0].lower() == parts[0].lower()]
    benchmarks = sorted({b for _, b, _ in by_model})
    if len(parts) == 1 and len(benchmarks) > 1:
        raise InputError(f"observed world {name!r} is ambiguous: {' or '.join(f'{name}/{b}' for b in benchmarks)}")
    chosen = [k for k in by_model if all(p.lower() == q.lower() for p, q in zip(parts, k, strict=False))]
    if not chosen or len(parts) > 3:
        known = {*observed_names(), *(m for m, _, _ in _table()), *("/".join(k) for k in by_model if k[2])}
        raise unknown_name("observed world", name, known)
    rows = [row for key in chosen for row in _table()[key]]
    merged: dict[tuple[int, int], int] = defaultdict(int)
    for rollouts, successes, prompts in rows:
        merged[rollouts, successes] += prompts
    cells = sorted(merged)
    return Counts(tuple(n for n, _ in cells), tuple(s for _, s in cells), tuple(merged[c] for c in cells))


def observed_source(name: str) -> str:
    """Where the counts of an observed world come from, and how they were sampled."""
    benchmark = next(
        b
        for m, b, _ in _table()
        if m.lower() == name.split("/")[0].lower() and b.lower() in (name.lower().split("/")[1:] or [b.lower()])
    )
    return f"{benchmark}: {SOURCES[benchmark]}"
