"""The model process and its client."""
