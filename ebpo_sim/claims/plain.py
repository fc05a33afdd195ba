"""The rules of the ledger once more, as plain arithmetic on lists; nothing here imports the package.

Written for comparison (`instruments`), not for use: every batch goes through the whole history again, in two passes.
A stream is a list of batches, a batch a list of groups, a group a list of rewards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean, pvariance, stdev, variance
from typing import NamedTuple

Group = Sequence[float]
Batch = Sequence[Group]

EPS = 1e-6


class Scored(NamedTuple):
    """Baselines and advantages of a batch, a list for each group."""

    baseline: list[list[float]]
    advantage: list[list[float]]


def algorithm_1(stream: Sequence[Batch], forget: bool = False) -> list[Scored]:
    """EBPO's Algorithm 1: learn from the batch, then score it. S = (v/n)/(v/n + t) with the variances v of all rewards
    and t of all group means so far (both over their number), mu the mean of all rewards; batch standardisation.
    forget: as the authors' public code, every batch for itself, with mu the mean of its group means."""
    rewards: list[float] = []
    means: list[float] = []
    found = []
    for batch in stream:
        if forget:
            rewards, means = [], []
        rewards += [r for group in batch for r in group]
        means += [fmean(group) for group in batch]
        weights = [_weight(pvariance(rewards), pvariance(means), len(group)) for group in batch]
        found.append(_standardised(batch, _line(batch, weights, fmean(means if forget else rewards))))
    return found


released = partial(algorithm_1, forget=True)


def repaired(stream: Sequence[Batch], leave_one_out: bool = False) -> list[Scored]:
    """The repair: score the batch by the batches before it, then learn. w = pooled within-group variance (over the
    degrees of freedom), T2 = variance of group means (over one less than their number) less w mean(1/n), at least 0,
    mu the mean of group means. Not centred; divided by the spread that w, T2 and S predict for the batch, in the first
    batch by its own. leave_one_out: the mean of the other n - 1 rollouts, and n - 1 in S."""
    seen: list[Group] = []
    found = []
    for batch in stream:
        mu, w, t2 = _components(seen)
        used = [len(group) - leave_one_out for group in batch]
        weights = [_weight(w, t2, n) if seen else 0.0 for n in used]
        baseline = _line(batch, weights, mu, leave_one_out)
        raw = _less(batch, baseline)
        flat = [x for group in raw for x in group]
        predicted = 0.0
        for group, s, n in zip(batch, weights, used, strict=True):
            own = w + (1 - s) ** 2 * w / n + s * s * t2 if leave_one_out else w - w / n + s * s * (t2 + w / n)
            predicted += own * len(group) / len(flat)
        scale = (math.sqrt(predicted) if predicted > 0 else stdev(flat)) + EPS
        found.append(Scored(baseline, [[x / scale for x in group] for group in raw]))
        seen += batch
    return found


def _components(groups: Sequence[Group]) -> tuple[float, float, float]:
    """(mu, w, T2) of all groups together."""
    if not groups:
        return 0.0, 0.0, 0.0
    means = [fmean(group) for group in groups]
    squares = sum(sum((r - m) ** 2 for r in group) for group, m in zip(groups, means, strict=True))
    w = squares / sum(len(group) - 1 for group in groups)
    return fmean(means), w, max(0.0, variance(means) - w * fmean(1 / len(group) for group in groups))


def _weight(sigma2: float, tau2: float, n: int) -> float:
    return sigma2 / n / (sigma2 / n + tau2)


def _line(batch: Batch, weights: Sequence[float], mu: float, leave_one_out: bool = False) -> list[list[float]]:
    """(1 - S) local + S mu for every rollout."""
    out = []
    for group, s in zip(batch, weights, strict=True):
        local = [(sum(group) - r) / (len(group) - 1) if leave_one_out else fmean(group) for r in group]
        out.append([(1 - s) * m + s * mu for m in local])
    return out


def _less(batch: Batch, baseline: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[r - b for r, b in zip(*pair, strict=True)] for pair in zip(batch, baseline, strict=True)]


def _standardised(batch: Batch, baseline: list[list[float]]) -> Scored:
    raw = _less(batch, baseline)
    flat = [x for group in raw for x in group]
    centre, scale = fmean(flat), stdev(flat) + EPS
    return Scored(baseline, [[(x - centre) / scale for x in group] for group in raw])


def expectation_maximisation(
    nodes: Sequence[float], weights: Sequence[float], counts: Sequence[float], iterations: int
) -> list[float]:
    """EM for a mixing distribution on `nodes`, from `weights`; counts[k] groups had k successes."""
    size, total = len(counts) - 1, sum(counts)
    found = list(weights)
    for _ in range(iterations):
        gathered = [0.0] * len(nodes)
        for k, c in enumerate(counts):
            joint = [w * p**k * (1 - p) ** (size - k) for w, p in zip(found, nodes, strict=True)]
            for j, x in enumerate(joint):
                gathered[j] += c / total * x / sum(joint)
        found = gathered
    return found


def split_ratio(prompts: Sequence[tuple[int, int]], group_size: int, folds: int) -> float:
    """Algorithm 1's error over the group mean's from splits: prompt i, with (rollouts, successes), is in fold i mod
    `folds`, and its baseline is learnt from all groups that the other folds' prompts could have given."""
    ks = range(group_size + 1)
    chance = [
        [math.comb(s, k) * math.comb(n - s, group_size - k) / math.comb(n, group_size) for k in ks] for n, s in prompts
    ]
    difference = noise = 0.0
    for i, (n, s) in enumerate(prompts):
        others = [row for j, row in enumerate(chance) if j % folds != i % folds]
        law = [sum(row[k] for row in others) / len(others) for k in ks]
        mu = sum(law[k] * k / group_size for k in ks)
        tau2 = sum(law[k] * (k / group_size - mu) ** 2 for k in ks)
        weight = _weight(mu * (1 - mu), tau2, group_size)
        for k in ks:
            own, rest = k / group_size, (s - k) / (n - group_size)
            learnt = (1 - weight) * own + weight * mu
            difference += chance[i][k] * ((learnt - rest) ** 2 - (own - rest) ** 2)
        noise += s * (n - s) / (n * (n - 1)) / group_size
    return 1 + difference / noise


def adamw(
    start: Sequence[float], gradients: Sequence[Sequence[float]], lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> list[float]:  # fmt: skip
    """Parameters after climbing along `gradients` with AdamW: averages written out as sums over all steps so far."""
    theta = list(start)
    for step in range(1, len(gradients) + 1):
        for i in range(len(theta)):
            ages = [(step - t, gradients[t - 1][i]) for t in range(1, step + 1)]
            m = sum(beta1**age * g for age, g in ages) / sum(beta1**age for age, _ in ages)
            v = sum(beta2**age * g * g for age, g in ages) / sum(beta2**age for age, _ in ages)
            theta[i] += lr * (m / (math.sqrt(v) + eps) - decay * theta[i])
    return theta


def _policy(p: float, arms: int) -> list[float]:
    return [p] + [(1 - p) / (arms - 1)] * (arms - 1)


def _drawn(pi: Sequence[float], size: int) -> Iterator[tuple[float, int, tuple[int, ...]]]:
    """Every group of arms that can be drawn: its probability, how many are right, the arms."""
    for arms in itertools.product(range(len(pi)), repeat=size):
        yield math.prod(pi[a] for a in arms), sum(a == 0 for a in arms), arms


def _along(pi: Sequence[float], move: Sequence[float]) -> tuple[float, float]:
    """(dp, dH) of a softmax policy whose logits move so."""
    level = -sum(x * math.log(x) for x in pi)
    reward = sum(pi[0] * ((b == 0) - x) * m for b, (x, m) in enumerate(zip(pi, move, strict=True)))
    return reward, sum(-x * (math.log(x) + level) * m for x, m in zip(pi, move, strict=True))


def adam_rates(table: Sequence[Sequence[float]], p: float, arms: int) -> tuple[float, float]:
    """(dp, dH) of a softmax policy with one right arm when every logit moves by E g / sqrt(E g^2), g the policy
    gradient of one group with the advantages table[k][r]: over all groups of arms that can be drawn, one by one."""
    pi, size = _policy(p, arms), len(table) - 1
    first, second = [0.0] * arms, [0.0] * arms
    for chance, k, drawn in _drawn(pi, size):
        for b in range(arms):
            g = sum(table[k][a == 0] * ((a == b) - pi[b]) for a in drawn) / size
            first[b] += chance * g
            second[b] += chance * g * g
    return _along(pi, [f / math.sqrt(s) for f, s in zip(first, second, strict=True)])


def rates(table: Sequence[Sequence[float]], p: float, arms: int, optimiser: str) -> tuple[float, float]:
    """(dp, dH) of the same policy when one group moves its logits: by the mean of A (e_a - pi) (vanilla), or by the
    mean of A e_a / pi_a (natural), over all groups of arms that can be drawn, one by one."""
    pi, size = _policy(p, arms), len(table) - 1
    move = [0.0] * arms
    for chance, k, drawn in _drawn(pi, size):
        for a in drawn:
            step = chance * table[k][a == 0] / size
            for b in range(arms):
                move[b] += step * ((a == b) / pi[b] if optimiser == "natural" else (a == b) - pi[b])
    return _along(pi, move)


def noise(table: Sequence[Sequence[float]], spread: Sequence[tuple[float, float]]) -> float:
    """E Var(g | p)/(E g)^2 for g = mean of A (r - p) in a group, over all groups of rewards, one by one."""
    size, slope, variance = len(table) - 1, 0.0, 0.0
    for p, weight in spread:
        first = second = 0.0
        for group in itertools.product((0, 1), repeat=size):
            chance = math.prod(p if r else 1 - p for r in group)
            g = fmean(table[sum(group)][r] * (r - p) for r in group)
            first, second = first + chance * g, second + chance * g * g
        slope, variance = slope + weight * first, variance + weight * (second - first * first)
    return variance / slope**2


def penalty_signal(p: float, size: int, arms: int) -> float:
    """|mean| over root total variance of the move of all logits, -(e_a - pi) averaged over a group of wrong answers."""
    pi = _policy(p, arms)
    moves = [
        [fmean(pi[b] - (a == b) for a in drawn) for b in range(arms)]
        for drawn in itertools.product(range(1, arms), repeat=size)
    ]
    columns = list(zip(*moves, strict=True))
    return math.sqrt(sum(fmean(x) ** 2 for x in columns) / sum(pvariance(x) for x in columns))
