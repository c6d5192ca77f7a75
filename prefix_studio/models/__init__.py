"""Base models: which there are, whether they can be tuned, and loading them."""
