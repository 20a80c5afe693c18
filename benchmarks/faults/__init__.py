"""Faults put into the library by hand, each of which must make a test fail: ``python -m benchmarks.faults``."""
