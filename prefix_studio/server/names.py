"""Names under which the server offers models: bases by their id, adapters by their folder or run.

Either exactly what `serve` was told, or what the studio has at the moment of the request: every finished run's
adapter, every imported one, and their base models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prefix_studio.adapters.shelf import Shelf
from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart
from prefix_studio.runs.table import RunTable
from prefix_studio.settings import Settings


@dataclass(frozen=True)
class Served:
    """One name: a base model, with an adapter in front or without. created: seconds since the epoch."""

    name: str
    model: ModelPart
    adapter: Path | None
    created: int
    aliases: tuple[str, ...] = ()


class Names(Protocol):
    """Whoever knows what is served now."""

    def all(self) -> list[Served]: ...


def find(names: Names, name: str) -> Served | None:
    """What goes by this name; names win over aliases."""
    offered = names.all()
    exact = (served for served in offered if served.name == name)
    return next(exact, None) or next((served for served in offered if name in served.aliases), None)


class GivenNames:
    """One base and its adapters, as `serve --model M --adapter DIR` names them.

    An adapter is called by its folder, with the folder above in front where two would share a name.
    """

    def __init__(self, model: ModelPart, adapters: Sequence[Path]):
        now = int(time.time())
        last_parts = [folder.resolve().name for folder in adapters]
        self._all = [Served(model.id, model, None, now, aliases=(Path(model.id).name,))]
        for folder in adapters:
            path = folder.resolve()
            short = path.name
            name = short if last_parts.count(short) == 1 else f"{path.parent.name}/{short}"
            if any(served.name == name for served in self._all):
                raise StudioError(
                    f"Two adapters would be served as {name!r}.", "Give adapters from folders of different names."
                )
            self._all.append(Served(name, model, path, now, aliases=(str(folder), str(path))))

    def all(self) -> list[Served]:
        return self._all


class StudioNames:
    """What the studio of these settings has: the bundled model, adapters by their id on the shelf, and their bases."""

    def __init__(self, settings: Settings):
        self._shelf = Shelf(settings, RunTable(settings))

    def all(self) -> list[Served]:
        return list(self._offered())

    def _offered(self) -> Iterator[Served]:
        adapters = self._shelf.list()
        bases = dict.fromkeys(["bundled", *(row.base_model for row in adapters)])
        for base in bases:
            yield Served(base, ModelPart(id=base), None, 0)
        for row in adapters:
            yield Served(row.id, ModelPart(id=row.base_model), row.folder, int(row.created), (row.name,))
