"""Where claims are checked, in the order in which the simplest counterexample is looked for.

Search rule: group sizes ascending; for each, two equally likely success probabilities that are multiples of 1/2,
then of 1/4, then of 1/10; then Beta(a, b) from the parameters 1, 1/2, 2, 1/10, 5; then the observed worlds. The
first violation in this order is the ledger's counterexample. Worlds where every reward is certain are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, product
from typing import Any

from ebpo_sim.claims.base import Context, Subject
from ebpo_sim.counts.streams import Design
from ebpo_sim.estimators import Estimator, make
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import World, ratio_world
from ebpo_sim.worlds.observed import STUDIED

REFERENCE = "observed:Qwen2.5-Math-1.5B-Instruct/MATH"


def search_worlds(quick: bool) -> tuple[str, ...]:
    """World texts from simple to complicated, as the module describes."""
    worlds: list[str] = []
    for denominator in (2, 4) if quick else (2, 4, 10):
        values = [i / denominator for i in range(denominator + 1)]
        worlds += [f"points:{a:g},{b:g}" for a, b in combinations(values, 2)]
    parameters = (1, 0.5, 0.1) if quick else (1, 0.5, 2, 0.1, 5)
    worlds += [f"beta:{a:g},{b:g}" for a, b in product(parameters, repeat=2)]
    worlds += STUDIED[1::3] if quick else STUDIED
    certain = {"points:0,1"}
    return tuple(w for w in dict.fromkeys(worlds) if w not in certain)


@lru_cache(maxsize=16)
def preset(name: str, **settings: Any) -> Estimator:
    """`make`, once for each name and settings: it reads signatures, and the search asks thousands of times."""
    return make(name, **settings)


@lru_cache(maxsize=1024)
def oracle(prior: Prior) -> Estimator:
    """The proof's setting: the true prior mean, within and between variance, and batch standardisation."""
    return Estimator("idealised", (*make("oracle_linear", prior=prior).chain, *preset("ebpo").chain[1:]))


SUBJECTS: dict[str, Subject] = {
    "idealised": oracle,
    "algorithm-1": lambda prior: preset("ebpo"),
    "released": lambda prior: preset("ebpo_released"),
    "ebpo_debiased": lambda prior: preset("ebpo_debiased"),
}


def default_context(quick: bool, seed: int, threads: int) -> Context:
    """The ledger as it is published."""
    return Context(
        subjects=SUBJECTS,
        worlds=search_worlds(quick),
        group_sizes=(2, 4, 8) if quick else (2, 3, 4, 8, 16, 32),
        reference=REFERENCE,
        reference_size=4,
        design=Design(prompts=4096, steps=6, burn_in=3, replicates=16 if quick else 40, seed=seed),
        threads=threads,
        quick=quick,
    )


@lru_cache(maxsize=512)
def world(text: str) -> World:
    return ratio_world(text)


def cells(context: Context) -> Iterator[tuple[str, World, int]]:
    """(text, world, G) in search order."""
    for group_size in context.group_sizes:
        for text in context.worlds:
            yield text, world(text), group_size
