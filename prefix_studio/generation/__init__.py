"""Many prefixes on one frozen model in one batch, their text, and its scores."""
