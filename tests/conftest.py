"""Hypothesis runs the same examples everywhere: nothing random decides whether the suite is green."""

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, max_examples=40, database=None)
settings.load_profile("ci")
