"""What the page is made of: one object that every tab is handed, and who a request belongs to.

Knows the rooms the page talks to (queue, model process, shelf, drafts) and nothing of Gradio's components. Ownership is
the login's name, never the browser session, so that a second browser of the same person sees the same runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from prefix_studio.adapters.shelf import Shelf
from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.table import RunTable
from prefix_studio.server.client import ModelClient
from prefix_studio.settings import LOCAL_OWNER, Settings
from prefix_studio.ui.drafts import Drafts
from prefix_studio.ui.live import Progress


class HasUsername(Protocol):
    """The part of `gr.Request` that ownership needs."""

    username: str | None


@dataclass(frozen=True)
class Studio:
    """The rooms behind the page. `open` is the usual way to make one."""

    settings: Settings
    runs: RunTable
    models: ModelClient
    shelf: Shelf
    drafts: Drafts
    progress: Progress

    @classmethod
    def open(cls, settings: Settings) -> Studio:
        runs = RunTable(settings)
        return cls(
            settings=settings,
            runs=runs,
            models=ModelClient(settings),
            shelf=Shelf(settings, runs),
            drafts=Drafts(settings),
            progress=Progress(),
        )

    @property
    def shared(self) -> bool:
        """Whether people who do not own this machine may reach the page: with logins, and on a Space."""
        return bool(self.settings.logins) or self.settings.place != "local"

    def permitted(self, recipe: Recipe) -> Recipe:
        """The recipe itself where it reads only what its writer may read.

        On the person's own machine that is any file. Where the page is shared, paths are refused unless they are
        uploads: a recipe must not be a way to read the server's disk. Raises StudioError.
        """
        if self.shared:
            self._refuse_foreign_path(recipe.data.source, "data.source")
            if isinstance(recipe.data.validation, str):
                self._refuse_foreign_path(recipe.data.validation, "data.validation")
            if recipe.model.id != "bundled" and is_folder_like(recipe.model.id):
                raise StudioError(
                    f"model.id: {recipe.model.id!r} is a folder, and this studio is shared.",
                    "Choose a model from the list, or a Hugging Face id such as gpt2.",
                )
        return recipe

    def _refuse_foreign_path(self, source: str, field: str) -> None:
        if source.startswith(("sample:", "hub:")):
            return
        if not Path(source).expanduser().resolve().is_relative_to(self.settings.uploads.resolve()):
            raise StudioError(
                f"{field}: {source!r} is a path on the server, and this studio is shared.",
                "Drop the file into the page instead.",
            )


def is_folder_like(model_id: str) -> bool:
    """Whether a model id names a place on this disk rather than a repository of the Hub."""
    return model_id.startswith((".", "~", "/", os.sep)) or model_id.count("/") > 1 or Path(model_id).exists()


def owner_of(request: HasUsername | None) -> str:
    """Whose runs, drafts and adapters a request may see: its login, or `local` where there are no logins."""
    return (request.username if request else None) or LOCAL_OWNER


def total_memory() -> int:
    """Bytes of this machine's memory."""
    return psutil.virtual_memory().total
