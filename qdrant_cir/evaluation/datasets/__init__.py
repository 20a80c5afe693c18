"""Readers of data sets: queries, galleries and right answers."""
