"""Stage 6: tasks, comparisons, verdicts."""
