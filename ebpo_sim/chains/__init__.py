"""Rung 2: skill chains, softmax policies that learn, compiled where loops are long."""
