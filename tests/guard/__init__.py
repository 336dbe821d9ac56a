"""Guards: toxicity and n-gram overlap."""
