"""A file becomes labelled token rows."""
