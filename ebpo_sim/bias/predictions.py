"""The predictions of the hidden-bias reference, all checked at once."""

from __future__ import annotations

from ebpo_sim.bias.check_adamw import check_adamw
from ebpo_sim.bias.check_overshoot import check_overshoot
from ebpo_sim.bias.check_prefix import check_prefix
from ebpo_sim.bias.record import Prediction, prediction

__all__ = ["IDS", "Prediction", "check_predictions"]

IDS = (
    *(f"P{i}" for i in range(1, 8)),  # finding (i): weights and shared prefixes
    *(f"N{i}" for i in range(1, 4)),  # its control: expected drift
    *(f"L{i}" for i in range(1, 4)),  # Proposition 4: the loss at the first step
    *(f"Q{i}" for i in range(1, 8)),  # finding (ii): AdamW and reward scale
    *(f"R{i}" for i in range(1, 10)),  # finding (iii): overshoot
)


def check_predictions(seed: int = 3) -> tuple[Prediction, ...]:
    """Every prediction about arXiv 2601.05002, one record or more per id of `IDS`, in that order.

    `predicted` is a closed form, or the reference's number where the statement says "published"; `computed` comes
    from finite differences, enumeration or a run. `seed` draws the random histories and ratios; published numbers
    keep their own seed.
    """
    cases = (*check_prefix(seed), *check_adamw(seed), *check_overshoot(seed))
    return tuple(prediction(*case) for case in sorted(cases, key=lambda case: IDS.index(case[0])))
