"""Which split a problem belongs to: decided by what it says, never by its place in a file or the file's name.

A problem is known by its key, a hash of its prompt: without the instruction that a run adds, without regard to white
space, and with the larger operand of a sum or product first, so that 12+7= and 7+12= are one problem.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "validation", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "validation", "heldout")
_COMMUTATIVE = re.compile(r"(:?)([0-9]{1,9})([+*])([0-9]{1,9})=")


def content(prompt: str, endings: Iterable[str] = ()) -> str:
    """The prompt as it is compared. endings: instructions that may have been added to it."""
    ends = [" ".join(ending.split()) for ending in endings if ending.strip()]
    text = " ".join(unicodedata.normalize("NFC", prompt).split())
    while any(text != end and text.endswith(end) for end in ends):
        text = next(text.removesuffix(end) for end in ends if text != end and text.endswith(end)).rstrip()
    operands = _COMMUTATIVE.fullmatch(text)
    if operands and int(operands[2]) < int(operands[4]):
        return f"{operands[1]}{operands[4]}{operands[3]}{operands[2]}="
    return text


def key_of(prompt: str, endings: Iterable[str] = ()) -> str:
    """16 hexadecimal digits that name the problem; see `content`."""
    return hashlib.sha256(content(prompt, endings).encode(errors="surrogatepass")).hexdigest()[:16]


def split_of(prompt: str, endings: Iterable[str] = ()) -> Split:
    """Which split a prompt belongs to: 80 % train, 10 % validation, 10 % held out, by its key alone."""
    bucket = int(key_of(prompt, endings), 16) % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "heldout"
