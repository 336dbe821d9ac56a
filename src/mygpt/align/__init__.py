"""Stage 5: from what people or programs prefer to a model that gives it."""
