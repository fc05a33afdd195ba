"""What reaches the policy: centring, the scored reward inside its own baseline, error against gradient variance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.claims import batches
from ebpo_sim.claims.base import Case, Check, Context, Finding, Subject, claim
from ebpo_sim.claims.baseline_error import FINITE, LEAVE_ONE_OUT, SMALL, estimator_name, gain, leave_one_out
from ebpo_sim.claims.family import cells, preset, world
from ebpo_sim.counts.exact import POPULATION, count_distribution, limit_risk, rule
from ebpo_sim.counts.noise import gradient_noise
from ebpo_sim.counts.streams import mean_with_error, paired_ratio, stream_seed, words_of
from ebpo_sim.counts.updates import advantage_gap, raw_table
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import Groups, count_groups, group_rewards
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import World

P_GRID = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


@claim(
    "O1",
    "this project",
    "Batch centring cancels the global mean: mu_glob has no effect on any advantage",
    "one S, groups of one size",
    "In Algorithm 1 the running mean never reaches the policy, only S does; in the repair both do.",
    (("algorithm-1", "holds"), ("algorithm-1, ragged groups", "fails"), ("ebpo_debiased", "fails")),
)
def centring_cancels(context: Context) -> list[Finding]:
    """O1: one batch after a history and after its mirror image (1 - r everywhere); effect - largest change of A.

    Mirror images share every variance, so S is the same and only mu_glob moves.
    """
    findings = []
    for variant, subject in context.subjects.items():
        for ragged in (False, True) if variant == "algorithm-1" else (False,):
            cases, changes = [], []
            named = f"{variant}, ragged groups" if ragged else variant
            for text, here, group_size in cells(context):
                change = _history_effect(subject, here, group_size, ragged)
                cases.append(Case(f"claims O1 --world {text} --group-size {group_size}: {named}", -change))
                changes.append(change)
            name = "largest change of an advantage when mu_glob goes to 1 - mu_glob"
            findings.append(Finding(named, cases, "", name, max(changes), strict=False))
    return findings


def _history_effect(subject: Subject, here: World, group_size: int, ragged: bool) -> float:
    prior = rule(here, group_size)
    mirrored = Prior(tuple(1 - p for p in prior.nodes), prior.weights)
    counts = POPULATION * count_distribution(here, group_size)
    found = []
    for truth, history in ((prior, counts), (mirrored, counts[::-1])):
        estimator = subject(truth)
        state = estimator.update(estimator.init(), count_groups(group_size, history))
        advantages, _, _ = estimator.step(state, _batch(group_size, ragged))
        found.append(np.asarray(advantages))
    return float(np.max(np.abs(found[0] - found[1])))


def _batch(group_size: int, ragged: bool) -> Groups:
    """An all-fail group and a mixed one; the ragged batch has a group of twice the size as well."""
    rewards = [0.0] * group_size + [1.0] + [0.0] * (group_size - 1)
    ids = ["a"] * group_size + ["b"] * group_size
    if ragged:
        rewards += [1.0] * group_size + [0.0] * group_size
        ids += ["c"] * (2 * group_size)
    return group_rewards(rewards, ids)


@claim(
    "O2",
    "EBPO, remark on consistency",
    "The expected gradient is the true gradient in the long run",
    "stationary stream, before scaling",
    "The scored reward sits in its own baseline and scales the gradient by 1 - (1-S)/G; leave-one-out mends it.",
    (("algorithm-1", "fails"), ("released", "fails"), ("ebpo_debiased, leave-one-out", "holds")),
)
def consistent_gradient(context: Context) -> list[Finding]:
    """O2: E[A grad log pi] / grad p, exact, for p on a grid; effect -|ratio - 1|."""
    subjects = {**context.subjects, LEAVE_ONE_OUT: leave_one_out}
    reference, size = world(context.reference), context.reference_size
    findings = []
    for variant, subject in subjects.items():
        cases = []
        for text, here, group_size in cells(context):
            factors = advantage_gap(raw_table(subject(rule(here, group_size)), here, group_size), P_GRID)
            worst = float(np.max(np.abs(factors - 1)))
            cases.append(Case(f"claims O2 --world {text} --group-size {group_size}: {variant}", -worst))
        table = raw_table(subject(rule(reference, size)), reference, size)
        prior = rule(reference, 64)
        p = np.asarray(prior.nodes)
        exact = float(np.asarray(prior.weights) @ (advantage_gap(table, p) * p * (1 - p)) / prior.within)
        check = _sampled_factor(context, table, exact)
        name = f"expected gradient / true gradient before scaling, {context.where}"
        findings.append(Finding(variant, cases, "", name, exact, check, LEAVE_ONE_OUT, strict=False))
    return findings


def _sampled_factor(context: Context, table: Array, exact: float) -> Check:
    """sum A_i (r_i - p) / sum p(1-p) over sampled groups of the reference world; one-logit policies."""
    size, found = context.reference_size, []
    for p, k in _sampled_groups(context):
        gradient = (k * table[k, 1] * (1 - p) - (size - k) * table[k, 0] * p) / size
        found.append(gradient.sum() / (p * (1 - p)).sum())
    return context.confirmed(exact, mean_with_error(np.asarray(found)))


@claim(
    "O4",
    "this project",
    "A baseline with a lower error gives a gradient with a lower variance",
    "one-logit policies, before scaling",
    "Do not choose a baseline by its error alone: the variance-optimal one is not the best estimate of p.",
    (("algorithm-1", "fails"), ("released", "fails"), ("ebpo_debiased", "fails")),
)
def error_and_noise(context: Context) -> list[Finding]:
    """O4: wherever the baseline's error is below the group mean's: relative gradient variance, its excess negated.
    The released code in batches of M prompts as well."""
    findings = []

    def noise(estimator: Estimator, here: World, group_size: int) -> float:
        return gradient_noise(raw_table(estimator, here, group_size), rule(here, max(group_size, 32)))

    def excess(found: batches.Batches, text: str, group_size: int) -> Array:
        return 1 - batches.noise(found, text, group_size) / noise(preset("dr_grpo"), world(text), group_size)

    for variant, subject in context.subjects.items():
        cases = []
        for text, here, group_size in cells(context):
            prior = rule(here, max(group_size, 32))
            estimator = subject(rule(here, group_size))
            if variant == FINITE:
                better = batches.finite_cases(context, text, group_size, gain, Case("", 0.0))
                shown = Case(f"claims O4 --world {text} --group-size {group_size}: {variant}", 0.0)
                noisy = batches.finite_cases(context, text, group_size, excess, shown)
                cases += [n for (_, b), (_, n) in zip(better, noisy, strict=True) if b.sign > 0]
            if limit_risk(estimator, here, group_size).mse >= prior.within / group_size:
                continue
            ratio = noise(estimator, here, group_size) / noise(preset("dr_grpo"), here, group_size)
            command = f"mse_study --world {text} --group-size {group_size} --estimator {estimator_name(variant)}"
            cases.append(Case(command + ": gradient_noise_ratio", 1 - ratio))
        reference, size = world(context.reference), context.reference_size
        estimator = subject(rule(reference, size))
        ratio = noise(estimator, reference, size) / noise(preset("dr_grpo"), reference, size)
        name = f"relative gradient variance / group mean's, {context.where}"
        check = _sampled_noise(context, raw_table(estimator, reference, size), ratio)
        if variant == FINITE:
            few, name = batches.exact(context.reference, size, SMALL), f"{name}, batches of {SMALL}"
            ratio = 1 - float(excess(few, context.reference, size)[0])
            table = np.array([0.0, 1.0]) - few.first[0][:, None]
            check = _sampled_noise(context, table, ratio, estimator)
        findings.append(Finding(variant, cases, "", name, ratio, check))
    return findings


def _raw_in_batches(estimator: Estimator, k: NDArray[np.int64], group_size: int) -> Array:
    """r - b of each group, (N, 2), as the estimator scores them in batches of SMALL, put together at random."""
    order = np.random.default_rng(len(k)).permutation(len(k))  # the prompts of a sample come sorted
    rows = k[order].reshape(-1, SMALL, 1)
    counts = (rows == np.arange(group_size + 1)).sum(axis=1)
    state, _ = estimator.turn(estimator.init(), count_groups(group_size, counts.astype(np.float64)))
    tables = np.broadcast_to(baseline_table(estimator, state, group_size), (len(counts), group_size + 1, 2))
    found = np.empty((len(k), 2))
    found[order] = np.array([0.0, 1.0]) - np.take_along_axis(tables, rows, axis=1).reshape(-1, 2)
    return found


def _sampled_noise(context: Context, table: Array, exact: float, scored: Estimator | None = None) -> Check:
    """The same ratio from sampled groups: (mean g^2 - mean E[g | p]^2)/(mean E[g | p])^2 over the group mean's.

    scored: the estimator whose baselines in batches of SMALL give g; `table` is then their mean."""
    here, size = world(context.reference), context.reference_size
    tables = table, raw_table(preset("dr_grpo"), here, size)
    found: list[list[float]] = [[], []]
    for p, k in _sampled_groups(context):
        for i, (t, values) in enumerate(zip(tables, found, strict=True)):
            a = t[k] if i or scored is None else _raw_in_batches(scored, k, size)
            gradient = (k * a[:, 1] * (1 - p) - (size - k) * a[:, 0] * p) / size
            mean = advantage_gap(t, p) * p * (1 - p)
            values.append(float(np.mean(gradient**2 - mean**2) / np.mean(mean) ** 2))
    return context.confirmed(exact, paired_ratio(np.asarray(found[0]), np.asarray(found[1])))


def _sampled_groups(context: Context) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    """(p, k) of sampled groups of the reference world, one batch a replicate."""
    from ebpo_sim.counts.kernels import count_successes

    here, size, design = world(context.reference), context.reference_size, context.design
    for seed in stream_seed(design.seed, f"gradient {here.name}", size).spawn(design.replicates):
        p = here.sample(np.random.default_rng(seed), 4 * design.prompts)
        k = np.empty(len(p), dtype=np.int64)
        count_successes(p, size, words_of(seed), k)
        yield p, k
