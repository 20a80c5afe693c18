"""Measurements: latency and size; each prints the machine and a ratio."""
