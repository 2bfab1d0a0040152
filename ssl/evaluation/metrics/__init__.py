"""Scores, their intervals, and their breakdown by class and group."""
