"""The studies, a folder each: simulate, score, text, plots."""
