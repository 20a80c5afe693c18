"""Finished bundles: their weights, precisions, fitted codec and records."""
