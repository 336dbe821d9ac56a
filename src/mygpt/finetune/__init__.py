"""Stage 4: tuning a base on a dataset."""
