"""Hidden objective biases of group-based RL (arXiv 2601.05002): shared prefixes, reward scale, overshoot."""
