"""The gain that claim T2 is about, over the intra-class correlation and the group size: exact."""

from __future__ import annotations

from typing import Any

from ebpo_sim.claims.base import Context
from ebpo_sim.claims.family import world
from ebpo_sim.counts.exact import limit_risk, rule

CLAIM = "T2"
CORRELATIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def grid(context: Context) -> list[dict[str, Any]]:
    """Rows (variant, icc, group_size, ratio): the limit of the variant's baseline error over the group mean's in the
    world Beta(a, a) with a = (1/icc - 1)/2, whose intra-class correlation is icc."""
    found = []
    for variant, subject in context.subjects.items():
        for icc in CORRELATIONS:
            here = world(f"beta:{(1 / icc - 1) / 2!r},{(1 / icc - 1) / 2!r}")
            for size in context.group_sizes:
                prior = rule(here, size)
                ratio = limit_risk(subject(prior), here, size).mse / (prior.within / size)
                found.append({"variant": variant, "icc": icc, "group_size": size, "ratio": ratio})
    return found
