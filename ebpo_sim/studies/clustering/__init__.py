"""What topic order does to a running prior."""
