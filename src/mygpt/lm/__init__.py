"""What a model is: where it comes from, how it loads, how conversations become tokens."""
