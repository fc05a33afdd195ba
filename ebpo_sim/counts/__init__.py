"""Rungs 0 and 1: groups as counts of successes, exact sums and compiled streams."""
