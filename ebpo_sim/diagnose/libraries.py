"""What a library's "grpo" makes of the log's own groups, beside ours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ebpo_sim.counts.exact import POPULATION
from ebpo_sim.counts.updates import advantages_by_count
from ebpo_sim.diagnose.population import Population
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.estimators import make
from ebpo_sim.estimators.conventions import CONVENTIONS
from ebpo_sim.groups import count_groups
from ebpo_sim.labels import REFERENCE

DEFAULTS = {"openrlhf": "group_norm", "open_instruct": "standard"}  # where their "grpo" goes by another name


class Difference(NamedTuple):
    """convention: its full name; rule: as a preset of ours. largest: |advantage - ours| at most over the log's groups,
    at `successes` of `group_size` and this `reward`; share: of the log's rollouts that differ by more than 1e-6."""

    convention: str
    rule: str
    divider: str
    group_size: int
    largest: float
    successes: int
    reward: int
    theirs: float
    ours: float
    share: float


def convention_of(library: str) -> str:
    """The name of the library's convention, as in "verl.grpo". Raises InputError for unknown libraries."""
    name = f"{library}.{DEFAULTS.get(library, 'grpo')}"
    if name not in CONVENTIONS:
        libraries = dict.fromkeys(n.partition(".")[0] for n in CONVENTIONS)
        raise unknown_name("--library", library, libraries)
    return name


def difference(population: Population, library: str) -> Difference:
    """On the groups of the commonest size, all in one batch, each as often as the log has it.

    Raises InputError for rewards of more than two values and unknown libraries.
    """
    name = convention_of(library)
    if population.successes is None:
        raise InputError("--library compares advantages by success counts: name one reward of two values by --columns")
    sizes, many = np.unique(population.n, return_counts=True)
    group_size = int(sizes[np.argmax(many)])
    mine = population.n == group_size
    prompts_K = np.bincount(population.successes[mine].astype(int), population.weight[mine], group_size + 1)
    batch = count_groups(group_size, POPULATION * prompts_K / prompts_K.sum())
    theirs, ours = (
        advantages_by_count(e, e.update(e.init(), batch), batch, group_size)
        for e in (make(CONVENTIONS[name].estimator), make(REFERENCE))
    )
    k = np.arange(group_size + 1)
    rollouts_KR = prompts_K[:, None] * np.stack([group_size - k, k], axis=1)
    off_KR = np.where(rollouts_KR > 0, np.abs(theirs - ours), -1.0)
    at = np.unravel_index(int(np.argmax(off_KR)), off_KR.shape)
    share = float(rollouts_KR[off_KR > 1e-6].sum() / rollouts_KR.sum())
    return Difference(
        name, CONVENTIONS[name].estimator, CONVENTIONS[name].divider, group_size, float(off_KR[at]), int(at[0]),
        int(at[1]), float(theirs[at]), float(ours[at]), share,
    )  # fmt: skip


def sentence(found: Difference) -> str:
    """The difference in words."""
    how = f'Library: {found.convention} is our "{found.rule}"'
    how += f", its loss averaged by {found.divider.replace('_', ' ')}" if found.divider else ""
    if found.largest <= 1e-6:
        return f"{how}; on your groups of {found.group_size} it gives the advantages of our grpo."
    return (
        f"{how}; on your groups of {found.group_size} {found.share:.1%} of the rollouts get another advantage than by "
        f"our grpo. Largest difference {found.largest:.3g}: {found.theirs:.3g} where ours is {found.ours:.3g}, for a "
        f"reward of {found.reward} with {found.successes} of {found.group_size} rewarded (all groups as one batch)."
    )
