"""Populations with topics, the orders in which one epoch presents them, and what a running mean makes of each.

One epoch is T batches of M prompts; every order presents the same prompts, so orders differ in nothing else.

topics:M1,M2,...@C        topic k: p ~ Beta(M_k C, (1 - M_k) C), equal weights; blocked order as listed
drift:START,STEP@C        batch t = 0, 1, ...: p ~ Beta with mean START + STEP t concentration C, one topic a batch
observed:MODEL            LiveCodeBench, its difficulties (easy, hard, medium) as topics, weights as in the data

Notation: topic k has weight pi_k, mean m_k, variance v_k = Var(p | k) and w_k = E(p(1-p) | k).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators.components import Memory, retention
from ebpo_sim.numbers import Array
from ebpo_sim.sampling import orders
from ebpo_sim.worlds.base import Beta, Points, World
from ebpo_sim.worlds.counts import deconvolve
from ebpo_sim.worlds.observed import observed_counts

Update = Literal["update_then_score", "score_then_update"]
ORDERS = tuple(order for order in orders.ORDERS if order != "uniform")  # those with epochs
DIFFICULTIES = ("easy", "hard", "medium")  # alphabetical, so that "blocked" is not one of the sorted orders
KINDS = ("topics", "drift", "observed")


@dataclass(frozen=True)
class Topics:
    """A share weights[k] > 0 (sum 1) of the prompts from parts[k], under the name labels[k].

    Var p = between_topics + within_topics, the law of total variance. Raises InputError for other weights,
    unequal lengths or labels that repeat.
    """

    name: str
    weights: tuple[float, ...]
    parts: tuple[World, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (0 < len(self.weights) == len(self.parts) == len(self.labels) == len(set(self.labels))):
            raise InputError(f"topics {self.name!r} need one weight and one label of its own for each part")
        if not (min(self.weights) > 0 and abs(sum(self.weights) - 1) < 1e-9):
            raise InputError(f"topics {self.name!r} need weights above 0 that sum to 1, got {self.weights}")

    @cached_property
    def moments(self) -> tuple[Array, Array, Array]:
        """(m_K, v_K, w_K): each topic's mean, Var p and E p(1-p)."""
        rules = [part.quadrature(2) for part in self.parts]
        return tuple(np.array([getattr(r, f) for r in rules]) for f in ("mean", "between", "within"))  # type: ignore[return-value]

    @property
    def mean(self) -> float:
        return float(np.dot(self.weights, self.moments[0]))

    @property
    def between_topics(self) -> float:
        """Var_k(m_k): what P2 says that presenting by topic saves."""
        return float(np.dot(self.weights, (self.moments[0] - self.mean) ** 2))

    @property
    def within_topics(self) -> float:
        """E Var(p | topic): P2's J_topic."""
        return float(np.dot(self.weights, self.moments[1]))

    @property
    def variance(self) -> float:
        """Var p: P2's J_shuffle."""
        return self.between_topics + self.within_topics


def beta_topics(means: ArrayLike, concentration: float, weights: ArrayLike | None = None, name: str = "") -> Topics:
    """Topic k: Beta(m_k C, (1 - m_k) C), so v_k = m_k (1 - m_k)/(C + 1). Means in (0, 1), C > 0; weights normalised."""
    m = np.atleast_1d(np.asarray(means, dtype=np.float64))
    if m.ndim != 1 or not (np.all((m > 0) & (m < 1)) and 0 < concentration < np.inf):
        raise InputError(
            f"topic means must lie in (0, 1) and the concentration above 0, got {m.tolist()}@{concentration:g}"
        )
    share = np.ones(len(m)) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != m.shape or not (np.all(np.isfinite(share)) and np.all(share > 0)):
        raise InputError(f"weights must be positive, one for each of {len(m)} topics, got {share.tolist()}")
    parts = tuple(Beta(float(x * concentration), float((1 - x) * concentration)) for x in m)
    labels = tuple(f"topic{k + 1}" for k in range(len(m)))
    text = name or f"topics:{','.join(f'{x:g}' for x in m)}@{concentration:g}"
    return Topics(text, tuple((share / share.sum()).tolist()), parts, labels)


def drift_topics(start: float, per_step: float, steps: int, concentration: float) -> Topics:
    """Linear drift: one topic a batch, mean start + per_step t, t = 0..steps-1; present it "blocked"."""
    means = start + per_step * np.arange(steps)
    if not np.all((means > 0) & (means < 1)):
        raise InputError(
            f"drift from {start:g} by {per_step:g} a step leaves (0, 1) within {steps} steps, at {means[-1]:g}: "
            "drift more slowly or take fewer steps"
        )
    return beta_topics(means, concentration, name=f"drift:{start:g},{per_step:g}@{concentration:g}")


def observed_topics(model: str) -> Topics:
    """The model's LiveCodeBench pass rates, each difficulty deconvolved on its own; weight = number of problems."""
    name, _, benchmark = model.partition("/")
    if benchmark and benchmark.lower() != "livecodebench":
        raise InputError(f"observed world {model!r} has no topics: only MODEL/LiveCodeBench has")
    counts = [observed_counts(f"{name}/LiveCodeBench/{d}") for d in DIFFICULTIES]
    prompts = np.array([sum(c.prompts) for c in counts], dtype=np.float64)
    parts = tuple(Points(f"{name}/{d}", deconvolve(c)) for d, c in zip(DIFFICULTIES, counts, strict=True))
    return Topics(f"observed:{model}", tuple((prompts / prompts.sum()).tolist()), parts, DIFFICULTIES)


def parse_topics(text: str, steps: int) -> Topics:
    """The topic world that `text` names (grammar above); `steps` is the length of a drift."""
    kind, colon, body = text.partition(":")
    if kind not in KINDS:
        raise unknown_name("topic world", kind, (f"{k}:" for k in KINDS))
    if kind == "observed" and body:
        return observed_topics(body)
    listed, _, concentration = body.partition("@")
    try:
        numbers, c = [float(x) for x in listed.split(",")], float(concentration)
    except ValueError:
        numbers, c = [], float("nan")
    if not colon or not numbers or (kind == "drift" and len(numbers) != 2):
        raise InputError(
            f"topic world {text!r} is not complete: topics:0.2,0.5,0.8@10, drift:0.3,0.01@10 or observed:MODEL"
        )
    return drift_topics(numbers[0], numbers[1], steps, c) if kind == "drift" else beta_topics(numbers, c)


def composition(topics: Topics, order: str, prompts: int, steps: int) -> Array:
    """Prompts of each topic in each batch, shape (T, K); column sums T M pi_k, rounded by largest remainder.

    blocked: topic after topic as listed; a batch over a border holds both. easy_to_hard, hard_to_easy: by falling,
    rising m_k. alternating: the blocked batches, spread so that each topic recurs evenly. shuffled: a random
    permutation; here the EXPECTED counts, not whole numbers.
    """
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    ideal = np.asarray(topics.weights) * (prompts * steps)
    whole = np.floor(ideal)
    late = np.argsort(-(ideal - whole), kind="stable")[: round(prompts * steps - whole.sum())]
    whole[late] += 1
    if order == "shuffled":
        return np.tile(whole / steps, (steps, 1))
    mean_K = topics.moments[0]
    sign = {"easy_to_hard": -1.0, "hard_to_easy": 1.0}.get(order, 0.0)
    sequence = np.argsort(sign * mean_K, kind="stable")
    last = np.cumsum(whole[sequence])
    first_T = np.arange(steps)[:, None] * float(prompts)
    overlap = np.minimum(last, first_T + prompts) - np.maximum(last - whole[sequence], first_T)
    counts_TK = np.zeros((steps, len(mean_K)))
    counts_TK[:, sequence] = np.maximum(overlap, 0.0)
    if order != "alternating":
        return counts_TK
    return np.asarray(counts_TK[orders.spread(counts_TK.argmax(axis=1))])


def memory_weights(memory: Memory, steps: int, update: Update = "update_then_score") -> Array:
    """Weight of a prompt of batch s in the memory that scores batch t, shape (T, T), not normalised.

    retention^(age), age = t - s ("update_then_score"), or t - 1 - s with the own batch left out; row 0 is then 0.
    """
    age = np.arange(steps)[:, None] - np.arange(steps)[None, :] - (update == "score_then_update")
    return np.where(age >= 0, retention(memory) ** np.maximum(age, 0).astype(np.float64), 0.0)


class Tracking(NamedTuple):
    """Expected behaviour of the prior, batch by batch (T,); NaN where nothing has been seen.

    error: E (mu_glob - p)^2 over the batch's prompts. lag: E (mu_glob - mean p of the batch).
    static: E (mu - p)^2 of the same prompts, mu the true mean of all topics: Var p on average over an epoch.
    """

    error: Array
    lag: Array
    static: Array


def prior_exact(
    topics: Topics, order: str, memory: Memory, *, group_size: int, prompts: int, steps: int,
    per_cluster: bool = False, update: Update = "update_then_score",
) -> Tracking:  # fmt: skip
    """The prior's exact error and lag, finite M, T and G included. Source: our derivation, for EBPO's P2.

    mu_glob = sum_i c_i x_i over the prompts seen (x_i the group mean, sum c_i = 1). In a batch of known composition
        error = sum_k n_tk/M [(E mu_glob - m_k)^2 + v_k (1 - 2 c_own) + sum_i c_i^2 (v_i + w_i/G)],
    in a random permutation of N = TM prompts, with B = between_topics,
        error = (B N/(N-1) + E v_k) (1 - 2 c_own + sum c_i^2) + sum c_i^2 E w_k/G.
    per_cluster: one memory a topic; an unseen topic takes all together. Then "shuffled" puts expected counts for
    random ones: exact for the limit, the sampling term (order 1/M) to a relative order 1/M.
    Conservation: with "cumulative" memory sum_t (x_t - mu_{t-1})(x_t - mu_t) = sum_t (x_t - mu_T)^2 for ANY order of
    batch means x_t (Welford's recursion), so no order lowers the epoch's average but by terms of order log(T)/T.
    """
    counts_TK = composition(topics, order, prompts, steps)
    mean_K, v_K, w_K = topics.moments
    noise_K = v_K + w_K / group_size
    raw_TT = memory_weights(memory, steps, update)
    own_T = np.diag(raw_TT)
    seen_T = raw_TT.sum(axis=1)
    c_TT = raw_TT / np.where(seen_T > 0, prompts * seen_T, np.nan)[:, None]
    own_c_T = np.diag(c_TT)
    share_TK = counts_TK / prompts
    static_T = np.where(seen_T > 0, share_TK @ ((mean_K - topics.mean) ** 2 + v_K), np.nan)
    if order == "shuffled" and not per_cluster:
        total = prompts * steps
        pi_K = counts_TK[0] / prompts
        b = float(pi_K @ (mean_K - pi_K @ mean_K) ** 2) * (total / (total - 1) if total > 1 else 1.0)
        square_T = prompts * np.sum(c_TT**2, axis=1)
        error_T = (b + pi_K @ v_K) * (1 - 2 * own_c_T + square_T) + square_T * (pi_K @ w_K) / group_size
        return Tracking(error_T, np.where(seen_T > 0, 0.0, np.nan), static_T)
    centre_TK = np.broadcast_to((c_TT @ counts_TK @ mean_K)[:, None], counts_TK.shape)
    spread_TK = np.broadcast_to((c_TT**2 @ counts_TK @ noise_K)[:, None], counts_TK.shape)
    own_TK = np.broadcast_to(own_c_T[:, None], counts_TK.shape)
    if per_cluster:
        total_TK = raw_TT @ counts_TK
        safe_TK = np.where(total_TK > 0, total_TK, 1.0)
        centre_TK = np.where(total_TK > 0, mean_K, centre_TK)
        spread_TK = np.where(total_TK > 0, (raw_TT**2 @ counts_TK) * noise_K / safe_TK**2, spread_TK)
        own_TK = np.where(total_TK > 0, own_T[:, None] / safe_TK, own_TK)
    each_TK = (centre_TK - mean_K) ** 2 + v_K * (1 - 2 * own_TK) + spread_TK
    return Tracking(np.sum(share_TK * each_TK, axis=1), np.sum(share_TK * (centre_TK - mean_K), axis=1), static_T)


class OwnBatch(NamedTuple):
    """On a stationary stream, batch t against the prior that scores it: Cov/Var(batch mean), and the correlation."""

    covariance: Array
    correlation: Array


def own_batch_exact(memory: Memory, steps: int, update: Update = "update_then_score") -> OwnBatch:
    """Covariance a_tt and correlation a_tt/sqrt(sum_s a_ts^2), a the normalised batch weights, shape (T,).

    After t batches: cumulative 1/t and 1/sqrt(t); retention l towards 1 - l and sqrt(1 - l^2); batch 1 and 1; 0 with
    "score_then_update". So R3's 1/T is the covariance's; the correlation falls as 1/sqrt(T). Independent batches.
    """
    raw_TT = memory_weights(memory, steps, update)
    total_T = raw_TT.sum(axis=1)
    a_TT = raw_TT / np.where(total_T > 0, total_T, 1.0)[:, None]
    norm_T = np.sqrt(np.sum(a_TT**2, axis=1))
    own_T = np.diag(a_TT)
    return OwnBatch(own_T, own_T / np.where(norm_T > 0, norm_T, 1.0))
