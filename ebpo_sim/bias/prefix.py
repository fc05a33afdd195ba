"""Finding (i): what the token weights do to a prefix that several outputs of a group share.

All functions are about one prompt's group of G outputs whose first token is y, drawn from a softmax over K logits
z. Source: arXiv 2601.05002, Eq. 1, Table 1, Propositions 1 and 4; the closed forms follow from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ebpo_sim.bias.tokens import coefficient, worth
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.softmax import softmax
from ebpo_sim.objectives import PUBLISHED, Aggregation, Clip

METHODS = tuple(PUBLISHED)
CLIP, UNCLIPPED = Clip(), Clip(None, None)


def advantages(rewards_G: ArrayLike) -> Array:
    """A_i = r_i - mean(r) over the last axis (Eq. 2: centred, never divided by the standard deviation)."""
    r = np.asarray(rewards_G, dtype=np.float64)
    return np.asarray(r - r.mean(axis=-1, keepdims=True))


def token_weights(method: str, lengths_G: ArrayLike, rewards_G: ArrayLike, gamma: float = 0.0) -> Array:
    """alpha_i of Table 1, the weight of every token of output i; shape (..., G), one group per leading index.

    sigma is the population standard deviation of the group's rewards; where it is 0, weights that divide by it are
    0 (A is 0 too). `gamma` is CPPO's pruning threshold on |A|. The factors that the table leaves undefined are 1:
    the masks M of GRPO v3.2 and CISPO, and GPG's alpha-hat / F_norm. GTPO is left out, all of its factors are
    undefined. Raises InputError for an unknown method, shapes that differ, or a length that is not positive.
    """
    if method not in PUBLISHED:
        raise unknown_name("method", method, METHODS)
    L, r = np.asarray(lengths_G, dtype=np.float64), np.asarray(rewards_G, dtype=np.float64)
    if L.shape != r.shape or L.ndim == 0 or L.shape[-1] == 0:
        raise InputError(f"lengths_G and rewards_G must share a shape (..., G), got {L.shape} and {r.shape}")
    if not np.all((L > 0) & np.isfinite(L)):
        raise InputError(f"lengths_G must be positive, got {L.min()}: every output has at least its first token")
    if not np.all(np.isfinite(r)):
        raise InputError("rewards_G must be finite, got a NaN or an infinity: drop that output first")
    rule, scaled, prunes = PUBLISHED[method]
    alpha = np.asarray(Aggregation(rule).rows(L))
    if scaled:
        sigma = r.std(axis=-1, keepdims=True)
        # A group of equal rewards has A = 0: any finite weight gives the same gradient, 0 keeps it finite.
        alpha = alpha * np.divide(1.0, sigma, out=np.zeros_like(sigma), where=sigma > 0)
    return alpha * (np.abs(advantages(r)) > gamma) if prunes else alpha


def aggregate_weight(
    alpha_G: ArrayLike, advantages_G: ArrayLike, ratio_G: ArrayLike = 1.0, clip: Clip = UNCLIPPED
) -> Array:
    """W_agg = sum_i alpha_i s_i A_i over the outputs whose branch is not clipped (Proposition 1); shape (...).

    The prefix's gradient is W_agg (e_y - pi). Zero for the whole group iff A is centred, alpha s is equal over i,
    and nothing is clipped (sufficient). `ratio_G` = 1 is on-policy.
    """
    return np.asarray(np.sum(np.asarray(alpha_G) * coefficient(clip, ratio_G, advantages_G), axis=-1))


def aggregate_weight_closed_form(method: str, lengths_G: ArrayLike, rewards_G: ArrayLike, gamma: float = 0.0) -> float:
    """On-policy W_agg of one binary group whose outputs all share the prefix, p its accuracy, m the mean of 1/L.

    Weights 1/(G L sigma): sqrt(p(1-p)) (m_correct - m_wrong); weights 1/(G L): p(1-p)(m_correct - m_wrong);
    weights equal over i: 0. CPPO: sigma m_correct if |A| > gamma holds for the correct answers alone,
    -sigma m_wrong for the wrong ones alone. Raises InputError for rewards other than 0 and 1.
    """
    L, r = np.asarray(lengths_G, dtype=np.float64), np.asarray(rewards_G, dtype=np.float64)
    token_weights(method, L, r, gamma)
    if L.ndim != 1 or not np.all((r == 0) | (r == 1)):
        raise InputError(f"rewards_G must be one group of 0s and 1s, got {r.tolist()}: use aggregate_weight")
    p = float(r.mean())
    if p in (0.0, 1.0):
        return 0.0
    right, wrong = float(np.mean(1 / L[r == 1])), float(np.mean(1 / L[r == 0]))
    if method == "cppo":
        right, wrong = right * (1 - p > gamma), wrong * (p > gamma)
    if method in ("grpo", "gspo", "cppo"):
        return float(np.sqrt(p * (1 - p)) * (right - wrong))
    return p * (1 - p) * (right - wrong) if method == "grpo_v3.2" else 0.0


class SubsetTerms(NamedTuple):
    """W_agg of a partly shared prefix, taken apart."""

    signal: float
    length_bias: float


def subset_terms(lengths_G: ArrayLike, rewards_G: ArrayLike, subset_G: ArrayLike, length_weighted: bool) -> SubsetTerms:
    """W_agg = (n/G)(p_S - p) mean_S(c) + (n/G) Cov_S(A, c) with alpha = c/G, c = 1/L or 1; S the n sharing outputs.

    Uniform weights (c = 1) have no second term: a prefix is reinforced iff its outputs beat the group.
    """
    L, r = np.asarray(lengths_G, dtype=np.float64), np.asarray(rewards_G, dtype=np.float64)
    S = np.asarray(subset_G, dtype=bool)
    if S.shape != r.shape or not S.any():
        raise InputError(f"subset_G must mark at least one of the {r.size} outputs, got {S.tolist()}")
    c, A = (1 / L if length_weighted else np.ones_like(L))[S], advantages(r)[S]
    share = S.mean()
    covariance = np.mean((A - A.mean()) * (c - c.mean()))
    return SubsetTerms(float(share * (r[S].mean() - r.mean()) * c.mean()), float(share * covariance))


def surrogate(
    logits_K: ArrayLike,
    old_logits_K: ArrayLike,
    token: int,
    alpha_G: ArrayLike,
    advantages_G: ArrayLike,
    clip: Clip = CLIP,
    suffix_ratio_G: ArrayLike = 1.0,
    root_G: ArrayLike = 1.0,
) -> float:
    """The part of Eq. 1 that depends on z when every output starts with `token`, without a regulariser.

    s_i = (s u_i)^(1/n_i) with s the shared token's ratio. Token ratios: u = n = 1. A sequence ratio counted once
    per output (GCPO): u_i = the suffix's ratio. Its |o_i|-th root (GSPO): n_i = |o_i| as well; the term's weight is
    alpha_i n_i, so that alpha_i s_i stays the coefficient of grad log pi.
    """
    s = softmax(logits_K)[token] / softmax(old_logits_K)[token]
    n, A = np.asarray(root_G, dtype=np.float64), np.asarray(advantages_G, dtype=np.float64)
    s_G = (s * np.asarray(suffix_ratio_G, dtype=np.float64)) ** (1 / n)
    return float(np.sum(np.asarray(alpha_G) * n * worth(clip, s_G, A, s_G)))


def numerical_gradient(function: Callable[[Array], float], at_K: ArrayLike, step: float = 1e-3) -> Array:
    """Five-point central differences, error O(step^4): exact to about 1e-12 for the surrogates here."""
    x, gradient = np.asarray(at_K, dtype=np.float64), []
    for unit in np.eye(x.size) * step:
        near = function(x + unit) - function(x - unit)
        far = function(x + 2 * unit) - function(x - 2 * unit)
        gradient.append((8 * near - far) / (12 * step))
    return np.array(gradient)
