"""One training run: rollouts, a registered estimator's advantages, clipped-surrogate updates, exact records.

A step takes a batch of prompts from the stream, draws G rollouts of each, lets the real estimator score and learn,
and updates the policy `epochs` times over `minibatches` parts. All orders of a stream present the same prompts
equally often; random numbers depend on the seed alone, so runs that differ in anything else are paired by seed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ebpo_sim import rungs, typed
from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.measures import policy_measures, quality, sampled_gradients
from ebpo_sim.chains.policy import Ints, step_distributions
from ebpo_sim.chains.population import SkillChain, success, success_gradient
from ebpo_sim.chains.update import Learner, update
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators import needs_prior
from ebpo_sim.methods.checkpoint import dump_state, load_state
from ebpo_sim.methods.checkpoint import fingerprint as method_fingerprint
from ebpo_sim.methods.method import Method, estimator_of, parse_method
from ebpo_sim.methods.step import State as MethodState
from ebpo_sim.methods.step import start as initial
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.objectives import KL, Aggregation, Clip, Objective, needs
from ebpo_sim.objectives.aggregation import Rule
from ebpo_sim.report import to_json, write_bytes
from ebpo_sim.sampling import ORDERS as ORDERS
from ebpo_sim.sampling import Ask, Order, Pool, orders
from ebpo_sim.sampling.orders import Kind

OLD_NAMES = {"topic": "blocked"}  # what this rung once called an order
OPTIMISERS = ("sgd", "adam")
AGGREGATIONS = ("token_mean", "sequence_mean")
SCHEDULES = ("constant", "linear")  # of the learning rate; linear: to 0 at the end of the run
# means over the steps since the last record; rollouts: drawn a step, trained_rows: those with an advantage but 0
WINDOW = ("reward", "grad_norm", "kl", "shrinkage", "zero_signal", "rollouts", "trained_rows")
POLICY = ("pass1", "maj16", "pass16", "entropy")  # of the policy at the record
GRADIENT = ("gradient_cosine", "gradient_variance")
METRICS = (*WINDOW, *POLICY, *GRADIENT)
FORMAT = "ebpo_sim training state 3"


@dataclass(frozen=True)
class TrainingConfig:
    """One run. estimator: a registered preset or a method, as text (`methods/method.py`); oracles get the prior of the
    starting success probabilities. A method that names objectives does without clip_low, clip_high and kl.

    clip_low, clip_high: the ratio's bounds 1 - low, 1 + high. kl: weight of the k3 divergence to the starting policy.
    order: one of `sampling/orders.py`, by topic or starting success probability; a method that names an allocation does
    without it. evaluate_rollouts: answers a vote. gradient_redraws: 0 leaves the gradient's bias and variance out.
    mismatch, placebo: see `collect`.
    """

    estimator: str = "grpo"
    group_size: int = 4
    prompts: int = 128
    steps: int = 200
    optimiser: str = "adam"
    learning_rate: float = 0.01
    schedule: str = "constant"
    minibatches: int = 4
    epochs: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    aggregation: str = "token_mean"
    order: str = "shuffled"
    record_every: int = 10
    evaluate_rollouts: int = 16
    gradient_redraws: int = 8
    seed: int = 0
    mismatch: float = 0.0
    placebo: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", OLD_NAMES.get(self.order, self.order))
        for name, low in (("group_size", 1), ("prompts", 1), ("steps", 1), ("minibatches", 1), ("epochs", 1),
                          ("record_every", 1), ("evaluate_rollouts", 1), ("seed", 0), ("learning_rate", 0), ("kl", 0),
                          ("clip_low", 0), ("clip_high", 0), ("gradient_redraws", 0), ("mismatch", 0)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value < np.inf and not (name.startswith("clip") and value == np.inf):
                raise InputError(f"{name} must be finite and at least {low}, got {value!r}")
        if self.minibatches > self.prompts:
            raise InputError(f"minibatches must not exceed the {self.prompts} prompts a step, got {self.minibatches}")
        if self.gradient_redraws == 1:
            raise InputError("gradient_redraws must be 0 or at least 2, got 1: one draw has no variance")
        for name, known in (("order", ORDERS), ("optimiser", OPTIMISERS), ("aggregation", AGGREGATIONS),
                            ("schedule", SCHEDULES)):  # fmt: skip
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)


class History(NamedTuple):
    """step_T: steps taken at each record, 0 first. values: every name of METRICS to its (T,) array; NaN where a
    quantity does not exist (window means at step 0, shrinkage of a rule that is not a line)."""

    step_T: Ints
    values: dict[str, Array]


class State(NamedTuple):
    """Everything the next step needs: `steps` and `updates` taken, parameters, Adam's moments, the method's
    memories, the generator's state, sums over the current window (its WINDOW columns) and the records so far."""

    steps: int
    updates: int
    theta_SK: Array
    first_SK: Array
    second_SK: Array
    method: MethodState
    generator: Any
    window: Array
    records: tuple[tuple[float, ...], ...]


def build_method(population: SkillChain, config: TrainingConfig) -> Method:
    """The method of the run, with the configured order where it names no allocation; an oracle is given the starting
    success probabilities of the training prompts."""
    prior = None
    if needs_prior(estimator_of(config.estimator)):
        p = success(population.start_SK, population.prompts)
        prior = Prior(tuple(p.tolist()), (1 / len(p),) * len(p))
    method = parse_method(config.estimator, prior, rungs.CHAINS)
    kind = typed.check("order", Kind, config.order)
    return method if method.allocation else method._replace(allocation=Order(kind))


def learner_of(config: TrainingConfig, named: tuple[Objective, ...] = (), own: Aggregation | None = None) -> Learner:
    """The objectives and aggregation of a run, those its method names or else the configured ones, and its optimiser
    steps. The configured k3 pushes nothing beyond 10, at which verl clamps it."""
    low = None if config.clip_low >= 1 else config.clip_low  # a ratio is never below 0
    high = None if np.isinf(config.clip_high) else config.clip_high
    objectives: tuple[Objective, ...] = (Clip(low, high),)
    if config.kl:
        objectives += (KL(config.kl, "k3", clamp=10.0),)
    rule = typed.check("aggregation", Rule, config.aggregation)
    updates = (config.learning_rate, config.minibatches, config.epochs)
    return Learner(named or objectives, own or Aggregation(rule), config.optimiser == "adam", *updates)


@lru_cache(maxsize=4)
def pool_of(population: SkillChain) -> Pool:
    """The training prompts as allocations see them."""
    p_P = success(population.start_SK, population.prompts)
    return Pool(len(p_P), population.prompts.topic_P, p_P)


def stream(population: SkillChain, config: TrainingConfig) -> Ints:
    """The configured order's prompts, shape (steps, prompts)."""
    kind = typed.check("order", Kind, config.order)
    return orders.stream(pool_of(population), kind, config.prompts, config.steps, config.seed)


def ask_of(config: TrainingConfig, step: int) -> Ask:
    """What is planned for a step, counted from 0."""
    return Ask(step, config.steps, config.prompts, config.group_size)


def start(population: SkillChain, config: TrainingConfig) -> State:
    """The state before the first step, the untrained policy's record in it."""
    if population.actions ** population.prompts.skills_PL.shape[1] >= 2**62:
        raise InputError(
            f"K^L must stay below 2^62 to number answers, got {population.actions} actions: shorten chains"
        )
    method = build_method(population, config)
    generator = np.random.PCG64DXSM(np.random.SeedSequence([config.seed, 11])).state
    zero, window = np.zeros_like(population.start_SK), np.zeros(len(WINDOW))
    state = State(0, 0, population.start_SK.copy(), zero, zero.copy(), initial(method), generator, window, ())
    return state._replace(records=(_record(population, config, method, state, pool_of(population)),))


def advance(population: SkillChain, config: TrainingConfig, state: State, steps: int) -> State:
    """The state `steps` steps later, or at the end of the run; the given state is left as it is.

    Raises InputError when the parameters stop being finite.
    """
    from ebpo_sim.chains.kernels import divergence

    method, pool, disturbed = build_method(population, config), pool_of(population), (config.mismatch, config.placebo)
    rng = np.random.Generator(np.random.PCG64DXSM())
    rng.bit_generator.state = state.generator
    theta, first, second = (x.copy() for x in (state.theta_SK, state.first_SK, state.second_SK))
    learner = learner_of(config, method.objectives, method.aggregation)
    anchored = "reference" in needs(learner.objectives)
    all_reference = step_distributions(population.start_SK, population.prompts) if anchored else None
    for step in range(state.steps, min(state.steps + steps, config.steps)):
        ask = ask_of(config, step)
        if config.schedule == "linear":
            learner = learner._replace(learning_rate=config.learning_rate * (1 - step / config.steps))
        batch = collect(theta, population.prompts, pool, method, state.method, ask, config.seed, rng, *disturbed)
        updates, norm, moved, rolled, following = state.updates, 0.0, 0.0, batch.rolled, batch.state
        if rolled is not None:
            reference_PLK = None if all_reference is None else all_reference[rolled.number_P]
            before = theta.copy()
            updates, norm, _, states = update(
                theta, first, second, updates, rolled, batch.advantage_PG, learner, reference_PLK,
                batch.state.objectives,
            )  # fmt: skip
            following = following._replace(objectives=states)
            if not np.isfinite(theta.sum()):
                raise InputError(f"learning_rate {config.learning_rate:g} made the policy infinite: lower it")
            moved = divergence(before, theta, rolled.prompts.skills_PL, rolled.prompts.length_P, rolled.pi_PLK)
        shrinkage_P = None if batch.info is None else batch.info.shrinkage_P
        weight = np.nan if shrinkage_P is None else shrinkage_P.sum() / shrinkage_P.size
        reward, trained = batch.groups.rewards_PG.sum() / batch.drawn, np.count_nonzero(batch.advantage_PG)
        seen = np.array([reward, norm, moved, weight, batch.silent, batch.drawn, trained])
        state = state._replace(steps=step + 1, updates=updates, method=following, window=state.window + seen)
        if (step + 1) % config.record_every == 0 or step + 1 == config.steps:
            row = _record(population, config, method, state._replace(theta_SK=theta), pool)
            state = state._replace(window=np.zeros(len(WINDOW)), records=(*state.records, row))
    return state._replace(theta_SK=theta, first_SK=first, second_SK=second, generator=rng.bit_generator.state)


def _record(
    population: SkillChain, config: TrainingConfig, method: Method, state: State, pool: Pool
) -> tuple[float, ...]:
    """(steps, *METRICS) of the state; its own random numbers, by step, so that records do not disturb the run."""
    rng = np.random.default_rng([config.seed, 12, state.steps])
    since = (state.steps - 1) % config.record_every + 1
    values = dict(zip(WINDOW, state.window / since if state.steps else np.full(len(WINDOW), np.nan), strict=True))
    values |= policy_measures(state.theta_SK, population, config.evaluate_rollouts, rng)
    values |= dict.fromkeys(GRADIENT, float("nan"))
    if config.gradient_redraws:
        ask, theta, prompts = ask_of(config, min(state.steps, config.steps - 1)), state.theta_SK, population.prompts
        drawing = (theta, prompts, pool, method, state.method, ask, config.seed, rng, config.mismatch, config.placebo)
        batches = [collect(*drawing) for _ in range(config.gradient_redraws)]
        drawn = sampled_gradients(theta, batches, learner_of(config, (), method.aggregation).aggregation)
        estimate = quality(drawn, success_gradient(theta, prompts.take(batches[0].planned_P)))
        values |= {"gradient_cosine": estimate.cosine, "gradient_variance": estimate.variance}
    return (float(state.steps), *(float(values[name]) for name in METRICS))


def history(state: State) -> History:
    """The records so far as arrays."""
    table = np.array(state.records)
    return History(table[:, 0].astype(np.int64), {name: table[:, i + 1] for i, name in enumerate(METRICS)})


def train(
    population: SkillChain, config: TrainingConfig, path: Path | None = None, save_every: int | None = None
) -> History:
    """The whole run. With `path` it resumes from there if the file exists and saves every `save_every` steps and at
    the end; a run that was killed and resumed ends in the same bits."""
    state = resume(path, population, config) if path is not None and path.exists() else start(population, config)
    while state.steps < config.steps:
        state = advance(population, config, state, save_every or config.steps)
        if path is not None:
            save(path, population, config, state)
    return history(state)


def fingerprint(population: SkillChain, config: TrainingConfig) -> str:
    """A short hash of every setting, the estimator's included, and of the population's numbers."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(method_fingerprint(build_method(population, config)).encode())
    for array in (*population.prompts, *population.validation, population.start_SK):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def save(path: Path, population: SkillChain, config: TrainingConfig, state: State) -> None:
    """Write the state as JSON, all at once; floats travel as their shortest exact decimal."""
    content = {**state._asdict(), "format": FORMAT, "fingerprint": fingerprint(population, config)}
    content["method"] = dump_state(build_method(population, config), state.method)
    content |= {name: content[name].tolist() for name in ("theta_SK", "first_SK", "second_SK")}
    content["window"] = [_none(x) for x in state.window]
    content["records"] = [[_none(x) for x in row] for row in state.records]
    write_bytes(path, to_json(content).encode())


def resume(path: Path, population: SkillChain, config: TrainingConfig) -> State:
    """The state `save` wrote. Raises InputError for a damaged file and for other settings or prompts."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written, mark = content.pop("format"), content.pop("fingerprint")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        line = f"training state {path.name!r} cannot be read ({error!r}): delete it to start afresh"
        raise InputError(line) from error
    if (written, mark) != (FORMAT, fingerprint(population, config)):
        raise InputError(f"training state {path.name!r} belongs to other settings: resume with those it was saved with")
    content |= {name: np.array(content[name]) for name in ("theta_SK", "first_SK", "second_SK")}
    content["method"] = load_state(build_method(population, config), content["method"])
    content["window"] = np.array([np.nan if x is None else x for x in content["window"]])
    content["records"] = tuple(tuple(np.nan if x is None else x for x in row) for row in content["records"])
    return State(**content)


def _none(x: float) -> float | None:
    return None if np.isnan(x) else float(x)
