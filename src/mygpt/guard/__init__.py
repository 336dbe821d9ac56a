"""What must not pass: toxicity, text copied from elsewhere."""
