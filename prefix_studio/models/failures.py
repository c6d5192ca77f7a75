"""What goes wrong while a model is loaded, in plain words: what is wrong with which model, and the way out.

Knows how torch, transformers and accelerate say it; the rest stands in the log as the cause. Loads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart

# How torch, the system, transformers (quantised weights left without a GPU) and accelerate (experts left for the disk,
# which would have to be written there anew) say that there is no room.
NO_ROOM = (
    "out of memory",
    "can't allocate",
    "cannot allocate",
    "dispatched on the cpu or the disk",
    "needed to be re-saved",
)


@contextmanager
def loading_errors(model: ModelPart, name: str) -> Iterator[None]:
    """Turns whatever is raised while weights are read into a StudioError. name: the model's, as a sentence has it."""
    try:
        yield
    except StudioError:
        raise
    except Exception as error:  # weights and configurations may be wrong in any way a family's code can stumble over
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in NO_ROOM):
            raise out_of_memory(model, name) from error
        way_out = "Download or copy the model again."
        if isinstance(error, ImportError):
            way_out = "Install it, or choose a model that needs none."
        raise StudioError(f"The weights of {name} cannot be read: {reason(error)}", way_out, "model") from error


def check_tensors(missing: Collection[str], misfits: Collection[tuple], name: str) -> None:
    """Raises StudioError where tensors are not in the weights, or (name, shape there, shape here) do not fit."""
    if misfits:
        tensor, there, here = min(misfits)
        raise StudioError(
            f"The weights of {name} do not fit its configuration: {len(misfits)} tensors have other shapes, such as "
            f"{tensor}, {shape(there)} and not {shape(here)}.",
            "Download or copy the model again.",
            "model",
        )
    if missing:
        raise StudioError(
            f"The weights of {name} are incomplete: {len(missing)} tensors are missing, such as {min(missing)}.",
            "Choose a complete text generation model.",
            "model",
        )


def out_of_memory(model: ModelPart, name: str, needed: int | None = None, free: int | None = None) -> StudioError:
    """needed, free: bytes, where they are known."""
    sizes = "" if needed is None else f": it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    ways = ["Choose a smaller model"]
    if model.quantization == "none":
        ways.append("set model.quantization to 4bit")
    if model.device_map is None:
        ways.append("set model.device_map to auto, which is slower")
    return StudioError(f"This machine's memory is too small for {name}{sizes}.", f"{', or '.join(ways)}.", "memory")


def unusable_configuration(error: Exception, name: str) -> StudioError:
    """What AutoConfig's error means."""
    if "trust_remote_code" in str(error):
        return StudioError(
            f"There is code of its own in {name}, which is not run here.",
            "Choose a model whose architecture transformers knows.",
            "model",
        )
    if unknown := re.search(r"model type `(\w+)` but Transformers does not recognize", str(error)):
        return StudioError(
            f"The architecture of {name}, {unknown[1]}, is not one that this version of transformers knows.",
            "Choose another model; a newer transformers may know this one.",
            "model",
        )
    return StudioError(
        f"The configuration of {name} cannot be used: {reason(error)}",
        "Check its config.json, or choose another model.",
        "model",
    )


def reason(error: BaseException) -> str:
    """The first sentence of a library's message, kept short."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    # Some announce what is wrong, and say it on the next line; others say no more than a name.
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if isinstance(error, KeyError) or not line:
        line = f"{type(error).__name__} {line}".strip()
    return line if len(line) <= 200 else line[:199] + "…"


def shape(sizes: Collection[int]) -> str:
    return " x ".join(str(size) for size in sizes)
