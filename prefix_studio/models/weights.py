"""Weights on disk, without loading them: which safetensors files a model folder needs, and how many numbers they hold.

Reads the files' headers only. Page-safe: no torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from prefix_studio.errors import StudioError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that make up the model in `folder`, present or not.

    Only plain file names: an index that points outside the folder is refused.
    """
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(index, "it lists no weight files") from error
    if any(not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise StudioError(f"{index} names files that are not safetensors files beside it.", category="model")
    return names


def count_parameters(folder: Path) -> int:
    """Numbers in the model's weight files. Raises StudioError for a file that is cut short or not safetensors."""
    return sum(
        math.prod(tensor["shape"])
        for name in weight_files(folder)
        for key, tensor in read_header(folder / name).items()
        if key != "__metadata__"
    )


def read_header(path: Path) -> dict:
    """The header of a safetensors file: {tensor name: {"dtype", "shape", "data_offsets"}}, checked against its size."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise damaged(path, "it is not a safetensors file")
            header = json.loads(file.read(length))
        end = max((tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"), default=0)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged(path, "it is not a safetensors file") from error
    if path.stat().st_size != 8 + length + end:
        raise damaged(path, f"{8 + length + end} bytes expected, {path.stat().st_size} found")
    return header


def no_safetensors(name: str) -> StudioError:
    return StudioError(
        f"There are no safetensors weights ({WEIGHTS}) in {name}; pickle files such as pytorch_model.bin can run code "
        "and are not loaded.",
        "Choose a model with safetensors weights, or convert this one with save_pretrained().",
        "model",
    )


def damaged(path: Path, why: str) -> StudioError:
    return StudioError(f"{path} is damaged: {why}.", "Download or copy the model again.", "model")
