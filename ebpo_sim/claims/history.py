"""What the history does: own-batch correlation and drift (remark R3), and the order of the stream (Proposition 3.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ebpo_sim.claims.base import MARGIN, Case, Check, Context, Finding, claim, presumed
from ebpo_sim.claims.baseline_error import estimator_name
from ebpo_sim.claims.family import world
from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.streams import Design, Mean, simulate_stream, walk
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.groups import Groups, count_groups
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import count_pmf
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.clustering.simulation import Keep
from ebpo_sim.studies.clustering.study import claim_rows
from ebpo_sim.worlds.topics import parse_topics, prior_exact

NOT_CENTRED = "algorithm-1, not centred"
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
PROMPTS = 512  # a batch, as in the paper
EPOCH = 34 / 9  # batches a topic in the paper's epoch: DAPO-Math-17k, 512 prompts a batch, nine topics
HORIZONS = (2.0, EPOCH, 8.0, 16.0, 24.0, 32.0, 64.0, 128.0)  # batches a topic


LAGGING = {  # the prior that reaches the policy, by (estimator, memory); a centred one is the batch's mean
    "algorithm-1": ("ebpo", "batch"),
    "released": ("ebpo", "batch"),
    NOT_CENTRED: ("ebpo", "cumulative"),
    "ebpo_debiased": ("ebpo_debiased", "cumulative"),
    "ebpo_debiased, retention 0.9": ("ebpo_debiased", "retention 0.9"),
}


def reaching(estimator: Estimator, state: Any, batch: Groups) -> Array:
    """The prior as it reaches the policy, (...,): before scaling an all-fail group has the advantage -S c, the first
    group of `batch`. Without centring c is mu_glob; with one S and equal groups centring puts the batch's mean in its
    place (claim O1)."""
    advantages, info = estimator.score(state, batch)
    assert info.shrinkage_P is not None
    raw_PG = np.asarray(advantages) * info.scale_PG
    return np.asarray(-raw_PG[..., 0, 0] / info.shrinkage_P[..., 0])


def prior_after(estimator: Estimator, means: Sequence[float]) -> float:
    """`reaching` as the last of the batches is scored, each of prompts of one success rate, means[t]; groups of 4."""
    state = estimator.init()
    for mean in means:
        batch = count_groups(4, 1000 * count_pmf((mean,), 4, np.arange(5))[0])
        scoring, state = estimator.turn(state, batch)
    return float(reaching(estimator, scoring, batch))


def own_weight(estimator: Estimator, age: int) -> float:
    """d c / d (mean of the batch being scored), c as in `reaching`: their covariance over the variance of a batch mean.

    The gradient is scaled by 1 - (1-S)/G - S weight/(M G): this is what the own batch costs a rollout."""
    before = [0.5] * (age - 1)
    return prior_after(estimator, [*before, 0.75]) / 0.5 - prior_after(estimator, [*before, 0.25]) / 0.5


def drift_bias(estimator: Estimator, age: int) -> float:
    """c less the current mean after `age` batches whose mean rose by DRIFT each."""
    means = [0.3 + DRIFT * t for t in range(age)]
    return prior_after(estimator, means) - means[-1]


@claim(
    "R3",
    "EBPO remark on bias",
    "The bias from a batch inside its own prior decays as 1/T",
    "stationary stream (not stated)",
    "True of a prior that is not centred away, under a policy that stands still; centring puts the own batch's "
    "mean in its place, a bias of S/(MG) a rollout for ever. A policy that learns drifts away from a prior that "
    "never forgets.",
    presumed(
        f"algorithm-1, stationary = fails; {NOT_CENTRED}, stationary = holds; {NOT_CENTRED}, drift = fails; "
        "ebpo_debiased, drift = fails"
    ),
)
def decaying_bias(context: Context) -> list[Finding]:
    """R3: own-batch weight against 1/T on a stationary stream; growth of the bias when the stream drifts. Both of the
    prior that reaches the policy; "not centred": Algorithm 1's mu_glob itself. A known prior has weight 0, by
    construction."""
    reference, size = world(context.reference), context.reference_size
    prior = rule(reference, size)
    subjects = {v: s(prior) for v, s in context.subjects.items()}
    if "idealised" in subjects:  # the proof's prior is not centred away
        subjects["idealised"] = replace(subjects["idealised"], chain=subjects["idealised"].chain[:1])
    subjects[NOT_CENTRED] = make("ebpo", centre="none", scale="none")
    subjects["ebpo_debiased, retention 0.9"] = make("ebpo_debiased", memory=0.9)
    simulated = _blocked(context, "drift:0.3,0.01@10", 256, 40, "lag_last")
    lags = {variant: simulated[key] for variant, key in LAGGING.items()}
    findings = []
    for variant, estimator in subjects.items():
        cases = stationary_cases(variant, estimator)
        check = _sampled_weight(context, estimator)
        name = f"own-batch weight of the prior that reaches the policy, after {SEEN} batches"
        repair = "ebpo_debiased"
        named = f"{variant}, stationary"
        findings.append(Finding(named, cases, "", name, check.exact, check, repair, strict=False))
        if variant not in lags:
            continue  # a known prior has no history to lag behind
        ages = (64, 128) if context.quick else (64, 128, 256)
        bias = {age: drift_bias(estimator, age) for age in ages}
        keep = {"algorithm-1": "ebpo", NOT_CENTRED: "ebpo"}.get(variant, estimator_name(variant))
        cases = []
        for a, b in pairwise(ages):
            command = f"clustering_study --world drift:0.3,{DRIFT:g}@10 --estimator {keep} --steps {b}: lag_last"
            cases.append(Case(command, 1.05 * abs(bias[a]) - abs(bias[b]), True, b))
        name = "lag of the prior that reaches the policy, after 40 batches, drift 0.01 a batch"
        lag, repair = lags[variant], "ebpo_debiased, retention 0.9"
        findings.append(Finding(f"{variant}, drift", cases, "", name, lag.exact, lag, repair, strict=False))
    return findings


def stationary_cases(variant: str, estimator: Estimator) -> list[Case]:
    """The own-batch weight after each of AGES batches against 1/T; effect 1/T - weight."""
    command = f"claims R3: {variant}, stationary"
    return [Case(command, 1 / age - own_weight(estimator, age), True, age) for age in AGES]


def _sampled_weight(context: Context, estimator: Estimator) -> Check:
    """The own-batch weight as a regression slope of c on the mean of its last batch, over many short streams."""
    size = context.reference_size
    design = Design(64, SEEN, SEEN - 1, 200 if context.quick else 800, context.design.seed)
    stream = simulate_stream(world(context.reference), size, design, context.threads)
    ((state, batch, sums),) = walk(estimator, stream, size, design.burn_in)
    y = np.broadcast_to(reaching(estimator, state, batch), stream.shape[:1])
    x = sums[:, 0] @ np.arange(size + 1) / size / design.prompts
    return Check(own_weight(estimator, SEEN), *slope_with_error(x, y), len(x) - 2)


def slope_with_error(x: Array, y: Array) -> Mean:
    """Least-squares slope of y on x and its standard error, with len(x) - 2 degrees of freedom; 0 for a line."""
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    # Rounding alone is left where y is a fixed multiple of x.
    noise = float(residual @ residual) if residual @ residual > 1e-20 * max(float(y @ y), 1e-300) else 0.0
    return Mean(slope, float(np.sqrt(noise / (len(x) - 2) / (x @ x))))


def _blocked(context: Context, text: str, prompts: int, steps: int, column: str) -> dict[tuple[str, str], Check]:
    """A column of the clustering study by (estimator, memory): the stateful estimators on simulated epochs of a world,
    topic after topic."""
    design = Design(prompts, steps, 0, 8 if context.quick else 16, context.design.seed)
    rows = claim_rows(Settings((text,), (4,), ("ebpo", "ebpo_debiased"), design), context.threads)
    return {
        (r["estimator"], r["memory"]): Check(r[f"{column}_exact"], r[column], r[f"{column}_se"], design.replicates - 1)
        for r in rows
        if r["order"] == "blocked"
    }


@claim(
    "P2",
    "EBPO Proposition 3.8",
    "Presenting prompts by topic lowers the prior's error from Var(θ) to E Var(θ | topic)",
    "the tracker adapts instantly to the topic",
    "A running mean that never forgets gains almost nothing from topic order; the batch's mean, which centring "
    "puts in its place, and a lagged prior per topic gain it where topics last longer than in the paper's epoch.",
    presumed(
        f"algorithm-1 = holds_if; {NOT_CENTRED} = fails; ebpo_debiased = fails; "
        "ebpo_debiased, prior per topic = holds_if"
    ),
)
def topic_order(context: Context) -> list[Finding]:
    """P2: share of the promised reduction that topic order realises in the error of the prior that reaches the policy,
    for epochs of several lengths; effect share - 0.9. "not centred": of Algorithm 1's mu_glob itself. The ideal is the
    law of total variance, by construction."""
    checks = _blocked(context, REFERENCE_TOPICS, PROMPTS, _steps(REFERENCE_TOPICS, EPOCH), "gain")
    plain = make("ebpo", centre="none", scale="none")
    memories: dict[str, tuple[Estimator, Any, bool]] = {  # variant -> estimator, memory, a prior per topic
        "algorithm-1": (make("ebpo"), "cumulative", False),
        NOT_CENTRED: (plain, "cumulative", False),
        f"{NOT_CENTRED}, retention 0.9": (plain, 0.9, False),
        f"{NOT_CENTRED}, prior per topic": (plain, "cumulative", True),
        "released": (make("ebpo_released"), "batch", False),
        "ebpo_debiased": (make("ebpo_debiased"), "cumulative", False),
        "ebpo_debiased, prior per topic": (make("ebpo_debiased"), "cumulative", True),
    }
    ideal = []
    for text in TOPIC_WORLDS:
        topics = parse_topics(text, 2)
        ideal.append(Case(f"clustering_study --world {text}: j_topic", topics.variance - topics.within_topics))
    first = parse_topics(REFERENCE_TOPICS, 2)
    name = "Var(θ) - E Var(θ | topic)"
    findings = [Finding("idealised", ideal, "", f"{name}, {REFERENCE_TOPICS}", first.variance - first.within_topics)]
    for variant, (estimator, memory, per_topic) in memories.items():
        kept: Any = "batch" if abs(own_weight(estimator, SEEN) - 1) < MARGIN else memory
        learner = estimator.name.removesuffix("_released")
        cases = []
        for horizon in HORIZONS:
            for text in TOPIC_WORLDS[:3] if context.quick else TOPIC_WORLDS:
                for order in ("blocked", "alternating"):
                    steps = _steps(text, horizon)
                    shown = f"clustering_study --world {text} --group-size 4 --prompts {PROMPTS} --steps {steps}"
                    shown += f" --estimator {learner}: gain_exact, {order}, {Keep(kept, per_topic).text}"
                    cases.append(
                        Case(shown, _gain(text, order, estimator, kept, per_topic, steps) - PROMISED, x=horizon)
                    )
        least = enough(cases)
        cases = [c._replace(expected=c.x >= least) for c in cases]
        condition = f"a topic has ≥ {least:.3g} batches (the paper's epoch: {EPOCH:.1f})"
        check = checks[learner, Keep(kept, per_topic).text]
        name = (
            f"share of the promised reduction, {REFERENCE_TOPICS}, topic after topic, an epoch as long as the paper's"
        )
        findings.append(Finding(variant, cases, condition, name, check.exact, check))
    return findings


def enough(cases: Sequence[Case]) -> float:
    """The least x from which on no case is violated; infinity where there is none."""
    worst = max((c.x for c in cases if c.sign < 1), default=0.0)
    return min((c.x for c in cases if c.x > worst), default=float("inf"))


def _steps(text: str, horizon: float) -> int:
    """Batches of an epoch with `horizon` batches a topic."""
    return round(horizon * len(parse_topics(text, 2).weights))


def _gain(text: str, order: str, estimator: Estimator, memory: Any, per_topic: bool, steps: int) -> float:
    topics = parse_topics(text, steps)
    found = prior_exact(
        topics, order, memory, group_size=4, prompts=PROMPTS, steps=steps, per_cluster=per_topic, update=estimator.order
    )
    return float(np.nanmean(found.static - found.error) / topics.between_topics)
