"""What is trained of a model: one file for each method."""
