"""The form as each owner left it, kept on disk so that a reload or a second browser goes on with it.

A draft is the form's raw values, right or wrong: a value that no recipe would accept is kept all the same. Knows the
home's `drafts/` folder and nothing of recipes or pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prefix_studio.disk import write_whole
from prefix_studio.settings import Settings

PLAIN = (str, int, float, bool, list, type(None))


class Drafts:
    """One small YAML file an owner, `drafts/<hash of the owner's name>.yaml`."""

    def __init__(self, settings: Settings):
        self._folder = settings.home / "drafts"

    def load(self, owner: str) -> dict[str, Any]:
        """The owner's values by field, or {} where there is no draft or it cannot be read."""
        try:
            kept = yaml.safe_load(self._path(owner).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return {}
        if not isinstance(kept, dict):
            return {}
        return {key: value for key, value in kept.items() if isinstance(key, str) and isinstance(value, PLAIN)}

    def save(self, owner: str, values: Mapping[str, Any]) -> None:
        """Keeps the values; a crash leaves the old draft or the new one. Raises StudioError when the disk refuses."""
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        write_whole(self._path(owner), text.encode())

    def _path(self, owner: str) -> Path:
        return self._folder / f"{hashlib.sha256(owner.encode()).hexdigest()[:32]}.yaml"
