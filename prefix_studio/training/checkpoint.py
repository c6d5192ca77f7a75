"""A run's state on disk: safetensors for tensors, JSON for the rest, whole or not there at all.

A checkpoint is a folder `step-00000120` with `tensors.safetensors` and `state.json`; the latter holds the former's
SHA-256, so that damage is found before anything is loaded. It is written beside its place, synced to the disk and then
renamed into it. The two newest stay; each holds all that a run needs to go on, the best prefix so far included.
Knows files; knows not what the tensors mean.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from prefix_studio.disk import disk_errors, sync_folder, write_synced

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
        content = safetensors.torch.save(on_cpu(checkpoint.tensors))
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


def pack(checkpoint: Checkpoint) -> bytes:
    """A checkpoint on its way to another process."""
    facts = json.dumps([checkpoint.step, checkpoint.state]).encode()
    facts_tensor = torch.frombuffer(bytearray(facts), dtype=torch.uint8)
    return safetensors.torch.save(on_cpu(checkpoint.tensors) | {STATE: facts_tensor})


def unpack(content: bytes) -> Checkpoint:
    tensors = safetensors.torch.load(content)
    step, state = json.loads(tensors.pop(STATE).numpy().tobytes())
    return Checkpoint(step, tensors, state)


def on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def checkpoint_folders(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob(f"{PREFIX}*"), reverse=True)


def remove_leftovers(folder: Path) -> None:
    """What a killed process was writing when it died. Only the process that owns the run's folder may call this."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
