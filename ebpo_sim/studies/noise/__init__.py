"""Exact gradient noise."""
