"""How weights move: batches, losses, schedules, checkpoints."""
