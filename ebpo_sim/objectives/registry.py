"""Objectives by name, for the text of a method: "cispo", "kl:coef=0.01,kind=k2"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebpo_sim import typed
from ebpo_sim.errors import InputError, unknown_name
from ebpo_sim.objectives.base import Objective
from ebpo_sim.objectives.cispo import CISPO
from ebpo_sim.objectives.clip import Clip
from ebpo_sim.objectives.dppo import DPPO
from ebpo_sim.objectives.entropy import EntropyBonus
from ebpo_sim.objectives.kl import KL
from ebpo_sim.objectives.mhpo import MHPO
from ebpo_sim.objectives.r2vpo_fixed import R2VPOFixed
from ebpo_sim.objectives.sapo import SAPO

_OBJECTIVES: dict[str, Callable[..., Any]] = {
    "clip": Clip,
    "cispo": CISPO,
    "dppo": DPPO,
    "mhpo": MHPO,
    "r2vpo_fixed": R2VPOFixed,
    "sapo": SAPO,
    "kl": KL,
    "entropy": EntropyBonus,
}


def register_objective(name: str) -> Callable[[type], type]:
    """Class decorator: the objective under this name; a second class of the same name is refused."""

    def add(kind: type) -> type:
        if _OBJECTIVES.get(name, kind) is not kind:
            raise InputError(f"objective {name!r} is already registered: choose another name")
        _OBJECTIVES[name] = kind
        return kind

    return add


def objective_names() -> tuple[str, ...]:
    """All registered objectives, in order of registration."""
    return tuple(_OBJECTIVES)


def make_objective(text: str) -> Objective:
    """The objective that "name" or "name:setting=value,..." spells; settings are held to their declared types.

    Raises InputError for unknown names and settings and for values that are not of the setting's type.
    """
    name, colon, body = text.partition(":")
    if name not in _OBJECTIVES:
        raise unknown_name("objective", name, _OBJECTIVES, "; one of your own comes with --load FILE.py")
    kind = _OBJECTIVES[name]
    kinds = typed.parameters(kind)
    settings = typed.parse_all(body, kinds, f"objective {text!r}") if colon else {}
    for setting in settings:
        if setting not in kinds:
            raise unknown_name(f"setting of {name}", setting, kinds)
    made: Objective = kind(**settings)
    return made
