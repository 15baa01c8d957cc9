"""Benchmarks: what the packages reach, beside what the machine could do."""
