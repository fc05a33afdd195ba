"""Hypothesis strategies for reward batches and for worlds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import Points

BINARY = (0.0, 1.0)
NON_DYADIC = (0.1, 0.35, 0.95)  # sums of equal ones do not divide back exactly
UNIT = (*BINARY, *NON_DYADIC, 0.5)
REAL = (*UNIT, -1.3, 2.7, 40.1)


class Batch(NamedTuple):
    """A flat batch: rewards and ids row by row, rows of one group not next to each other."""

    rewards: NDArray[np.float64]
    ids: NDArray[np.str_]


@st.composite
def groups_of(
    draw: st.DrawFn, values: tuple[float, ...] = UNIT, size: int | None = None, max_size: int = 6
) -> list[float]:
    """The rewards of one group, often constant; of `size` rollouts, or of 1 to `max_size`."""
    n = draw(st.integers(1, max_size)) if size is None else size
    reward = st.sampled_from(values)
    if draw(st.integers(0, 3)) == 0:
        return [draw(reward)] * n
    return draw(st.lists(reward, min_size=n, max_size=n))


@st.composite
def matrices(draw: st.DrawFn, values: tuple[float, ...] = UNIT, max_groups: int = 6) -> NDArray[np.float64]:
    """Rewards (P, G): 1 to `max_groups` groups of one size, 1 to 6."""
    size = draw(st.integers(1, 6))
    return np.array(draw(st.lists(groups_of(values, size), min_size=1, max_size=max_groups)))


@st.composite
def batches(
    draw: st.DrawFn, values: tuple[float, ...] = UNIT, min_groups: int = 1, max_groups: int = 5, max_size: int = 6
) -> Batch:
    """A ragged flat batch, rows shuffled together with their ids."""
    rows = draw(st.lists(groups_of(values, max_size=max_size), min_size=min_groups, max_size=max_groups))
    names = draw(st.permutations([f"p{i}" for i in range(len(rows))]))
    flat = [(reward, name) for name, row in zip(names, rows, strict=True) for reward in row]
    rewards, ids = zip(*draw(st.permutations(flat)), strict=True)
    return Batch(np.array(rewards), np.array(ids))


@st.composite
def worlds(draw: st.DrawFn) -> Points:
    """Discrete priors with w > 0 and T2 > 0, of 2 to 5 nodes, 0 and 1 among them now and then."""
    nodes = draw(st.lists(st.floats(0, 1) | st.sampled_from((0.0, 0.5, 1.0)), min_size=2, max_size=5, unique=True))
    weights = draw(st.lists(st.floats(0.01, 1), min_size=len(nodes), max_size=len(nodes)))
    world = Points("drawn", Prior(tuple(nodes), tuple(w / math.fsum(weights) for w in weights)))
    assume(world.prior.within > 1e-4 and world.prior.between > 1e-4)
    return world
