"""Where a run computes."""

from __future__ import annotations

import torch

from prefix_studio.errors import StudioError


def choose_device(name: str, local_rank: int = 0) -> str:
    """`auto` is a GPU where there is one, otherwise the CPU. Raises StudioError for one that is not there.

    local_rank: of several processes on this machine, the first takes the first GPU, the second the second, ...
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        name = f"cuda:{local_rank}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise StudioError(f"There is no device {name} on this machine.", "Choose auto or cpu.") from error
    return name
