"""The heart: a prefix, what learns it, and how it goes in front of an untouched model."""
