"""Weights and label files of other projects, read as data."""
