"""From a recipe to a queued run, the same way for the page and the API.

What cannot work is refused here, before the queue: a model that takes no prefix, data without a usable row, a file the
writer may not read.
"""

from __future__ import annotations

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.ui.studio import Studio


def queue_run(studio: Studio, recipe: Recipe, owner: str, key: str | None = None) -> str:
    """The new run's id; with a key seen before, that submission's run. Raises StudioError with what is against it."""
    recipe = studio.permitted(recipe)
    check = studio.models.check(recipe)
    if not check["supported"]:
        raise StudioError(check["reason"], category="model")
    studio.models.preview(recipe)
    return studio.runs.submit(recipe, owner=owner, key=key)
