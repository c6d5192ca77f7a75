"""Gradient checkpointing that keeps the prefix: less memory, the same loss and the same gradients.

transformers' own switch drops the cache of every checkpointed layer, and the prefix with it. Here each layer runs
under torch's checkpoint with its cache in hand. That is safe because the caches of `inject.shared_cache` store
nothing: when a layer runs a second time, on the way back, it finds what it found the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prefix_studio.errors import StudioError

Forward = Callable[..., Any]


@contextmanager
def gradient_checkpointing(model: PreTrainedModel) -> Iterator[None]:
    """Forward passes inside keep each layer's input only; the backward pass may come later. Leaves the model as it was.

    Not for two threads on one model. Raises StudioError (category model) where the model has no such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise StudioError(
            f"{model.config.model_type} models cannot trade time for memory.",
            "Set gradient_checkpointing to false.",
            "model",
        )
    # The base model is in eval mode: without dropout there is no random state to keep.
    with shadowed(
        {layer: partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False) for layer in layers}
    ):
        yield


@contextmanager
def around(layers: Mapping[nn.Module, Callable[[Forward], Forward]]) -> Iterator[None]:
    """Inside, each layer's forward is what its function makes of it, also when a checkpoint runs the layer again."""

    def changed(forward: Forward, change: Callable[[Forward], Forward]) -> Forward:
        if isinstance(forward, partial) and forward.func is checkpoint:
            (inner,) = forward.args
            return partial(checkpoint, change(inner), **forward.keywords)
        return change(forward)

    with shadowed({layer: changed(layer.forward, change) for layer, change in layers.items()}):
        yield


@contextmanager
def shadowed(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Inside, the modules' forwards are others. Leaves the modules as they were."""
    # An instance's own `forward` shadows its class's; there is one already where layers are spread over devices.
    before = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward
