"""Programs that benchmarks start, each in processes of its own; see `tests/benchmarks/jobs.py`."""
