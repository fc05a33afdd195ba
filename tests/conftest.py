"""Hypothesis runs the same examples everywhere: nothing random decides whether the suite is green."""

import os

from hypothesis import settings

os.environ.pop("COLUMNS", None)  # the width of tables must not depend on who runs the tests

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, max_examples=40, database=None)
settings.load_profile("ci")
