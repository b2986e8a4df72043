"""Malformed inputs of `benchmarks/fuzz.py`: how they are made, and how they are tried."""
