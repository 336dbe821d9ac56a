"""Stage 9a: asking a model so that it answers better, without changing its weights."""
