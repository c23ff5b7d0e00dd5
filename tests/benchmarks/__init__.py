"""Benchmarks: `python -m tests.benchmarks`. They measure and never fail because of timing."""
