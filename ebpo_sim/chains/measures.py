"""What a training run records about its policy: exact where a closed form exists, sampled where none does.

pass@1 = mean p and pass@16 = mean 1 - (1 - p)^16 are exact for the policy at hand; maj@N is the share of prompts
whose right answer wins a vote among N sampled answers (ties shared), an answer being the whole tuple of actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from ebpo_sim.chains.collect import Collected
from ebpo_sim.chains.policy import Prompts, step_distributions
from ebpo_sim.chains.population import SkillChain, per_token, success, token_entropy
from ebpo_sim.chains.update import Learner, batch_of, push_gradient
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.objectives import Aggregation, Clip


def pass_at_k(successes: ArrayLike, samples: int, k: int) -> Array:
    """1 - C(n - c, k)/C(n, k), unbiased for 1 - (1 - p)^k when c of n samples succeed (Chen et al. 2021, 2107.03374).

    Raises InputError unless 1 <= k <= n and 0 <= c <= n.
    """
    c = np.asarray(successes, dtype=np.float64)
    if not 1 <= k <= samples:
        raise InputError(f"k must lie in 1..{samples}, got {k}: draw at least k samples")
    if np.any((c < 0) | (c > samples)):
        raise InputError(f"successes must lie in 0..{samples}, got {successes!r}")
    failed = samples - c
    log_share = (
        gammaln(failed + 1) - gammaln(np.maximum(failed - k, 0) + 1) - gammaln(samples + 1) + gammaln(samples - k + 1)
    )
    return np.asarray(np.where(failed < k, 1.0, -np.expm1(log_share)))


def maj_at_n(theta_SK: Array, prompts: Prompts, samples: int, rng: np.random.Generator) -> float:
    """One sampled vote of `samples` answers a prompt, mean over prompts."""
    from ebpo_sim.chains.kernels import majority

    score_P = np.empty(len(prompts.length_P))
    uniform_PNL = rng.random((len(score_P), samples, prompts.skills_PL.shape[1]))
    majority(step_distributions(theta_SK, prompts), prompts.length_P, prompts.right_PL, uniform_PNL, score_P)
    return float(score_P.mean())


def policy_measures(
    theta_SK: Array, population: SkillChain, samples: int, rng: np.random.Generator
) -> dict[str, float]:
    """Held-out pass1, maj16 and pass16 (N = `samples`), and the training prompts' entropy in nats per token."""
    p_P = success(theta_SK, population.validation)
    return {
        "pass1": float(p_P.mean()),
        "maj16": maj_at_n(theta_SK, population.validation, samples, rng),
        "pass16": float(-np.mean(np.expm1(samples * np.log1p(-np.minimum(p_P, 1 - 1e-16))))),
        "entropy": per_token(token_entropy(theta_SK, population.prompts), population.prompts),
    }


class Quality(NamedTuple):
    """Sampled policy gradients g against the exact gradient e of the mean reward of the same prompts.

    cosine: cos(E g, e), 1 when all that is wrong with E g is one global scale. The part of E g orthogonal to e has
    its squared length estimated without the noise's share; where that comes out below 0 the cosine is 1.
    variance: E|g - E g|^2 / (E g . e/|e|)^2, the noise per unit of signal along e, again free of scale.
    NaN where e or the signal is 0.
    """

    cosine: float
    variance: float


def quality(gradient_NSK: Array, exact_SK: Array) -> Quality:
    """The estimates from N >= 2 independent redraws; see `Quality`."""
    count = len(gradient_NSK)
    if count < 2:
        raise InputError(f"gradient redraws must be at least 2, got {count}: one has no variance")
    g = gradient_NSK.reshape(count, -1)
    norm = float(np.linalg.norm(exact_SK))
    mean = g.mean(axis=0)
    if norm == 0:
        return Quality(float("nan"), float("nan"))
    along_N = g @ (exact_SK.ravel() / norm)
    along = float(along_N.mean())
    noise = float(np.sum((g - mean) ** 2) / (count - 1))
    across = noise - float(np.var(along_N, ddof=1))  # the noise orthogonal to e
    square = max(float(mean @ mean) - along**2 - across / count, 0.0)  # unbiased for |E g|^2 - (E g . e/|e|)^2
    if along == 0:
        return Quality(float("nan"), float("nan"))
    return Quality(along / float(np.sqrt(along**2 + square)), noise / along**2)


def sampled_gradients(theta_SK: Array, batches: Iterable[Collected], aggregation: Aggregation) -> Array:
    """The on-policy gradient of each batch (N, S, K), drawn at theta; 0 for one of which nothing is kept."""
    learner, gradient_NSK = Learner((Clip(None, None),), aggregation, adam=False, learning_rate=0.0), []
    for drawn in batches:
        gradient_NSK.append(np.zeros_like(theta_SK))
        if drawn.rolled is not None:
            batch = batch_of(drawn.rolled, drawn.advantage_PG, learner)
            push_gradient(drawn.rolled.pi_PLK, batch, batch.layout, batch.tokens, learner, gradient_NSK[-1])
    return np.stack(gradient_NSK)
