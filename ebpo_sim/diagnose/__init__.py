"""Which baseline, group size and normalisation suit YOUR rollouts? `python -m ebpo_sim.diagnose FILE`."""
