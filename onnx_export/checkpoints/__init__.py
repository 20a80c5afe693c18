"""Weights and label files from elsewhere, read as data."""
