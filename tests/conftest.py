"""Hypothesis runs the same examples everywhere: nothing random decides whether the suite is green."""

import os

import pytest
from hypothesis import settings

from ebpo_sim import plugins

os.environ.pop("COLUMNS", None)  # the width of tables must not depend on who runs the tests

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, max_examples=40, database=None)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def nothing_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a test loads into this process is forgotten with it: it marks the keys of all caches."""
    monkeypatch.setattr(plugins, "_loaded", dict(plugins._loaded))
