"""Which prompts get the rollouts: replayed on a recorded run, and trained with."""
