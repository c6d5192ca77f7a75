"""A run's state on disk: safetensors for tensors, JSON for the rest, whole or not there at all.

A checkpoint is a folder `step-00000120` with `tensors.safetensors` and `state.json`; the latter holds the former's
SHA-256, so that damage is found before anything is loaded. It is written beside its place, synced to the disk and then
renamed into it. The two newest stay; each holds all that a run needs to go on, the best prefix so far included.
Knows files; knows not what the tensors mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from prefix_studio.errors import StudioError

TENSORS = "tensors.safetensors"
STATE = "state.json"
PREFIX = "step-"
TEMPORARY = ".writing-"
KEPT = 2


class Checkpoint(NamedTuple):
    """What a run had at a step. state is plain JSON data."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes one and removes what is older than the one before. Raises StudioError (disk) when the disk refuses."""
    final = folder / f"{PREFIX}{checkpoint.step:08d}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        content = safetensors.torch.save(tensors)
        digest = hashlib.sha256(content).hexdigest()
        state = {"step": checkpoint.step, "sha256": digest, "state": checkpoint.state}
        write_synced(temporary / TENSORS, content)
        write_synced(temporary / STATE, json.dumps(state, indent=1).encode())
        sync_folder(temporary)
        if final.exists():  # a damaged one of the same step
            shutil.rmtree(final)
        temporary.replace(final)
        sync_folder(folder)
        for old in checkpoint_folders(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest one that is whole, or None, and the names of the damaged ones that were passed over."""
    damaged = []
    for path in checkpoint_folders(folder):
        try:
            return read_checkpoint(path), damaged
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(path.name)
    return None, damaged


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises OSError, ValueError, KeyError or TypeError when the folder is not a whole checkpoint."""
    facts = json.loads((path / STATE).read_text(encoding="utf-8"))
    content = (path / TENSORS).read_bytes()
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise ValueError(f"{TENSORS} is not what {STATE} says")
    return Checkpoint(facts["step"], safetensors.torch.load(content), facts["state"])


def checkpoint_folders(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob(f"{PREFIX}*"), reverse=True)


def remove_leftovers(folder: Path) -> None:
    """What a killed process was writing when it died. Only the process that owns the run's folder may call this."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole, on the disk, or not at all. Raises StudioError (disk)."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        write_synced(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """As `write_whole`, with the value as JSON."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes renames in a folder last through a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what the disk refused."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StudioError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Free some disk space, then resume the run." if full else "Check the folder's permissions.",
            "disk",
        ) from error
