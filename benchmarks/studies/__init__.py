"""Comparisons of accuracy: one command each, with three seeds, results as JSON and as a plot."""
