"""The shelf: every adapter a person has, trained here or imported, found by its id.

Runs in the page's process: no torch. A trained adapter lives in its run's folder and is known by the run's id; an
imported one lives in the home's `adapters/<id>/` with `about.json` (name, owner, created). Whose run is whose is the
queue's to say, so the shelf is handed the queue and asks it.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from prefix_studio.adapters.archive import read_json, unpack_archive, write_archive
from prefix_studio.adapters.files import read_facts
from prefix_studio.disk import write_json
from prefix_studio.errors import StudioError
from prefix_studio.settings import LOCAL_OWNER, Settings

ABOUT = "about.json"
ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Run(Protocol):
    id: str
    name: str
    owner: str
    state: str
    created: float


class Runs(Protocol):
    """The part of the queue that the shelf needs."""

    def list(self, owner: str | None = None) -> Sequence[Run]: ...
    def rename(self, run_id: str, name: str, owner: str | None = None) -> None: ...


@dataclass(frozen=True)
class AdapterRow:
    """One adapter. created: seconds since the epoch. metrics: the run's result.json."""

    id: str
    name: str
    base_model: str
    folder: Path
    created: float
    size_bytes: int
    num_virtual_tokens: int
    source: Literal["run", "import"]
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str | None:
        return self.id if self.source == "run" else None


class Shelf:
    """The adapters of one studio. `owner` None sees all (the command line); a name sees its own."""

    def __init__(self, settings: Settings, runs: Runs):
        self.settings = settings
        self.runs = runs

    def list(self, owner: str | None = None) -> list[AdapterRow]:
        """Newest first. An adapter whose files are damaged is left out: its run still says what happened to it."""
        rows = [row for row in [*self._trained(owner), *self._imported(owner)] if row]
        return sorted(rows, key=lambda row: row.created, reverse=True)

    def get(self, adapter_id: str, owner: str | None = None) -> AdapterRow:
        for row in self.list(owner):
            if row.id == adapter_id:
                return row
        raise StudioError(f"There is no adapter {adapter_id!r}.", "Look at the Adapters tab for those that are there.")

    def rename(self, adapter_id: str, name: str, owner: str | None = None) -> None:
        row = self.get(adapter_id, owner)
        name = " ".join(name.split())
        if not 1 <= len(name) <= 200:
            raise StudioError("The name is empty or longer than 200 characters.", "Give one of 1 to 200 characters.")
        if row.run_id:
            self.runs.rename(row.run_id, name, owner)
        else:
            write_json(row.folder / ABOUT, read_json(row.folder / ABOUT) | {"name": name})

    def delete(self, adapter_id: str, owner: str | None = None) -> None:
        """Remove the adapter's files for good. A run that made it stays in the list of runs."""
        row = self.get(adapter_id, owner)
        shutil.rmtree(row.folder)
        shutil.rmtree(self._exports(row.id), ignore_errors=True)

    def zip(self, adapter_id: str, owner: str | None = None) -> Path:
        """A zip to take home: PEFT's two files, a model card, the recipe and samples."""
        row = self.get(adapter_id, owner)
        return write_archive(row.folder, self._exports(row.id) / f"{slug(row.name)}.zip", name=row.name)

    def import_zip(self, path: Path | str, owner: str = LOCAL_OWNER) -> str:
        """Put an adapter's zip on the shelf and return its id. What is no adapter raises StudioError, nothing kept."""
        path = Path(path)
        if not path.is_file():
            raise StudioError(f"There is no file {path}.", "Give the path of an adapter's zip.")
        adapter_id = f"import-{secrets.token_hex(4)}"
        folder = self.settings.adapters / adapter_id
        try:
            unpack_archive(path, folder)
            read_facts(folder)
            write_json(folder / ABOUT, {"name": path.stem[:200], "owner": owner, "created": time.time()})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return adapter_id

    def _trained(self, owner: str | None) -> list[AdapterRow | None]:
        finished = [run for run in self.runs.list(owner) if run.state == "finished"]
        return [
            adapter_row(self.settings.runs / run.id / "adapter", run.id, run.name, run.created, "run")
            for run in finished
        ]

    def _imported(self, owner: str | None) -> list[AdapterRow | None]:
        rows = []
        for folder in self.settings.adapters.iterdir() if self.settings.adapters.is_dir() else ():
            if not (folder / ABOUT).is_file() or not ID.fullmatch(folder.name):
                continue
            about = read_json(folder / ABOUT)
            if owner in (None, about["owner"]):
                rows.append(adapter_row(folder, folder.name, about["name"], about["created"], "import"))
        return rows

    def _exports(self, adapter_id: str) -> Path:
        return self.settings.home / "exports" / adapter_id


def adapter_row(
    folder: Path, adapter_id: str, name: str, created: float, source: Literal["run", "import"]
) -> AdapterRow | None:
    try:
        facts = read_facts(folder)
    except StudioError:
        return None
    result = (folder.parent if source == "run" else folder) / "result.json"
    return AdapterRow(
        id=adapter_id,
        name=name or adapter_id,
        base_model=facts.base_model,
        folder=folder,
        created=created,
        size_bytes=facts.size_bytes,
        num_virtual_tokens=facts.num_virtual_tokens,
        source=source,
        metrics=read_json(result) if result.is_file() else {},
    )


def slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "adapter"
