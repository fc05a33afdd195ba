"""Does gradient noise predict training? Predictions first, then tuned runs, in three regimes."""
