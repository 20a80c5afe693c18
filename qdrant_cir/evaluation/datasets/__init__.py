"""Data sets: what they ask, and what is right."""
