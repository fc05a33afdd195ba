"""A log of rollouts as a trainer would write it, from a run of ours: `python -m ebpo_sim.sample_log`.

GRPO on skill chains that start at the pass rates of observed:Qwen2.5-7B: 32 steps of 32 prompts with 8 rollouts, each
prompt met 8 times; a row a rollout with step, prompt, topic, reward, length (tokens) and the squared norm of the
answer's score. It ships as ebpo_sim/diagnose/sample.csv, for a first look at `python -m ebpo_sim.diagnose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebpo_sim import cli, report
from ebpo_sim.chains import rung
from ebpo_sim.chains.answers import score_norms
from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.population import from_observed

HEAD = "# Rollouts of a GRPO run on skill chains (ours): python -m ebpo_sim.sample_log\n"
COLUMNS = "step,prompt_id,topic,reward,length,score_norm"
PROMPTS, STEPS, BATCH, GROUP_SIZE = 128, 32, 32, 8
CONFIG = rung.TrainingConfig(
    group_size=GROUP_SIZE, prompts=BATCH, steps=STEPS, learning_rate=0.02, minibatches=1, record_every=STEPS,
    gradient_redraws=0,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The command line."""

    out: str = cli.out_option(default="results/sample_log")
    json: bool = cli.json_option("path of the log, as JSON")


def lines(steps: int) -> list[str]:
    """The rows of the first steps."""
    population = from_observed("Qwen2.5-7B", PROMPTS)
    method, pool = rung.build_method(population, CONFIG), rung.pool_of(population)
    state, found = rung.start(population, CONFIG), []
    for step in range(steps):
        rng = np.random.Generator(np.random.PCG64DXSM())
        rng.bit_generator.state = state.generator  # what `advance` will draw
        batch = collect(state.theta_SK, population.prompts, pool, method, state.method, rung.ask_of(CONFIG, step),
                        CONFIG.seed, rng).rolled  # fmt: skip
        assert batch is not None and batch.number_P is not None  # nothing is left out
        for i, norm_G in enumerate(score_norms(batch)):
            of = f"{step},{batch.number_P[i]},{batch.prompts.topic_P[i]}"
            length = batch.prompts.length_P[i]
            found += [f"{of},{int(r)},{length},{w:.2f}" for r, w in zip(batch.reward_PG[i], norm_G, strict=True)]
        state = rung.advance(population, CONFIG, state, 1)
    return found


def main(argv: Sequence[str]) -> None:
    """Write sample.csv."""
    args = cli.parse(Options, "python -m ebpo_sim.sample_log", __doc__ or "", argv)
    path: Path = report.writable_folder(args.out) / "sample.csv"
    report.write_bytes(path, (HEAD + "\n".join((COLUMNS, *lines(STEPS))) + "\n").encode())
    report.say(report.to_json({"file": str(path)}) if args.json else f"{STEPS * BATCH * GROUP_SIZE} rollouts: {path}")


if __name__ == "__main__":
    cli.run(main)
