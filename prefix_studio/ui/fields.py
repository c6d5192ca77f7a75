"""The Tune form's components by their place in the recipe, and the plain ones made in one line each.

Knows Gradio and no recipe: keys and values are whatever the form is handed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component


class Fields(dict[str, Component]):
    """Components by key. values: what they open with. Every method lays its component out in the current block."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__()
        self.opening = values

    def number(self, key: str, label: str, info: str | None, **more: Any) -> None:
        """A whole number, or empty."""
        self._lay(gr.Number, key, label, info, precision=0, step=1, **more)

    def fraction(self, key: str, label: str, info: str | None, **more: Any) -> None:
        self._lay(gr.Number, key, label, info, step=0.01, **more)

    def text(self, key: str, label: str, info: str | None, **more: Any) -> None:
        self._lay(gr.Textbox, key, label, info, **more)

    def tick(self, key: str, label: str, info: str | None, **more: Any) -> None:
        self._lay(gr.Checkbox, key, label, info, **more)

    def one_of(self, key: str, label: str, info: str, choices: list[str] | list[tuple[str, str]], **more: Any) -> None:
        """A list to unfold. choices: values, or labels and values."""
        self._lay(gr.Dropdown, key, label, info, choices=choices, **more)

    def any_of(self, key: str, label: str, choices: list[tuple[str, str]], **more: Any) -> None:
        """Boxes to tick, any number of them. choices: labels and values."""
        self._lay(gr.CheckboxGroup, key, label, None, choices=choices, **more)

    def radio(self, key: str, label: str, info: str | None, choices: list[tuple[str, str]], **more: Any) -> None:
        """Choices that are all in sight. choices: labels and values."""
        self._lay(gr.Radio, key, label, info, choices=choices, **more)

    def slider(self, key: str, label: str, info: str, minimum: int, maximum: int, **more: Any) -> None:
        self._lay(gr.Slider, key, label, info, minimum=minimum, maximum=maximum, step=1, **more)

    def _lay(self, kind: Any, key: str, label: str, info: str | None, **more: Any) -> None:
        self[key] = kind(value=self.opening[key], label=label, info=info, interactive=True, **more)
