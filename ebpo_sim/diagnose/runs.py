"""Several files: parts of one log, or runs to be kept apart? And groups of different sizes in one of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ebpo_sim.diagnose.gathering import SHIFT, Ints, Log, Stratum, merged
from ebpo_sim.diagnose.intervals import Estimate, components, proportion
from ebpo_sim.diagnose.population import Population

MOST_SIZES = 6  # in the table: those with most rollouts


class Size(NamedTuple):
    """Groups of one size: how many, their share of all rollouts, their mean, ICC and share of equal rewards."""

    rollouts: int
    groups: int
    share: float
    mean: Estimate
    icc: Estimate
    silent: Estimate


def apart(log: Log) -> Log:
    """The log with its files read as one, or, where they repeat each other's groups, as runs side by side.

    Runs of one experiment meet the same prompts at the same steps: put together they would be groups of a size that
    nobody ran. Folders are runs where only files of different folders repeat groups, else files are. A group that a
    file's end cuts is repeated too, so as many groups as files may be.
    """
    files = list(dict.fromkeys(s.run for s in log.strata))
    plain, _ = _keys(log, dict.fromkeys(files, ""))
    inside = {f: str(Path(f).parent) for f in files}
    repeated = len(np.unique(log.groups.key)) - len(np.unique(plain))
    named = dict.fromkeys(files, "")
    if repeated >= len(files):
        folders = len(set(inside.values())) > 1
        by_folder = folders and len(np.unique(_keys(log, inside)[0])) == len(np.unique(log.groups.key))
        names = inside if by_folder else {f: f for f in files}
        short = {f: Path(name).name if by_folder else Path(name).stem for f, name in names.items()}
        named = short if len(set(short.values())) == len(set(names.values())) else names
    key, strata = _keys(log, named)
    groups = log.groups._replace(key=key)
    if log.columns.kind == "rollouts":
        groups = merged([groups])
    named_strata = (s._replace(model="/".join(filter(None, (s.run, s.model))), run="") for s in strata)
    return log._replace(groups=groups, strata=tuple(named_strata))


def _keys(log: Log, named: dict[str, str]) -> tuple[Ints, list[Stratum]]:
    """The groups' keys and the strata, with files known by these names."""
    strata: dict[Stratum, int] = {}
    place = [strata.setdefault(s._replace(run=named[s.run]), len(strata)) for s in log.strata]
    return (log.prompt << SHIFT) | np.array(place, dtype=np.int64)[log.stratum], list(strata)


def of_one_size(population: Population, seed: int) -> tuple[Population, tuple[Size, ...], str]:
    """The groups of the size with most rollouts, every size's own numbers, and what was left out in words.

    All groups stay where they have one size, and where sizes vary from prompt to prompt: no step, and no size with
    half of the rollouts.
    """
    sizes, inverse = np.unique(population.n, return_inverse=True)
    if len(sizes) == 1:
        return population, (), ""
    held = np.bincount(inverse, population.n * population.weight)
    order = np.argsort(-held, kind="stable")
    most = int(order[0])
    rows = tuple(_size(population.select(inverse == i), held[i] / held.sum(), seed) for i in order[:MOST_SIZES])
    kept = population.select(inverse == most)
    large = population.step is not None or held[most] >= held.sum() / 2
    if large and kept.groups >= 2 and kept.prompts >= 2:
        left = population.groups - kept.groups
        note = f"groups have {sizes[0]:.0f} to {sizes[-1]:.0f} rollouts; all estimates are from those of "
        return kept, rows, f"{note}{sizes[most]:.0f}, which have most rollouts, and {left} groups are left out"
    return population, rows, (
        f"groups have {sizes[0]:.0f} to {sizes[-1]:.0f} rollouts; every group counts once, and estimates are "
        "unbiased only if the number of rollouts did not depend on the rewards"
    )  # fmt: skip


def _size(part: Population, share: float, seed: int) -> Size:
    none = Estimate(float("nan"), None, None)
    mean, icc = none, none
    if part.groups >= 2 and part.prompts >= 2:
        found = components(part, 300, seed)
        mean, icc = found.mean, found.icc
    flat = float(part.weight @ part.flat) / part.groups
    return Size(int(part.n[0]), part.groups, share, mean, icc, proportion(flat, part.groups * part.independent))
