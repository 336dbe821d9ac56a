"""Stage 9b: search the documents, answer from what was found, and show for every sentence where it stands."""
