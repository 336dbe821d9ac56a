"""Stage 2: documents in, datasets out."""
