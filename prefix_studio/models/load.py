"""A base model by its name: the bundled one, a folder, or a Hub id becomes a frozen model and its tokenizer.

Safetensors only, no code from the model's folder, weights never changed: `load_model` returns an eval-mode model
whose parameters ask for no gradients, quantised and spread over devices as the recipe says. Knows models, not
prefixes; what the Hub does is `models.hub`'s business.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from prefix_studio.errors import StudioError
from prefix_studio.models import hub, quantize
from prefix_studio.models.failures import check_tensors, loading_errors, out_of_memory, reason, unusable_configuration
from prefix_studio.models.weights import count_parameters, no_safetensors, weight_files
from prefix_studio.recipe import ModelPart
from prefix_studio.settings import BUNDLED_MODEL

# Heads that do not write text, though their family's mapping may know a class that could.
NOT_WRITERS = re.compile(
    r"For(MaskedLM|PreTraining|(Sequence|Token|Image)Classification|QuestionAnswering|MultipleChoice)$"
)
SMALL_MODEL = 1_000_000_000  # parameters; below it float32 on a CPU costs little and is exact
WEIGHTS_SHARE = 0.8  # of a device's free memory, where a model is spread over several

log = logging.getLogger(__name__)


def resolve(model: ModelPart) -> str:
    """The model's folder as an absolute path, or its Hub id. No request is made.

    Raises StudioError when a path is given and no such folder exists.
    """
    if model.id == "bundled":
        return str(BUNDLED_MODEL)
    path = Path(model.id).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.is_absolute() or model.id.startswith((".", "~")) or model.id.count("/") > 1 or "\\" in model.id:
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        raise StudioError(
            f"The model folder {model.id} {problem}.",
            "Give the folder that holds config.json, tokenizer.json and model.safetensors.",
            "model",
        )
    return model.id


def locate(model: ModelPart, *, weights: bool = False) -> Path:
    """The local folder with the model's configuration and tokenizer, and its weights if asked.

    Downloads what is missing. Raises StudioError: no such folder or model, gated, offline, no config.json, an adapter,
    no safetensors weights.
    """
    name = resolve(model)
    folder = Path(name)
    if not folder.is_absolute():
        folder = (hub.fetch_weights if weights else hub.fetch_description)(name, model.revision)
    if (folder / "adapter_config.json").is_file():
        raise StudioError(
            f"There is an adapter in {describe(model)}, which would change the model it is loaded with.",
            "Choose its base model, or a folder that holds the model alone.",
            "model",
        )
    if not (folder / "config.json").is_file():
        raise StudioError(
            f"There is no config.json in {describe(model)}.",
            "Every transformers model has one: check the folder or id.",
            "model",
        )
    if weights and not all((folder / file).is_file() for file in weight_files(folder)):
        raise no_safetensors(describe(model))
    return folder


def fingerprint(model: ModelPart) -> str:
    """A short text that is equal for equal weights in equal precision: the key under which loaded models are kept."""
    folder = locate(model)
    parts = [str(folder), model.dtype, model.quantization]
    for file in sorted(folder.iterdir()):
        # A folder of one's own may be written over; the cache's folders are named by their commit. Weights of a Hub
        # model may still be on their way, which changes nothing about who it is.
        if file.suffix == ".json" or (file.suffix == ".safetensors" and folder == Path(resolve(model))):
            status = file.stat()
            parts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def load_config(model: ModelPart) -> PretrainedConfig:
    """The model's configuration. Raises StudioError when transformers does not know it, or it brings its own code."""
    folder = locate(model)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a family's checks of its own configuration may stumble over what they find
        raise unusable_configuration(error, describe(model)) from error


def model_class(config: PretrainedConfig, name: str) -> type:
    """The auto class that writes text with this configuration. Raises StudioError when there is none.

    Models that also look at pictures are asked last: text alone goes through their text decoder.
    """
    heads = config.architectures or []
    if not any(NOT_WRITERS.search(head) for head in heads):
        for auto in (AutoModelForSeq2SeqLM, AutoModelForCausalLM, AutoModelForImageTextToText):
            if type(config) in auto._model_mapping:
                return auto
    raise StudioError(
        f"This is not a text generation model: {name} ({', '.join(heads) or config.model_type}).",
        "Choose a causal language model such as HuggingFaceTB/SmolLM2-135M.",
        "model",
    )


def load_tokenizer(model: ModelPart) -> PreTrainedTokenizerBase:
    """The model's tokenizer; where it has no padding token, the end-of-text token pads (masked, so never seen)."""
    folder = locate(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizer backends raise what they like, down to bare Exception
        why = "" if not any((folder / file).is_file() for file in hub.TOKENIZER_FILES) else reason(error)
        raise StudioError(
            f"There is no usable tokenizer in {describe(model)}{': ' + why if why else '.'}",
            "A model folder needs its tokenizer.json beside config.json.",
            "model",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: ModelPart, device: str = "cpu") -> PreTrainedModel:
    """The frozen base model, in evaluation mode, on `device`, or over several where it is larger.

    dtype `auto`: bfloat16 where the hardware computes in it (GPUs; CPUs only for models of a billion parameters or
    more), otherwise float32. Batches go to the model's `.device`, and come back from there, wherever its layers are.
    Raises StudioError when the weights are missing, damaged, too large for the memory, or do not fit the configuration.
    """
    config = load_config(model)
    auto = model_class(config, describe(model))
    folder = locate(model, weights=True)
    parameters = count_parameters(folder)
    dtype = choose_dtype(model, device, parameters)
    quantization = quantize.configuration(model.quantization, config, dtype, describe(model))
    place = placement(model, device, parameters)
    # Logs are read by their last line, which should be a sentence; no variable turns this bar off.
    disable_progress_bar()
    with loading_errors(model, describe(model)):
        loaded, notes = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            quantization_config=quantization,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are told of below
            trust_remote_code=False,
            output_loading_info=True,
            **place,
        )
    check_tensors(notes["missing_keys"], notes["mismatched_keys"], describe(model))
    if loaded.device.type == "meta":  # not even the embeddings found room
        raise out_of_memory(model, describe(model))
    loaded.eval().requires_grad_(False)
    quantize.prepare_layers(loaded, describe(model))
    return loaded


def choose_dtype(model: ModelPart, device: str, parameters: int) -> torch.dtype:
    """The precision that dtype `auto` means for a model of so many parameters on this device."""
    if model.dtype != "auto":
        return getattr(torch, model.dtype)
    if device.startswith("cuda"):
        # Older GPUs only emulate bfloat16, slower than float32.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if parameters >= SMALL_MODEL and cpu_computes_bfloat16() else torch.float32


def cpu_computes_bfloat16() -> bool:
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def bytes_per_parameter(model: ModelPart, device: str, parameters: int) -> float:
    """Bytes that one of the model's `parameters` numbers takes on this device, on the average over all of them."""
    dtype = choose_dtype(model, device, parameters)
    config = load_config(model)
    stored = quantize.own_quantization(config)
    kind = stored if model.quantization == "none" else model.quantization
    if kind == "none":
        return float(dtype.itemsize)
    if kind not in quantize.WEIGHT_BYTES:
        return 1.0  # loaded as stored: fp8, or several to a number
    with loading_errors(model, describe(model)), torch.device("meta"):
        skeleton = model_class(config, describe(model)).from_config(config, trust_remote_code=False)
    return quantize.weight_bytes(skeleton, kind, dtype) / parameters


def placement(model: ModelPart, device: str, parameters: int) -> dict[str, Any]:
    """What `from_pretrained` is told about where the weights go: to `device`, or over all devices.

    device_map `auto` fills the GPUs, then the CPU, then leaves the rest on the disk; null means `device`, or else, for
    a model larger than one GPU, as many of them as there are. Raises StudioError when null leaves too little memory.
    """
    gpu = device.startswith("cuda")
    if model.device_map is None:
        needed = int(parameters * bytes_per_parameter(model, device, parameters))
        free = torch.cuda.mem_get_info(device)[0] if gpu else psutil.virtual_memory().available
        several = gpu and torch.cuda.device_count() > 1
        if needed <= free * (WEIGHTS_SHARE if several else 1):
            return {"device_map": {"": device}}
        if not several:
            raise out_of_memory(model, describe(model), needed, free)
        log.warning("One GPU is too small for %s, so its layers are spread over all of them.", describe(model))
    # A quantised layer computes where its weights are: bitsandbytes cannot leave some of them on another device.
    return {"device_map": "auto", "max_memory": room_for_weights(gpu, offload=model.quantization == "none")}


def room_for_weights(gpu: bool, *, offload: bool) -> dict[int | str, int]:
    """Bytes that weights may take on each device; the rest is for what is computed. offload: the CPU helps the GPUs."""
    free: dict[int | str, int] = {}
    if gpu:
        free |= {index: torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())}
    if offload or not gpu:
        free["cpu"] = psutil.virtual_memory().available
    return {name: int(size * WEIGHTS_SHARE) for name, size in free.items()}


def is_offloaded(model: PreTrainedModel) -> bool:
    """Whether some weights come to a device only while their layer computes.

    A training step without gradient checkpointing would hold all of them at once, until its backward pass.
    """
    return any(parameter.device.type == "meta" for parameter in model.parameters())


def describe(model: ModelPart) -> str:
    """The model as a sentence names it."""
    if model.id == "bundled":
        return "the bundled model"
    return f"the folder {model.id}" if os.sep in resolve(model) and Path(resolve(model)).is_absolute() else model.id
