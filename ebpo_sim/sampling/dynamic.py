"""Dynamic sampling: groups without a signal are left out, and others are drawn in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ebpo_sim.errors import InputError
from ebpo_sim.groups import Groups
from ebpo_sim.numbers import Array
from ebpo_sim.part import Draw, Need, Stateless
from ebpo_sim.sampling.base import Kept

Drop = Literal["uniform", "passed", "failed"]


@dataclass(frozen=True)
class Dynamic(Stateless):
    """A group stays iff its rewards are not all equal (DAPO, arXiv 2503.14476, section 3.2, equation 11).

    batches: the most generation batches of a step (verl: algorithm.filter_groups.max_num_gen_batches, which stops the
    run where they do not suffice; here the step trains on what there is). 1 draws no more: groups are left out only.
    drop: "uniform" as published; "passed", "failed" leave out only those of them whose reward is above 1/2, or not.
    learn: what the estimator's memory and its batch statistics see, the groups that are
    "kept" (as in verl) or "all" of them. With 0/1 rewards a group of G rollouts stays with probability 1 - E p^G -
    E (1-p)^G, the share of the rollouts drawn that is learnt from.
    """

    batches: int = 10
    drop: Drop = "uniform"
    learn: Literal["kept", "all"] = "kept"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batches < 1:
            raise InputError(f"dynamic: batches must be at least 1, got {self.batches}: 1 draws no more")

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        """To draw more, a rung whose prompts the method chooses."""
        return frozenset({"batch_choice", "prompt_choice"} if self.batches > 1 else {"batch_choice"})

    @property
    def after(self) -> bool:
        """Whether the estimator sees all groups."""
        return self.learn == "all"

    def weigh(self, state: object, groups: Groups, advantage_PG: Array | None, draw: Draw) -> Kept:
        """Whole groups; an empty one never stays."""
        drop_P = groups.degenerate_P
        if self.drop != "uniform":
            drop_P = drop_P & ((groups.mean_P > 0.5) == (self.drop == "passed"))
        return Kept(groups.mask_PG & ~(drop_P | (groups.size_P == 0))[..., None])
