"""Rung 3: RLVR training of a real causal language model with the estimators of `ebpo_sim` (never numba)."""
