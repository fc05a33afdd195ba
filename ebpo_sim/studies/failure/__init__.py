"""What groups that fail as a whole are given."""
