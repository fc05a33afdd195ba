"""Parts by name, for the text of a method: "cispo", "kl:coef=0.01,kind=k2", "dynamic:batches=5"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ebpo_sim import typed
from ebpo_sim.errors import InputError, unknown_name

_kind_of: dict[str, str] = {}  # all names in a method's text are one namespace


class Registry:
    """The parts of one kind, each a callable of typed keyword settings; names are in order of registration."""

    def __init__(self, kind: str, shipped: Mapping[str, Callable[..., Any]]) -> None:
        self.kind = kind
        self._parts: dict[str, Callable[..., Any]] = {}
        for name, part in shipped.items():
            self.register(name)(part)

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator: the part under this name; a second one of the same name is refused."""

        def add(part: Any) -> Any:
            if self._parts.get(name, part) is not part or _kind_of.setdefault(name, self.kind) != self.kind:
                raise InputError(f"{_kind_of[name]} {name!r} is already registered: choose another name")
            self._parts[name] = part
            return part

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names."""
        return tuple(self._parts)

    def part(self, name: str) -> Callable[..., Any]:
        """What is registered under the name; `make` builds it."""
        return self._parts[name]

    def make(self, text: str) -> Any:
        """The part that "name" or "name:setting=value,..." spells; settings are held to their declared types.

        Raises InputError for unknown names and settings and for values that are not of the setting's type.
        """
        name, colon, body = text.partition(":")
        if name not in self._parts:
            raise unknown_name(self.kind, name, self._parts, "; one of your own comes with --load FILE.py")
        part = self._parts[name]
        kinds = typed.parameters(part)
        settings = typed.parse_all(body, kinds, f"{self.kind} {text!r}") if colon else {}
        for setting in settings:
            if setting not in kinds:
                raise unknown_name(f"setting of {name}", setting, kinds)
        return part(**settings)
