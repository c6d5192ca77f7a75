"""What the page's header says about this machine and the Hub. No torch."""

from __future__ import annotations

import os

from prefix_studio.models.hub import offline, reachable
from prefix_studio.settings import Settings
from prefix_studio.ui.studio import total_memory
from prefix_studio.ui.words import say_bytes

HUB_TIMEOUT = 1.5


def machine_words(settings: Settings) -> str:
    """The devices that runs take: `2 CPU cores, 25 GB`, or the GPUs."""
    gpus = [slot for slot in settings.slots if slot != "cpu"]
    if gpus:
        return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}, {say_bytes(total_memory())} memory"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} CPU core{'s' if cores > 1 else ''}, {say_bytes(total_memory())} memory"


def hub_words() -> tuple[str, str]:
    """The Hub's state in words and its tone. Asks the network, within `HUB_TIMEOUT` seconds."""
    if offline():
        return "Hub switched off: bundled model and own files work", "quiet"
    if reachable(HUB_TIMEOUT):
        return "Hub reachable", "good"
    return "Offline: bundled model and own files work", "warm"
