"""Benchmarks: one module each, with `main()`; see `python -m benchmarks --list`."""
