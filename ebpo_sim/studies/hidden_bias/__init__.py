"""The predictions about a second paper."""
