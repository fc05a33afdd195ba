"""One exception for every refusal: it names the argument, the value received and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A value the project refuses. The command line turns it into one line and exit code 2."""


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> InputError:
    """The error for a name that is not in a registry, with near names suggested.

    Comparison ignores case; the full list is given when nothing is near. more: what else may help.
    """
    names = sorted(known)
    by_lower = {n.lower(): n for n in names}
    near = [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names)}"
    return InputError(f"unknown {kind} {name!r}: {hint}{more}")
