"""A checkpoint becomes a bundle: traced, verified, compiled, written."""
