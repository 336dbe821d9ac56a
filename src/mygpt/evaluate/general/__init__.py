"""Package data: `items.jsonl` and `text.txt`, read by `general_set`."""
