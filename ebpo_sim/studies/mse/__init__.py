"""Baseline error: the main job."""
