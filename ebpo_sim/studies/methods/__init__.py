"""Published recipes side by side: tuned runs, leaderboards, and which of their parts matter."""
