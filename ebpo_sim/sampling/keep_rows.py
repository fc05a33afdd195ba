"""Train on some of the rows, without bias: those with a large share in the update are more likely to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups, Weights, rollout_weights
from ebpo_sim.numbers import Array
from ebpo_sim.part import OF_WEIGHTS, Draw, Need, Stateless
from ebpo_sim.sampling.base import Kept


@dataclass(frozen=True)
class KeepRows(Stateless):
    """Row i is trained on with probability q_i = min(1, size_i/tau), its advantage times 1/q_i; otherwise its advantage
    is 0. All rows stay in the batch and its divisor, so the expected update is that of all rows. Of level="rows" it is
    size_i = |A_i| sqrt(W_i); of "groups" the root mean square of these over the group's rows with an advantage, which
    are kept or left out together: never less noise at a share, unless the rows of a group oppose each other.

    share: in (0, 1], tau is where the mean of q is this; rows without advantage are never kept, so a batch with fewer
    others keeps all of those. cost_ratio: at least 0, the cost of training on a row over that of sampling it; tau is
    where (mean of A^2 W/q) (1 + cost_ratio mean of q), noise times cost, is least. noise: at least 1, tau is where the
    sum of A^2 W/q is that many times the sum of A^2 W; no q of the rows leaves as little with fewer of them on average,
    and the share follows the policy. Of N rows drawn one by one, s_i the score, W_i = |s_i|^2, g the update of all,

        E|g_kept - g|^2 = sum of A_i^2 W_i (1/q_i - 1) / N^2 = (noise - 1) sum of A_i^2 W_i / N^2.

    Where the rows' A s differ without correlation, N Var(g) = E A^2 |s|^2 - |E g|^2, so the noise scale nu becomes nu +
    (noise - 1)(1 + nu); where rows of a group point one way Var(g) is larger, and nu grows by less.
    Give one of the three; none is cost_ratio=1. weights: W is 1, the row's tokens, or |grad log pi|^2, for which the
    noise of a given share is least. Draws are by place in the batch, the same for the same `draw`.
    """

    share: float | None = None
    cost_ratio: float | None = None
    noise: float | None = None
    weights: Weights = "none"
    level: Literal["rows", "groups"] = "rows"

    after: ClassVar = True
    batches: ClassVar = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {n: x for n in ("share", "cost_ratio", "noise") if (x := getattr(self, n)) is not None}
        if len(given) > 1:
            listed = " and ".join(f"{name}={x}" for name, x in given.items())
            raise InputError(f"keep_rows: {listed} exclude each other: give one of them")
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(f"keep_rows: share must lie in (0, 1], got {self.share}: 1 keeps every row")
        if self.cost_ratio is not None and self.cost_ratio < 0:
            raise InputError(f"keep_rows: cost_ratio must be at least 0, got {self.cost_ratio}: 0 keeps every row")
        if self.noise is not None and not self.noise >= 1:
            raise InputError(f"keep_rows: noise must be at least 1, got {self.noise}: 1 keeps every row")

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        """Tokens to train on: counts know rows by their rewards alone."""
        return OF_WEIGHTS[self.weights] | {"batch_choice", "log_probs"}

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """Every row, with weight 1/q or 0."""
        assert advantage_PG is not None  # since `after`
        keep_PG = np.broadcast_to(groups.mask_PG, groups.rewards_PG.shape)
        q_PG = self.probabilities(groups, advantage_PG)
        shape = q_PG.shape if self.level == "rows" else (*q_PG.shape[:-1], 1)
        drawn_PG = draw.generator().random(shape) < q_PG
        return Kept(keep_PG, np.where(drawn_PG, 1 / np.where(drawn_PG, q_PG, 1.0), 0.0))

    def probabilities(self, groups: Groups, advantage_PG: Array) -> Array:
        """q of every row, 0 where the advantage is 0 or the row is masked; the same for any scale of A and W."""
        size_PG = np.where(groups.mask_PG, np.abs(advantage_PG) * np.sqrt(rollout_weights(groups, self.weights)), 0.0)
        if self.level == "groups":
            live_PG, largest = size_PG > 0, size_PG.max() or 1.0
            mean_P = np.sum((size_PG / largest) ** 2, axis=-1) / np.maximum(np.sum(live_PG, axis=-1), 1)
            size_PG = np.where(live_PG, largest * np.sqrt(mean_P)[..., None], 0.0)
        rows, sizes = int(groups.mask_PG.sum()), np.sort(size_PG[size_PG > 0])[::-1]
        if not len(sizes):
            return size_PG
        sizes = sizes / sizes[0]  # so that squares neither overflow nor vanish
        after = np.concatenate([np.cumsum(sizes[::-1])[::-1], [0.0]])  # of m rows kept for sure, the sum of the others
        sure, low, high = np.arange(len(sizes)), sizes, np.concatenate([[np.inf], sizes[:-1]])
        if self.noise is not None:
            squares = np.cumsum(sizes[::-1] ** 2)[::-1]
            tau_M = ((self.noise - 1) * squares[0] + squares) / after[:-1]
            right_M = tau_M >= low
        elif self.share is not None:
            wanted = self.share * rows
            if wanted >= len(sizes):
                return np.where(size_PG > 0, 1.0, 0.0)
            tau_M = after[:-1] / np.where(wanted > sure, wanted - sure, np.nan)
            right_M = tau_M >= low
        else:
            ratio = 1.0 if self.cost_ratio is None else self.cost_ratio
            fixed, slope = np.concatenate([[0.0], np.cumsum(sizes**2)])[:-1] / rows, after[:-1] / rows
            base = 1 + ratio * sure / rows
            tau_M = np.clip(np.sqrt(ratio * fixed / base), low, high)
            noise_times_cost = (fixed + slope * tau_M) * (base + ratio * slope / tau_M)
            right_M = noise_times_cost == noise_times_cost.min()
        right_M[-1] = True  # where rounding says that none is
        tau = tau_M[np.argmax(right_M)]
        return np.asarray(np.minimum(1.0, size_PG / (tau * size_PG.max())))
