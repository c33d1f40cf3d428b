"""`python -m benchmarks.NAME`: equality first, then times, then one JSON line."""
