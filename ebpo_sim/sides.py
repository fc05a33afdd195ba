"""What stands beside the rewards of a batch and its layout by prompt; answers, reward components, greedy rewards."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError
from ebpo_sim.host import is_torch, to_float64, to_labels
from ebpo_sim.numbers import Array

Ints = NDArray[np.intp]
LARGEST = 1e12  # of a reward or a length: beyond it a state's sums would round away the differences that teach


class Sides(NamedTuple):
    """What few rules ask for, None where it is not given. answer_PG: (..., P, G) codes, equal where the answers are.
    component_PGK: (..., P, G, K) the rewards of K reward functions, NaN where one did not score.
    greedy_P: (..., P) reward of the greedy answer."""

    answer_PG: Ints | None = None
    component_PGK: Array | None = None
    greedy_P: Array | None = None

    def scattered(self, flat_index: Ints, row_N: Ints, n_groups: int, width: int) -> Sides:
        """The same, of flat rows, in the padded layout."""
        answer_N, component_NK, greedy_N = self
        components = None
        if component_NK is not None:
            columns = [scatter(column, flat_index, n_groups, width) for column in component_NK.T]
            components = np.stack(columns, axis=-1)
        greedy = per_group("greedy", None if greedy_N is None else tuple(greedy_N.tolist()), row_N, n_groups)
        return Sides(
            None if answer_N is None else scatter(answer_N, flat_index, n_groups, width),
            components,
            None if greedy is None else np.array(greedy),
        )

    def take(self, index: Ints) -> Sides:
        """Those of the groups at `index` alone."""
        answer_PG, component_PGK, greedy_P = self
        return Sides(
            None if answer_PG is None else answer_PG[..., index, :],
            None if component_PGK is None else component_PGK[..., index, :, :],
            None if greedy_P is None else greedy_P[..., index],
        )


NONE = Sides()


def sides(answers: Any, components: Any, greedy: Any, shape: tuple[int, ...], flat: bool) -> Sides:
    """answers: like the rewards, numbers or text, equal where two answers are the same. components: like the rewards
    with one axis more, last, an entry a reward function, NaN where it did not score. greedy: one entry a group, with
    `flat` one a row.

    Raises InputError for shapes that do not fit and for other numbers that are not finite or beyond 1e12.
    """
    codes = None
    if answers is not None:
        given = np.asarray(answers.detach().cpu().numpy() if is_torch(answers) else answers, dtype=object)
        code_of: dict[Any, int] = {}
        labels = to_labels("answers", given.reshape(-1).tolist())
        codes = np.array([code_of.setdefault(x, len(code_of)) for x in labels or ()], dtype=np.intp)
        codes = codes.reshape(given.shape)
        same_shape("answers", codes, shape)
    parts = None if components is None else _finite("components", components)
    if parts is not None and (parts.shape[:-1] != shape or parts.shape[-1] < 1):
        raise InputError(f"components has shape {parts.shape}, rewards have {shape}: give one more axis, the functions")
    expected = shape if flat else shape[:-1]
    best = None if greedy is None else _finite("greedy", greedy)
    if best is not None and best.shape != expected:
        raise InputError(f"greedy has shape {best.shape}, {expected} is needed: give the greedy answer's reward")
    return Sides(codes, parts, best)


def _finite(name: str, given: Any) -> Array:
    values = to_float64(name, given)[0]
    bad = ~(np.abs(values) <= LARGEST) & ~(np.isnan(values) & (name == "components"))
    if np.any(bad):
        raise InputError(f"{name} must be finite, at most {LARGEST:g} in size, got {values[bad][0]}")
    return values


def per_rollout(name: str, given: Any, rewards: Array) -> Array | None:
    """A number a rollout beside its reward, 0 to 1e12; None where none is given."""
    if given is None:
        return None
    values = to_float64(name, given)[0]
    same_shape(name, values, rewards.shape)
    bad = ~((values >= 0) & (values <= LARGEST))
    if np.any(bad):
        raise InputError(f"{name} must be finite and >= 0, at most {LARGEST:g}, got {values[bad][0]}")
    return values


def same_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raises InputError where the array has another shape than the rewards."""
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, rewards have {shape}: give one entry a rollout")


def pack(ids: tuple[Any, ...]) -> tuple[Ints, Ints, int, int]:
    """Rows to slots of a padded matrix: group by id in order of appearance, rollouts in order within a group."""
    row_of: dict[Any, int] = {}
    row_N = np.array([row_of.setdefault(i, len(row_of)) for i in ids], dtype=np.intp)
    if len(row_N) == 0:
        raise InputError("rewards hold no rollout: an empty batch has no advantage")
    sizes = np.bincount(row_N)
    order = np.argsort(row_N, kind="stable")
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    column_N = np.empty_like(row_N)
    column_N[order] = np.arange(len(row_N)) - starts
    width = int(sizes.max())
    return row_N * width + column_N, row_N, len(sizes), width


def scatter(values: NDArray[Any], flat_index: Ints, n_groups: int, width: int) -> NDArray[Any]:
    """A number a row in the padded matrix (P, G), 0 elsewhere."""
    padded = np.zeros(n_groups * width, dtype=values.dtype)
    padded[flat_index] = values
    return padded.reshape(n_groups, width)


def per_group(name: str, labels: tuple[Any, ...] | None, row_N: Ints, n_groups: int) -> tuple[Any, ...] | None:
    """One label a group from one a row. Raises InputError where they differ within a group."""
    if labels is None:
        return None
    if len(labels) != len(row_N):
        raise InputError(f"{name} has {len(labels)} entries for {len(row_N)} rollouts: give one a rollout")
    chosen: list[Any] = [None] * n_groups
    seen = [False] * n_groups
    for row, label in zip(row_N.tolist(), labels, strict=True):
        if seen[row] and chosen[row] != label:
            raise InputError(f"{name} differ within a group: {chosen[row]!r} and {label!r}")
        chosen[row], seen[row] = label, True
    return tuple(chosen)
