"""The control of finding (i): W_agg of a group is not the expected drift of its prefix.

Two first tokens, f and g; groups are enumerated, so every expectation is exact. Not in arXiv 2601.05002, which
looks at single groups: conditional on "all outputs share f", W_agg is non-zero for length-normalised methods, yet
over all groups a token that does not change the outcome does not move.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ebpo_sim.bias.prefix import advantages, aggregate_weight, token_weights
from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array

Pair = tuple[float, float]
LARGEST_GROUP = 8  # 4^8 = 65536 groups


class FirstToken(NamedTuple):
    """The law of one output: its first token, then its outcome and length."""

    probability: float  # q = P(first token is f)
    success: Pair  # P(correct | f), P(correct | g)
    lengths_f: Pair  # (correct, wrong)
    lengths_g: Pair


def _groups(world: FirstToken, group_size: int) -> tuple[Array, Array, Array, Array]:
    """(probability, starts with f, reward, length) of all 4^G groups; the last three of shape (4^G, G)."""
    if not 2 <= group_size <= LARGEST_GROUP:
        raise InputError(f"group_size must be in 2..{LARGEST_GROUP}, got {group_size}: all 4^G groups are visited")
    if not all(0 <= x <= 1 for x in (world.probability, *world.success)):
        raise InputError(f"probability and success must be in [0, 1], got {world.probability}, {world.success}")
    q, (p_f, p_g) = world.probability, world.success
    law = np.array([q * p_f, q * (1 - p_f), (1 - q) * p_g, (1 - q) * (1 - p_g)])
    kind = np.indices((4,) * group_size).reshape(group_size, -1).T
    length = np.array([*world.lengths_f, *world.lengths_g])
    return law[kind].prod(axis=1), np.asarray(kind < 2, float), np.asarray(kind % 2 == 0, float), length[kind]


def expected_drift(world: FirstToken, group_size: int, method: str) -> float:
    """E[dJ/dz_f] = E sum_i alpha_i A_i (1[y_i = f] - q), on-policy, by summing over all groups (2 <= G <= 8)."""
    weight, f, r, L = _groups(world, group_size)
    alpha = token_weights(method, L, r)
    return float(weight @ aggregate_weight(alpha * (f - world.probability), advantages(r)))


def conditional_drift(world: FirstToken, group_size: int, method: str) -> float:
    """E[W_agg (1-q) | every output starts with f], the diagnostic of Proposition 1, by summing over those groups."""
    weight, _, r, L = _groups(world._replace(probability=1.0), group_size)
    return float(weight @ aggregate_weight(token_weights(method, L, r), advantages(r))) * (1 - world.probability)


def expected_drift_closed_form(world: FirstToken, group_size: int, length_weighted: bool) -> float:
    """((G-1)/G) q(1-q) (E[(r-p) c | f] - E[(r-p) c | g]), c = 1/L (weights 1/(G L)) or 1 (weights 1/G).

    p = q p_f + (1-q) p_g. So the length-normalised objective climbs the pseudo-reward (r-p)/L.
    """
    q, (p_f, p_g) = world.probability, world.success
    p = q * p_f + (1 - q) * p_g

    def pseudo(success: float, lengths: Pair) -> float:
        right, wrong = (1 / x if length_weighted else 1.0 for x in lengths)
        return success * (1 - p) * right - (1 - success) * p * wrong

    difference = pseudo(p_f, world.lengths_f) - pseudo(p_g, world.lengths_g)
    return (group_size - 1) / group_size * q * (1 - q) * difference
