"""The base models worth starting with, from catalogue.yaml. Data only; page-safe: no torch, no requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prefix_studio.models.weights import WEIGHTS, count_parameters
from prefix_studio.recipe import BUNDLED_DEFAULTS
from prefix_studio.settings import BUNDLED_MODEL

CATALOGUE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True)
class Entry:
    """One base model.

    size_mb: megabytes of weights on disk. recommended: recipe fields by part, {} where the form's defaults fit.
    """

    id: str
    title: str
    parameters: int
    licence: str
    note: str
    family: str
    size_mb: int
    gated: bool = False
    recommended: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def catalogue() -> tuple[Entry, ...]:
    """Every entry in the file's order; the first is the bundled model."""
    return tuple(read_entry(fields) for fields in yaml.safe_load(CATALOGUE.read_text(encoding="utf-8")))


def find(model_id: str) -> Entry | None:
    """The entry of that id, if the catalogue has one."""
    return next((entry for entry in catalogue() if entry.id == model_id), None)


def read_entry(fields: dict[str, Any]) -> Entry:
    if fields["id"] != "bundled":
        return Entry(**fields)
    weights = BUNDLED_MODEL / WEIGHTS
    there = weights.is_file()  # an installation that lost its bundled model still lists the others
    return Entry(
        **fields,
        parameters=count_parameters(BUNDLED_MODEL) if there else 0,
        size_mb=round(weights.stat().st_size / 1e6) if there else 0,
        recommended=BUNDLED_DEFAULTS,
    )
