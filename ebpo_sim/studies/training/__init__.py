"""Policies that learn: tuned runs, findings, figures."""
