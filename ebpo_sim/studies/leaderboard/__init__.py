"""Every baseline on every recorded and observed world."""
