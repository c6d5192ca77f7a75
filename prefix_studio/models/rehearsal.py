"""A model without storage goes through its steps: what comes of every operation is known, but for the numbers.

On the meta device tensors have shapes and nothing else. Models ask for more: they look at ids and masks (where is
padding?), and some kernels are missing there or keep other things than on a real device. Here small tensors that no
weight has a part in are real, kernels are those of a real device, and the bytes of all tensors are counted while they
are alive. Knows nothing of prefixes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prefix_studio.models.heap import Heap
from prefix_studio.prefix.checkpointing import shadowed

REAL_ENTRIES = 1 << 22  # larger masks have no values either
META, CPU = torch.device("meta"), torch.device("cpu")

aten = torch.ops.aten
WITHOUT_VALUES = {aten.empty.memory_format, aten.empty_strided.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


@contextmanager
def rehearsal(skeleton: PreTrainedModel, device: str = "cpu") -> Iterator[Bytes]:
    """Forward and backward passes inside need no storage; the bytes of all tensors they make are counted.

    device: where tensors say they are, so that whoever asks decides as on that device. Leaves the skeleton as it was;
    not for two threads on one skeleton.
    """

    def taking_kernels(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            with Kernels():
                return forward(*args, **kwargs)

        return run

    # A checkpointed layer runs again in the backward pass, which leaves modes of functions behind: each brings its own.
    layers = [module for module in skeleton.modules() if isinstance(module, GradientCheckpointingLayer)]
    with (
        shadowed({layer: taking_kernels(layer.forward) for layer in layers}),
        Shapes(skeleton) as counted,
        Kernels(torch.device(device)),
    ):
        yield counted


class Bytes(TorchDispatchMode):
    """Counts the bytes of tensors from the operation that makes them until the last reference goes: `now`, `peak`.

    known: its tensors are not counted. heap: lives through the same.
    """

    def __init__(self, known: nn.Module):
        super().__init__()
        self.now = self.peak = 0
        self.heap = Heap()
        self.alive: dict[int, Any] = {
            tensor.untyped_storage()._cdata: None for tensor in (*known.parameters(), *known.buffers())
        }

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self.run(function, args, kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf.untyped_storage())
        return result

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive or not size:
            return

        def let_go(_: Any) -> None:
            self.now -= size
            self.heap.give_back(block)
            del self.alive[key]

        self.alive[key] = weakref.ref(storage, let_go)
        self.now += size
        self.peak = max(self.peak, self.now)
        block = self.heap.take(size)


class Shapes(Bytes):
    """Operations are real on small tensors that all have values; the others happen on the meta device."""

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        without = [tensor.is_meta for tensor in tensors]
        if not tensors and takes_device(function):
            result = function(*args, **{**kwargs, "device": META})
            has_values = function not in WITHOUT_VALUES and result.numel() <= REAL_ENTRIES
            return function(*args, **{**kwargs, "device": CPU}) if has_values else result
        device = CPU
        if any(without) or entries(tensors) > REAL_ENTRIES:
            device = META
            if not all(without):
                if function in INDEXING:
                    args = (args[0], by_number(args[1]), *args[2:])
                args, kwargs = tree_map_only(Tensor, without_values, (args, kwargs))
        return function(*args, **({**kwargs, "device": device} if kwargs.get("device") else kwargs))


def takes_device(function: Any) -> bool:
    return any(argument.name == "device" for argument in function._schema.arguments)


def entries(tensors: list[Tensor]) -> int:
    """Entries of the tensor that would come of combining these, one by one."""
    size = 1
    for axis in range(1, max((tensor.dim() for tensor in tensors), default=0) + 1):
        size *= max(tensor.shape[-axis] for tensor in tensors if tensor.dim() >= axis)
    return size


def by_number(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks as the numbers of their true entries: how many there are is a matter of values."""
    numbers: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool and not index.is_meta
        numbers += index.nonzero().unbind(1) if is_mask else [index]
    return numbers


def without_values(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device=META)


class Kernels(TorchFunctionMode):
    """Takes the kernels that a real device would take, where the meta device has none or others.

    device: where tensors say they are; None means the truth.
    """

    def __init__(self, device: torch.device | None = None):
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function == Tensor.device.__get__:
            with torch._C.DisableTorchFunction():
                return self.device or function(*args)
        if self.device is not None and self.device.type != "cpu":
            # Nobody touches the device that they say they are on.
            args, kwargs = tree_map_only(torch.device, lambda device: META, (args, kwargs))
        if function is functional.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if function is torch._grouped_mm:
            return experts_product(*args, **kwargs)
        return function(*args, **kwargs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Fused attention, which keeps no scores, where its kernel takes these tensors, each [B, heads, T, width]."""
    one_width = query.shape[-1] == key.shape[-1] == value.shape[-1]
    if query.dim() != 4 or not one_width or not (enable_gqa or query.shape[1] == key.shape[1]):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # As scaled_dot_product_attention does: 0 or minus infinity, as many numbers as the mask has entries.
        attn_mask = torch.where(attn_mask, query.new_zeros(()), query.new_zeros(()))
    elif attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype)
    return aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


def experts_product(inputs: Tensor, weights: Tensor, *_: Any, **__: Any) -> Tensor:
    """Every row times the matrix of its expert, [S, in] x [E, in, out] -> [S, out]: any expert's is of that shape."""
    return inputs @ weights[0]
