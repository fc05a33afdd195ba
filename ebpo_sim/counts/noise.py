"""Exact gradient noise of a rule that sees success counts: what a batch of rollouts knows about the direction.

A prompt succeeds with probability p; h = grad p, s = grad log pi of one rollout. As E s = 0 and E[r s] = h, the mean
score of right answers is h/p, of wrong ones -h/(1-p): they lie |h|/(p(1-p)) apart. Given k of G right, with advantages
A1 and A0 and rollouts independent given their rewards, the sum S = sum_i A_i s_i has

    E[S | k] = (k A1/p - (G-k) A0/(1-p)) h,
    E|S - E[S|k]|^2 = k A1^2 (a - |h|^2/p^2) + (G-k) A0^2 (c - |h|^2/(1-p)^2),

a and c the mean |s|^2 of right and wrong answers. So E[S/G] = delta(p) h and Var(S/G) are sums over k, and a world's
noise an integral over p. What p = 0 and 1 make of the quotients never arises: a model states the distance itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior, count_pmf

Weights = Literal["none", "score", "constant", "best"]
SHARE = 0.01  # of |s|^2 that equally long scores have in common, by default
ARMS = 8
ZERO = 1e-12  # an advantage below this share of the largest is none


class Scores(NamedTuple):
    """|s|^2 by success probability, arrays (J,): its mean over right answers (a) and over wrong answers (c), and
    apart_J = |E[s | right] - E[s | wrong]|^2, so that |grad p|^2 = (p(1-p))^2 apart."""

    right_J: Array
    wrong_J: Array
    apart_J: Array


Model = Callable[[ArrayLike], Scores]


def equal(p: ArrayLike, share: float = SHARE) -> Scores:
    """Many right answers: a = c = 1, of which `share` (at most 1) is common to all right, or all wrong, answers."""
    if not 0 <= share <= 1:
        raise InputError(f"share must lie in [0, 1], got {share!r}: it is a part of |s|^2 = 1")
    one = np.ones_like(np.asarray(p, dtype=np.float64))
    return Scores(one, one, share * one)


def one_logit(p: ArrayLike) -> Scores:
    """Bernoulli policies of one logit: s = r - p, so a = (1-p)^2, c = p^2, |grad p| = p(1-p)."""
    p = np.asarray(p, dtype=np.float64)
    return Scores((1 - p) ** 2, p**2, np.ones_like(p))


def softmax(p: ArrayLike, arms: int = ARMS) -> Scores:
    """`arms` softmax arms, one right, the wrong ones equally likely with q = (1-p)/(K-1) each: the right one has
    |s|^2 = (1-p)^2 K/(K-1), a wrong one (1-q)^2 + p^2 + (K-2) q^2."""
    if arms < 2:
        raise InputError(f"softmax scores need at least 2 arms, got {arms!r}: one is right")
    p = np.asarray(p, dtype=np.float64)
    q = (1 - p) / (arms - 1)
    apart = np.full_like(p, arms / (arms - 1))
    return Scores((1 - p) ** 2 * arms / (arms - 1), (1 - q) ** 2 + p**2 + (arms - 2) * q**2, apart)


MODELS: dict[str, Model] = {"equal": equal, "one_logit": one_logit, "softmax": softmax}


class Noise(NamedTuple):
    """One rule in one world of prompts q that share no parameter unless it is said.

    noise: N E|g - E g|^2, g the mean over N rollouts of given prompts. Means over prompts: square E|h|^2, signal
    E delta |h|^2, biased E delta^2 |h|^2, slope E delta |h|. silent: share of groups without any advantage; rows: share
    of rollouts with one. Noise scales are N E|g - E g|^2/(E g . e/|e|)^2, in rollouts, e the exact gradient of the mean
    reward, NaN without a signal.
    """

    group_size: int
    noise: float
    square: float
    signal: float
    biased: float
    slope: float
    silent: float
    rows: float

    @property
    def nu(self) -> float:
        """The noise scale for each of M prompts that are all in every batch (times M)."""
        return _ratio(self.noise * self.square, self.signal**2)

    @property
    def nu_drawn(self) -> float:
        """The noise scale for each of M prompts of which every batch draws few: whom it drew is noise as well."""
        return _ratio((self.noise + self.group_size * self.biased) * self.square, self.signal**2)

    @property
    def nu_together(self) -> float:
        """The noise scale where all prompts share one direction, as on one logit."""
        return _ratio(self.noise, self.slope**2)

    @property
    def cosine(self) -> float:
        """cos of E g and e; 1 for a rule without bias."""
        return _ratio(self.signal, float(np.sqrt(self.biased * self.square)))


def _ratio(a: float, b: float) -> float:
    return a / b if b != 0 else float("nan")


def noise(table: Array, prior: Prior, model: Model, rows: float = 1.0) -> Noise:
    """The noise of advantages A[k, r], shape (G+1, 2), see `counts.updates`; exact for a prior exact to degree 2G + 4.

    rows < 1: rows are skipped without bias until that share is left, kept with q = min(1, |A| |s|/tau) and weighed
    1/q, |s|^2 at its mean over right or wrong answers of the prompt.
    Raises InputError unless 0 < rows <= 1.
    """
    if not 0 < rows <= 1:
        raise InputError(f"rows must lie in (0, 1], got {rows!r}: it is the share of rollouts that are trained on")
    group_size = len(table) - 1
    p, weights, k, pmf = _cells(prior, group_size)
    scores = model(p[:, 0])
    apart, right, wrong = np.sqrt(scores.apart_J), k * table[:, 1], (group_size - k) * table[:, 0]
    along = apart[:, None] * (right * (1 - p) - wrong * p) / group_size
    mean_J = np.sum(pmf * along, axis=1)  # delta |h|
    variance_J = np.sum(pmf * (along - mean_J[:, None]) ** 2, axis=1)
    p_J = p[:, 0]
    left_right, left_wrong = scores.right_J - ((1 - p_J) * apart) ** 2, scores.wrong_J - (p_J * apart) ** 2
    variance_J += (pmf @ (right * table[:, 1]) * left_right + pmf @ (wrong * table[:, 0]) * left_wrong) / group_size**2
    length_J = p_J * (1 - p_J) * apart
    used = np.abs(table) > ZERO * max(float(np.abs(table).max()), 1e-300)
    kept = k * used[:, 1] + (group_size - k) * used[:, 0]
    return Noise(
        group_size,
        group_size * float(weights @ variance_J) + _skipping(table, prior, scores, rows),
        float(weights @ length_J**2),
        float(weights @ (mean_J * length_J)),
        float(weights @ mean_J**2),
        float(weights @ mean_J),
        float(weights @ pmf @ (kept == 0)),
        min(rows, float(weights @ pmf @ kept) / group_size),
    )


def _cells(prior: Prior, group_size: int) -> tuple[Array, Array, Array, Array]:
    """p (J, 1), weights (J,), k (G+1,) and P(k | p) (J, G+1)."""
    p, k = np.asarray(prior.nodes)[:, None], np.arange(group_size + 1.0)
    return p, np.asarray(prior.weights), k, count_pmf(prior.nodes, group_size, k)


def _skipping(table: Array, prior: Prior, scores: Scores, rows: float) -> float:
    """What skipping rows adds to the noise of a rollout: E A^2 |s|^2 (1/q - 1)."""
    if rows == 1:
        return 0.0
    group_size = len(table) - 1
    _, weights, k, pmf = _cells(prior, group_size)
    joint = weights[:, None] * pmf / group_size
    mass = np.stack([joint * (group_size - k), joint * k], axis=-1).ravel()
    norm = np.stack([scores.wrong_J, scores.right_J], axis=-1)[:, None, :]
    size = (np.abs(table) * np.sqrt(norm)).ravel()
    order = np.argsort(size)
    size, mass = size[order], mass[order]
    below, above = np.cumsum(size * mass), np.sum(mass) - np.cumsum(mass)
    if mass @ (size > 0) <= rows:
        return 0.0  # everything that counts is kept
    # tau with below/tau + above = rows between two sizes: the first at which no smaller row is certain to be kept
    tau = np.divide(below, rows - above, out=np.full_like(below, np.inf), where=rows > above + 1e-15)
    first = int(np.argmax(tau <= np.append(size[1:], np.inf)))
    skipped = size[: first + 1]
    return float(mass[: first + 1] @ (skipped * (tau[first] - skipped)))


def gradient_noise(table: Array, prior: Prior, model: Model = one_logit) -> float:
    """E_q Var(g | q)/(E_q delta |h|)^2 of one group's gradient, prompts in one direction: `nu_together`/G."""
    found = noise(table, prior, model)
    return found.nu_together / found.group_size


def leave_one_out(prior: Prior, group_size: int, model: Model, weights: Weights = "score") -> Array:
    """A[k, r] = r - f(k - r) of the best f of the other rollouts' successes, in the world's long run.

    With W = |s|^2 and K the successes of the others, noise per rollout is

        E W (r - f(K))^2 + (G-1) E |h|^2 (f(K'+1) - f(K'))^2 - E |h|^2,

    K' those of the others but one: two rollouts that score each other are correlated. weights: "none" is E[r | K], the
    posterior mean; "score" is E[W r | K]/E[W | K], least but for the middle term; "constant" E[W r]/E[W], the least
    among constants; "best" minimises the whole, a tridiagonal system.
    Raises InputError for groups of 1 (constants apart), which have no others.
    """
    if group_size < 2 and weights != "constant":
        raise InputError(f"group_size must be at least 2, got {group_size!r}: leave-one-out needs another rollout")
    p, share, k, pmf = _cells(prior, group_size - 1)
    scores = model(p[:, 0]) if weights != "none" else Scores(*np.ones((3, len(p))))
    success, failure = p[:, 0] * scores.right_J, (1 - p[:, 0]) * scores.wrong_J
    numerator, total = (share * success) @ pmf, (share * (success + failure)) @ pmf
    if weights == "constant":
        numerator, total = np.full(group_size, numerator.sum()), np.full(group_size, total.sum())
    f = np.divide(numerator, total, out=np.full(group_size, prior.mean), where=total > 0)
    if weights == "best":
        fewer = count_pmf(prior.nodes, group_size - 2, k[:-1])
        coupling = (group_size - 1) * (share * (p[:, 0] * (1 - p[:, 0])) ** 2 * scores.apart_J) @ fewer
        step = np.diff(np.eye(group_size), axis=0)  # f -> f(K'+1) - f(K')
        f = np.linalg.lstsq(np.diag(total) + step.T * coupling @ step, numerator, rcond=None)[0]
    return np.stack([-np.append(f, f[-1]), 1 - np.append(f[0], f)], axis=-1)


def best_baseline(p: ArrayLike, model: Model) -> Array:
    """b* = p a/(p a + (1-p) c), of all baselines independent of the scored rollout the one of the least noise at p.

    Where nothing is left to learn (p a = (1-p) c = 0) it is p.
    """
    p = np.atleast_1d(np.asarray(p, dtype=np.float64))
    scores = model(p)
    success, total = p * scores.right_J, p * scores.right_J + (1 - p) * scores.wrong_J
    return np.asarray(np.divide(success, total, out=p.copy(), where=total > 0))


def baseline_noise(b: Array | float, prior: Prior, model: Model) -> float:
    """Noise per rollout of a baseline b of the prompt that is independent of the scored rollout, b (J,) or a number:
    E p (1-b)^2 a + (1-p) b^2 c - |h|^2."""
    p = np.asarray(prior.nodes)
    scores = model(p)
    each = p * (1 - b) ** 2 * scores.right_J + (1 - p) * b**2 * scores.wrong_J - (p * (1 - p)) ** 2 * scores.apart_J
    return float(np.asarray(prior.weights) @ each)
