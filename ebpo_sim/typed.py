"""Settings of a part, held to the types they declare: from text and from keyword arguments alike.

A declared type is bool, int, float, str, a Literal, None, a class, or a union of them. Numbers are finite; a bool is no
number and a number no bool; nothing is guessed from the look of a text.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ebpo_sim.errors import InputError


class _No(Exception):
    """The value is not of the type."""


def parse(name: str, kind: Any, text: str) -> Any:
    """The value of type `kind` that `text` spells; true and false in any case, none for None.

    Raises InputError naming `name`, the text and what is accepted.
    """
    return _first(_parsed, name, kind, text, repr(text))


def check(name: str, kind: Any, value: Any) -> Any:
    """`value` in the declared type: NumPy scalars become Python's, a whole number a float where a float is declared.

    Raises InputError naming `name`, the value and what is accepted.
    """
    return _first(_checked, name, kind, value, _short(value))


def _first(read: Callable[[Any, Any], Any], name: str, kind: Any, given: Any, shown: str) -> Any:
    """What the first member of `kind` that takes it makes of what is given."""
    for member in _members(kind):
        try:
            return read(member, given)
        except _No:
            continue
    raise InputError(f"{name} must be {describe(kind)}, got {shown}")


def check_fields(part: Any) -> None:
    """Hold every field of a frozen dataclass to its declared type; for `__post_init__`. Raises InputError."""
    owner: Any = type(part)
    hints = _hints(owner)
    for field in dataclasses.fields(part):
        object.__setattr__(part, field.name, check(field.name, hints[field.name], getattr(part, field.name)))


class Settings:
    """A frozen dataclass whose fields are held to the types they declare, and to what `check_settings` asks."""

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_settings()

    def check_settings(self) -> None:
        """Raises InputError for values that the types allow and the formula does not; by default for none."""


def parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """The declared type of every keyword of `factory`; of one without a declaration the type of its default."""
    hints = _hints(factory)
    return {
        name: hints.get(name, type(p.default) if p.default not in (None, inspect.Parameter.empty) else object)
        for name, p in inspect.signature(factory).parameters.items()
    }


def parse_all(settings: str, kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`a=1,b=true,c=word` by the declared types; `where` begins the message. An unknown name stays text: its owner
    refuses it. Raises InputError for what is no setting=value, for a name given twice and for a wrong value."""
    found: dict[str, Any] = {}
    for part in settings.split(","):
        name, equals, text = (side.strip() for side in part.partition("="))
        if not equals or not name:
            raise InputError(f"{where}: {_short(part)} is not setting=value, as in memory=0.9")
        if name in found:
            raise InputError(f"{where}: {name} is given twice, the second time as {_short(text)}: give it once")
        found[name] = parse(f"{where}: {name}", kinds[name], text) if name in kinds else text
    return found


def describe(kind: Any) -> str:
    """What `kind` accepts, in words."""
    words = []
    for member in _members(kind):
        if get_origin(member) is Literal:
            words += [str(a) for a in get_args(member)]
        else:
            words.append(_WORDS.get(member) or f"a {member.__name__} given in Python")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    types.NoneType: "none",
    object: "anything given in Python",
}


@lru_cache(maxsize=512)
def _hints(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner)
    except (NameError, TypeError) as error:
        raise InputError(f"the settings of {owner.__name__!r} have types that cannot be read: {error}") from error


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union; None last, so that a word is tried before it."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return tuple(sorted(members, key=lambda m: m is types.NoneType))


def _parsed(kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if text == str(choice):
                return choice
        raise _No
    if kind is str:
        return text
    if kind is types.NoneType and text.lower() == "none":
        return None
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float) and len(text) < 400 and text.isascii() and "_" not in text:
        try:
            return _checked(kind, kind(text))
        except (ValueError, OverflowError) as error:
            raise _No from error
    raise _No


def _checked(kind: Any, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if type(value) is type(choice) and value == choice:
                return choice
        raise _No
    if kind is float and type(value) in (int, float):
        try:
            value = float(value)
        except OverflowError as error:
            raise _No from error
        if not np.isfinite(value):
            raise _No
        return value
    if kind in (bool, int, str):
        if type(value) is not kind:
            raise _No
        return value
    if isinstance(value, get_origin(kind) or kind):
        return value
    raise _No


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
