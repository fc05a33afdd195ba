"""What the history does: own-batch correlation and drift (remark R3), and the order of the stream (Proposition 3.8)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.claims.base import Case, Check, Claim, Context, Finding
from ebpo_sim.claims.baseline_error import estimator_name
from ebpo_sim.claims.family import world
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.streams import Design, Mean, simulate_stream, walk
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.groups import Groups, count_groups
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.clustering.study import claim_rows
from ebpo_sim.worlds.topics import parse_topics, prior_exact

Array = NDArray[np.float64]
AGES = (2, 4, 8, 16, 32, 64, 128)  # batches seen
SEEN = 8  # in the simulated check
DRIFT = 0.001  # of the success probability, per batch
TOPIC_WORLDS = (
    "topics:0.25,0.75@4",
    "topics:0.1,0.9@4",
    "topics:0.4,0.05,0.8,0.2,0.6@20",
    "topics:0.45,0.3,0.6,0.4,0.55,0.25,0.5,0.35,0.65@2",
    "observed:GPT-4-0613/LiveCodeBench",
)
REFERENCE_TOPICS = TOPIC_WORLDS[2]
PROMISED = 0.9  # of the reduction Var(theta) - E Var(theta | topic) that counts as reaching it
ROUNDS = 100  # batches a topic: what one epoch's first batches cost is small then


def prior_after(estimator: Estimator, means: Sequence[float], group_size: int = 4) -> float:
    """mu_glob as the last batch is scored, after batches of 1000 groups of which a share means[t] succeeded whole."""
    state = estimator.init()
    for mean in means:
        batch = count_groups(group_size, [1000.0 * (1 - mean)] + [0.0] * (group_size - 1) + [1000.0 * mean])
        scoring, state = estimator.turn(state, batch)
    return float(np.ravel(_prior_mean(estimator, scoring, batch))[0])


def _prior_mean(estimator: Estimator, state: Any, batch: Groups) -> Any:
    """mu_glob of each group, (..., P)."""
    evaluation = estimator.baseline_of(state, batch)
    assert evaluation is not None and evaluation.prior_mean_P is not None
    return evaluation.prior_mean_P


def own_weight(estimator: Estimator, age: int) -> float:
    """d mu_glob / d (mean of the batch being scored): their covariance over the variance of a batch mean."""
    before = [0.5] * (age - 1)
    return prior_after(estimator, [*before, 0.75]) / 0.5 - prior_after(estimator, [*before, 0.25]) / 0.5


def drift_bias(estimator: Estimator, age: int) -> float:
    """mu_glob less the current mean after `age` batches whose mean rose by DRIFT each."""
    means = [0.3 + DRIFT * t for t in range(age)]
    return prior_after(estimator, means) - means[-1]


def decaying_bias(context: Context) -> list[Finding]:
    """R3: own-batch weight against 1/T on a stationary stream; growth of the bias when the stream drifts."""
    reference, size = world(context.reference), context.reference_size
    prior = rule(reference, size)
    subjects = {v: s(prior) for v, s in context.subjects.items()}
    subjects["ebpo_debiased, retention 0.9"] = make("ebpo_debiased", memory=0.9)
    lags = _simulated_lags(context)
    findings = []
    for variant, estimator in subjects.items():
        cases = stationary_cases(variant, estimator)
        check = _sampled_weight(context, estimator)
        name = f"own-batch weight in mu_glob after {SEEN} batches, stationary"
        findings.append(Finding(f"{variant}, stationary", cases, "", name, check.exact, check))
        if variant == "idealised":
            continue  # a known prior has no history to lag behind
        ages = (64, 128) if context.quick else (64, 128, 256)
        bias = {age: drift_bias(estimator, age) for age in ages}
        cases = []
        for a, b in pairwise(ages):
            command = f"clustering_study --world drift:0.3,{DRIFT:g}@10 --steps {b}: lag_last"
            cases.append(Case(command, 1.05 * abs(bias[a]) - abs(bias[b]) + 1e-9, True, b))
        name = "lag of mu_glob after 40 batches, drift 0.01 a batch"
        repair = "ebpo_debiased, retention 0.9"
        findings.append(Finding(f"{variant}, drift", cases, "", name, lags[variant].exact, lags[variant], repair))
    return findings


def stationary_cases(variant: str, estimator: Estimator) -> list[Case]:
    """The own-batch weight after each of AGES batches against 1/T; effect 1/T - weight + 1e-9, so equality holds."""
    command = f"mse_study --world beta:2,3 --group-size 4 --estimator {estimator_name(variant)}"
    return [
        Case(f"{command} --prompts 16 --steps {age}: ratio_mc", 1 / age - own_weight(estimator, age) + 1e-9, True, age)
        for age in AGES
    ]


def _sampled_weight(context: Context, estimator: Estimator, age: int = SEEN) -> Check:
    """The own-batch weight as a regression slope of mu_glob on the mean of its last batch, over many short streams."""
    size = context.reference_size
    design = Design(64, age, age - 1, 200 if context.quick else 800, context.design.seed)
    stream = simulate_stream(world(context.reference), size, design, context.threads)
    ((state, batch, sums),) = walk(estimator, stream, size, design.burn_in)
    y = np.broadcast_to(_prior_mean(estimator, state, batch)[..., 0], stream.shape[:1])
    x = sums[:, 0] @ np.arange(size + 1) / size / design.prompts
    return Check(own_weight(estimator, age), *slope_with_error(x, y), len(x) - 2)


def slope_with_error(x: Array, y: Array) -> Mean:
    """Least-squares slope of y on x and its standard error, with len(x) - 2 degrees of freedom; 0 for a line."""
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    # Rounding alone is left where y is a fixed multiple of x.
    noise = float(residual @ residual) if residual @ residual > 1e-20 * max(float(y @ y), 1e-300) else 0.0
    return Mean(slope, float(np.sqrt(noise / (len(x) - 2) / (x @ x))))


def _simulated_lags(context: Context) -> dict[str, Check]:
    """The lag at the end of a simulated drifting stream, by variant."""
    design = Design(256, 40, 0, 8 if context.quick else 16, context.design.seed)
    rows = claim_rows(Settings(("drift:0.3,0.01@10",), (4,), ("ebpo", "ebpo_debiased"), design), context.threads)
    named = {
        ("ebpo", "cumulative"): "algorithm-1",
        ("ebpo", "batch"): "released",
        ("ebpo_debiased", "cumulative"): "ebpo_debiased",
        ("ebpo_debiased", "retention 0.9"): "ebpo_debiased, retention 0.9",
    }
    found = {}
    for row in rows:
        variant = named.get((row["estimator"], row["memory"]))
        if variant and row["order"] == "blocked":
            found[variant] = Check(row["lag_last_exact"], row["lag_last"], row["lag_last_se"], design.replicates - 1)
    return found


def topic_order(context: Context) -> list[Finding]:
    """P2: share of the promised reduction that topic order realises in the prior's error; effect share - 0.9."""
    checks = _simulated(context)
    memories: dict[str, tuple[str, Any, bool]] = {  # variant -> estimator, memory, a prior per topic
        "algorithm-1": ("ebpo", "cumulative", False),
        "algorithm-1, retention 0.9": ("ebpo", 0.9, False),
        "released": ("ebpo", "batch", False),
        "algorithm-1, prior per topic": ("ebpo", "cumulative", True),
        "ebpo_debiased": ("ebpo_debiased", "cumulative", False),
        "ebpo_debiased, prior per topic": ("ebpo_debiased", "cumulative", True),
    }
    ideal = []
    for text in TOPIC_WORLDS:
        topics = parse_topics(text, ROUNDS)
        ideal.append(Case(f"clustering_study --world {text}", topics.variance - topics.within_topics))
    first = parse_topics(REFERENCE_TOPICS, ROUNDS)
    name = "Var(θ) - E Var(θ | topic)"
    findings = [Finding("idealised", ideal, "", f"{name}, {REFERENCE_TOPICS}", first.variance - first.within_topics)]
    for variant, (estimator, memory, per_topic) in memories.items():
        cases = []
        for text in TOPIC_WORLDS[:3] if context.quick else TOPIC_WORLDS:
            for order in ("blocked", "alternating"):
                command = f"clustering_study --world {text} --steps {_steps(text)} --estimator {estimator}: gain_exact"
                gain = _gain(text, order, make(estimator), memory, per_topic)
                cases.append(Case(f"{command}, {order}, {memory}", gain - PROMISED))
        check = checks[estimator, memory, per_topic]
        name = f"share of the promised reduction, {REFERENCE_TOPICS}, topic after topic, 40 batches"
        findings.append(Finding(variant, cases, "", name, check.exact, check, "a prior per topic"))
    return findings


def _steps(text: str) -> int:
    """Whole blocks for every topic, so that no batch straddles two."""
    return ROUNDS * len(parse_topics(text, ROUNDS).weights)


def _gain(text: str, order: str, estimator: Estimator, memory: Any, per_topic: bool) -> float:
    steps = _steps(text)
    topics = parse_topics(text, steps)
    found = prior_exact(
        topics, order, memory, group_size=4, prompts=512, steps=steps, per_cluster=per_topic, update=estimator.order
    )
    return float(np.nanmean(found.static - found.error) / topics.between_topics)


def _simulated(context: Context) -> dict[tuple[str, Any, bool], Check]:
    """The same shares from the stateful estimators on one simulated epoch of the reference world."""
    design = Design(256, 40, 0, 8 if context.quick else 16, context.design.seed)
    rows = claim_rows(Settings((REFERENCE_TOPICS,), (4,), ("ebpo", "ebpo_debiased"), design), context.threads)
    found = {}
    for row in rows:
        if row["order"] == "blocked":
            kept = row["memory"].removeprefix("per topic, ")
            memory: Any = float(kept.removeprefix("retention ")) if kept.startswith("retention") else kept
            check = Check(row["gain_exact"], row["gain"], row["gain_se"], design.replicates - 1)
            found[row["estimator"], memory, row["memory"].startswith("per topic")] = check
    return found


CLAIMS = (
    Claim(
        "R3",
        "EBPO remark on bias",
        "The bias from a batch inside its own prior decays as 1/T",
        "stationary stream (not stated)",
        "True for a policy that stands still; a policy that learns drifts away from a prior that never forgets.",
        decaying_bias,
    ),
    Claim(
        "P2",
        "EBPO Proposition 3.8",
        "Presenting prompts by topic lowers the prior's error from Var(θ) to E Var(θ | topic)",
        "the tracker adapts instantly to the topic",
        "A running mean that never forgets gains almost nothing from topic order; a prior per topic gains all of it.",
        topic_order,
    ),
)
