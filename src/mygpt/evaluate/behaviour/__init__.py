"""Package data: the items of the behaviour measures, one JSON object a line, read by `behaviour_set`."""
