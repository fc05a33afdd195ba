"""What the studies cost, from their sizes alone: peak bytes and seconds, before anything is simulated.

Bytes count the arrays that grow with a size; seconds were measured on one core of a 2.x GHz server and are meant to be
right within a factor of about three, enough to tell minutes from days. Floats throughout: sizes may be absurd.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpo_sim import cli
from ebpo_sim.counts.streams import Design
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.base import Cost, Settings
from ebpo_sim.studies.clustering.simulation import memories_of, orders_of
from ebpo_sim.studies.training.cells import Settings as TrainingSettings
from ebpo_sim.studies.training.cells import plan, steps_of, typical

PROGRAM = 250e6  # bytes of the interpreter with its libraries
START = 5.0  # s to load them and to compile
WORD = 8.0  # bytes of a float
CELL = 5e-3  # s: what is exact, of a world, group size and estimator
ELEMENT = 50e-9  # s an estimator takes for a rollout of its table of (G+1) groups x G rollouts
TABLES = 4.0  # such tables alive at a time
PROMPT, ROLLOUT = 60e-9, 0.25e-9  # s to draw a prompt, and each of its rollouts
CHUNK = 3e6  # bytes a thread draws prompts in
ROW = 1200.0  # bytes of a row of a table, as a dict


def stream(design: Design, group_size: int, threads: int) -> Cost:
    """`montecarlo.simulate_stream`: the sums of all batches, once in parts and once together."""
    batches = float(design.replicates) * design.steps
    memory = 2 * batches * 3 * (group_size + 1) * WORD + threads * CHUNK
    each = design.prompts * (PROMPT + ROLLOUT * group_size) + 20e-6
    return Cost(memory, batches * each / _parallel(threads))


def walk(design: Design, group_size: int) -> Cost:
    """One estimator along a stream: its table for all replicates at once, batch by batch."""
    table = float(design.replicates) * (group_size + 1) ** 2
    return Cost(TABLES * table * WORD, design.steps * (table * ELEMENT + 1e-3))


def mse(settings: Settings, threads: int) -> Cost:
    """The mse study: a stream for every world and group size, walked by every estimator and the group mean."""
    found = Cost(0.0, 0.0)
    for size in settings.group_sizes:
        drawn, walked = stream(settings.design, size, threads), walk(settings.design, size)
        count = len(settings.estimators) + 1
        seconds = len(settings.worlds) * (drawn.seconds + count * (walked.seconds + CELL))
        found = Cost(max(found.memory, drawn.memory + walked.memory), found.seconds + seconds)
    return _whole(found)


def failure(settings: Settings, threads: int, draws: int, arms: int, prompts: int) -> Cost:
    """The failure study: as the mse study, and `draws` groups of wrong answers for every replicate and p."""
    found = mse(settings, threads)
    directions = sum(
        settings.design.replicates * prompts * draws * (arms * 30e-9 + 8e-9 * g) for g in settings.group_sizes
    )
    # Advantages and their normalisation need about twice the arrays of a baseline.
    return Cost(2 * found.memory - PROGRAM + 4 * draws * arms * WORD, 2 * found.seconds + directions)


class Long(NamedTuple):
    """Sizes of the entropy study's long runs: of every optimiser and estimator, on every world."""

    arms: int
    prompts: int
    steps: int
    replicates: int
    optimisers: int


def entropy(settings: Settings, arms: int, long: Long) -> Cost:
    """The entropy study: batches of policies one by one, then the long runs."""
    design, count, worlds = settings.design, len(settings.estimators) + 1, len(settings.worlds)
    largest = float(max(settings.group_sizes))
    middle = float(min(settings.group_sizes, key=lambda g: abs(g - 4)))
    policies = float(design.prompts) * arms
    rollouts = long.replicates * long.prompts * middle
    seconds = 0.0
    for size in settings.group_sizes:
        batch = policies * 70e-9 + count * ((size + 1.0) ** 2 * ELEMENT + 1e-4)
        seconds += worlds * (float(design.replicates) * design.steps * batch + 3 * count * (CELL + 6e-7 * size**2))
    step = 2e-3 + rollouts * long.arms * 13e-9
    seconds += worlds * long.optimisers * count * long.steps * step
    memory = max(12 * policies * WORD, TABLES * (largest + 1) ** 2 * WORD, 8 * long.arms * rollouts)
    return _whole(Cost(memory, seconds))


def clustering(settings: Settings, threads: int) -> Cost:
    """The clustering study: every order's stream by topic, walked by every estimator with every memory."""
    design, memory, seconds, kept = settings.design, 0.0, 0.0, 0.0
    batches, prompts = float(design.replicates) * design.steps, float(design.steps) * design.prompts
    for world in settings.worlds:
        topics, orders, memories = _topics(world, design.steps), len(orders_of(world)), memories_of(world)
        for size in settings.group_sizes:
            sums = batches * 3 * topics * (size + 1) * WORD
            memory = max(memory, 2 * orders * sums + _parallel(threads) * 12 * prompts * WORD)
            drawn = design.replicates * prompts * (3 + orders) * PROMPT + orders * sums * 1e-9
            seconds += drawn / _parallel(threads)
            for keep in memories:
                here = topics if keep.per_cluster else 1.0
                groups = float(design.replicates) * here * (size + 1)
                step = 1.5e-3 + groups * size * ELEMENT + here * 2e-4
                seconds += orders * len(settings.estimators) * design.steps * step
            walks = orders * len(settings.estimators) * len(memories)
            kept += walks * (6 * batches * WORD + design.steps * ROW)
    return _whole(Cost(memory + kept, seconds))


def _topics(world: str, steps: int) -> float:
    """How many topics a world's text names, unread: each batch of a drift is one."""
    if world.startswith("drift:"):
        return float(steps)
    return world.count(",") + 1.0 if world.startswith("topics:") else 3.0


WIDTH = 4  # steps of a chain at most, as the worlds of training have them


def training(settings: TrainingSettings, threads: int) -> Cost:
    """The training study: every cell tuned on the whole grid, then run at one or two rates; a process a thread."""
    seconds, largest, order = 0.0, 0.0, 0.0
    for arm, cell in (asked := plan(settings, typical(settings))).places():
        size, prompts = float(cell.group_size), cell.rollouts // cell.group_size
        steps = float(steps_of(settings, cell.regime))
        step = 1e-3 + prompts * (2e-6 + 0.16e-6 * size)
        look = 1e-3 + 3e-6 * settings.population
        tuning = settings.tuning_seeds * len(asked.rates[cell]) * (steps * step + 2 * look)
        rates = 2 if cell in asked.shared and arm != REFERENCE else 1
        record = look + 1.5 * settings.gradient_redraws * step
        seconds += tuning + rates * settings.seeds * (steps * step + (min(steps, settings.records) + 2) * record)
        largest = max(largest, cell.rollouts * WIDTH * 10 * WORD)  # actions, and tokens as rows
        order = max(order, 5.0 * steps * prompts * WORD)  # five orders of the stream while it is sorted
    # Up to 16 populations kept, one of them at work.
    people = float(settings.population) * (1500 + 16 * 250)
    worker = _whole(Cost(largest + order + people, 0.0)).memory
    return Cost((threads if threads > 1 else 0) * worker + worker, seconds / _parallel(threads) + START)


def _parallel(threads: int) -> float:
    return float(min(threads, cli.available_cores()))


def _whole(cost: Cost) -> Cost:
    return Cost(cost.memory + PROGRAM, cost.seconds + START)
