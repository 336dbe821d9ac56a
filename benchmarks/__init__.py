"""Measurements of the product, each with its command, machine and versions. `python -m benchmarks.NAME --json` prints one."""
