"""The nouns: what stages hand to one another, each with a manifest, a digest and parents."""
