"""Where a run computes."""

from __future__ import annotations

import torch

from prefix_studio.errors import StudioError


def choose_device(name: str) -> str:
    """`auto` is the first GPU where there is one, otherwise the CPU. Raises StudioError for one that is not there."""
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise StudioError(f"There is no device {name} on this machine.", "Choose auto or cpu.") from error
    return name
