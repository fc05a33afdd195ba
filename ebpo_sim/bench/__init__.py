"""What things cost, against plain NumPy doing the same work in the same run."""
