"""One run, from a recipe to an adapter, with exact resume."""
