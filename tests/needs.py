"""Tests of optional trainers: skipped where a trainer is missing, unless the environment says it must be there."""

from __future__ import annotations

import importlib
import os

import pytest


def require(library: str) -> None:
    """Skip the calling test module without `library`; with EBPO_REQUIRE_<LIBRARY>=1 its absence is an error."""
    if os.environ.get(f"EBPO_REQUIRE_{library.upper()}") == "1":
        importlib.import_module(library)
    else:
        pytest.importorskip(library)
