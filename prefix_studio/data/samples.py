"""The bundled sample sets: what there is and where their files are. Safe for the page's process: no datasets, no torch.

A sample is a folder of assets/samples with a `meta.yaml`: title, summary, format, prompt, completion, train and
validation (file names), init_text, max_new_tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

from prefix_studio.errors import StudioError
from prefix_studio.settings import SAMPLES


def list_samples() -> list[dict[str, str]]:
    """Name, title and summary of every sample, in alphabetical order."""
    return [{"name": name, **{key: sample_meta(name).get(key, "") for key in ("title", "summary")}} for name in names()]


def sample_meta(name: str) -> dict[str, Any]:
    """The sample's meta.yaml. Raises StudioError that lists the known samples when there is none of that name."""
    if name not in names():
        raise StudioError(f"There is no sample named {name!r}.", f"Known samples: {', '.join(names())}.", "data")
    return yaml.safe_load((SAMPLES / name / "meta.yaml").read_text(encoding="utf-8"))


def sample_file(name: str, half: Literal["train", "validation"]) -> Path:
    """The path of the sample's rows to learn from, or of those held back."""
    return SAMPLES / name / sample_meta(name)[half]


def names() -> list[str]:
    return sorted(path.parent.name for path in SAMPLES.glob("*/meta.yaml"))
