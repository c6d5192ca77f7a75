"""Prefix tuning of language models without code: a Gradio app, a durable queue, adapters that travel.

`load_prefix(folder, model)` and `generation_inputs(model, prefix, input_ids, attention_mask)` put a saved prefix in
front of a plain transformers model.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

PUBLIC = {"load_prefix": "prefix_studio.prefix.files", "generation_inputs": "prefix_studio.generation.public"}


def __getattr__(name: str) -> Any:
    """The public functions, imported when first used, so that the page's process stays without torch."""
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
