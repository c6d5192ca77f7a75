"""Base models in 4 and 8 bits, by bitsandbytes, which is an optional package.

Only weights of linear layers are quantised; embeddings, norms and the output layer keep the model's dtype, and so do
keys, values and the prefix. Knows the package's configuration, what its layers need so that a prefix can be learned
through them, and how many bytes they take. Finds no models and loads none.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils import is_bitsandbytes_available

from prefix_studio.errors import StudioError

# It warns of every cast, which on a GPU is every layer of every pass, and when PEFT imports it, of a kernel not found.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Bytes of a quantised weight. 4 bit: half a byte, a byte of scale for every 64 weights, and four for every 256 scales.
WEIGHT_BYTES = {"8bit": 1.0, "4bit": 0.5 + (1 + 4 / 256) / 64}


def own_quantization(config: PretrainedConfig) -> str:
    """How the model's own weights are stored: `none`, `4bit` or `8bit` by bitsandbytes, or another method's name."""
    stored = getattr(config, "quantization_config", None) or {}
    fields: dict[str, Any] = stored if isinstance(stored, dict) else stored.to_dict()
    if not fields:
        return "none"
    if fields.get("load_in_4bit") or fields.get("load_in_8bit"):
        return "4bit" if fields.get("load_in_4bit") else "8bit"
    return str(fields.get("quant_method", "unknown"))


def configuration(wanted: str, config: PretrainedConfig, dtype: torch.dtype, name: str) -> BitsAndBytesConfig | None:
    """What `from_pretrained` is told; None where the weights are taken as they are stored.

    wanted: the recipe's model.quantization. dtype: what the layers compute in. name: the model's, for messages.
    Raises StudioError when bitsandbytes is needed and missing, or the weights are stored in another quantisation.
    """
    stored = own_quantization(config)
    if wanted != "none" and stored not in ("none", wanted):
        raise StudioError(
            f"The weights of {name} are already quantised ({stored}), so they cannot be loaded in {wanted}.",
            "Set model.quantization to none, or choose the model that these weights were made from.",
            "model",
        )
    if {wanted, stored} & set(WEIGHT_BYTES) and not is_bitsandbytes_available():
        raise StudioError(
            f"Loading {name} in {wanted if wanted != 'none' else stored} needs bitsandbytes, which is not installed.",
            "Run `pip install bitsandbytes`, or use weights that are not quantised: model.quantization none.",
            "model",
        )
    if wanted == "none" or stored != "none":
        return None
    if wanted == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def prepare_layers(model: PreTrainedModel, name: str) -> None:
    """Has bitsandbytes' layers compute as a prefix in front of them needs it. A model without that package is left be.

    4 bit: CPUs with AVX512-BF16 would repack the weights, on the first pass without gradients, for a kernel that has
    no backward pass, and from then on every gradient would be silently wrong.
    8 bit on CPUs: the training path computes with the weights alone; the other one also rounds each row's inputs,
    slower, and by what else is in the batch. Every 8-bit layer would also hold its input until the backward pass,
    gradient checkpointing or not, for the gradient of a weight that is frozen.
    Raises StudioError where the model, whose `name` is for the message, has no layer that could be quantised.
    """
    if getattr(model, "quantization_method", None) != "bitsandbytes":
        return
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    layers = [module for module in model.modules() if isinstance(module, Linear4bit | Linear8bitLt)]
    if not layers:
        raise StudioError(
            f"bitsandbytes cannot quantise {model.config.model_type} models such as {name}.",
            "Set model.quantization to none.",
            "model",
        )
    for layer in layers:
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
        else:
            layer.train()
            layer.register_forward_hook(forget_input)


def forget_input(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Drops the input [B, T, width] that bitsandbytes' function keeps on its node of the graph."""
    node = output.grad_fn
    if hasattr(node, "A"):  # the training path on CPUs
        node.A = None
    if hasattr(node, "tensors"):  # GPUs
        node.tensors = (None, None, None)


def weight_bytes(model: PreTrainedModel, quantization: str, dtype: torch.dtype) -> int:
    """Bytes that the model's weights take once loaded so. `model` may be on the meta device, and is not quantised."""
    parameters = sum(parameter.numel() for parameter in model.parameters())  # tied embeddings count once
    if quantization not in WEIGHT_BYTES:
        return parameters * dtype.itemsize
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    # Experts that are one tensor rather than linear layers are not quantised either.
    quantised = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, kept)
    )
    return round(quantised * WEIGHT_BYTES[quantization] + (parameters - quantised) * dtype.itemsize)
