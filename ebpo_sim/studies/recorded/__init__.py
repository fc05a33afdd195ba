"""Baselines along a recorded RL run."""
