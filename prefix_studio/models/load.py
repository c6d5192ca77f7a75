"""A base model by its name: the bundled one, a folder, or a Hub id becomes a frozen model and its tokenizer.

Safetensors only, no code from the model's folder, weights never changed: `load_model` returns an eval-mode model
whose parameters ask for no gradients. Knows models, not prefixes; what the Hub does is `models.hub`'s business.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from prefix_studio.errors import StudioError
from prefix_studio.models import hub
from prefix_studio.models.weights import count_parameters, no_safetensors, weight_files
from prefix_studio.recipe import ModelPart
from prefix_studio.settings import BUNDLED_MODEL

# Heads that do not write text, though their family's mapping may know a class that could.
NOT_WRITERS = re.compile(
    r"For(MaskedLM|PreTraining|(Sequence|Token|Image)Classification|QuestionAnswering|MultipleChoice)$"
)
SMALL_MODEL = 1_000_000_000  # parameters; below it float32 on a CPU costs little and is exact


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

    Downloads what is missing. Raises StudioError: no such folder or model, gated, offline, no config.json, no
    safetensors weights.
    """
    name = resolve(model)
    folder = Path(name)
    if not folder.is_absolute():
        folder = (hub.fetch_weights if weights else hub.fetch_description)(name, model.revision)
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
    except (ValueError, KeyError, OSError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise StudioError(
                f"There is code of its own in {describe(model)}, which is not run here.",
                "Choose a model whose architecture transformers knows.",
                "model",
            ) from error
        raise StudioError(
            f"The configuration of {describe(model)} cannot be used: {first_sentence(error)}",
            "Choose another model; a newer transformers may know this one.",
            "model",
        ) from error


def model_class(config: PretrainedConfig, name: str) -> type:
    """The auto class that writes text with this configuration. Raises StudioError when there is none."""
    heads = config.architectures or []
    if not any(NOT_WRITERS.search(head) for head in heads):
        for auto in (AutoModelForSeq2SeqLM, AutoModelForCausalLM):
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
        reason = "" if not any((folder / file).is_file() for file in hub.TOKENIZER_FILES) else first_sentence(error)
        raise StudioError(
            f"There is no usable tokenizer in {describe(model)}{': ' + reason if reason else '.'}",
            "A model folder needs its tokenizer.json beside config.json.",
            "model",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: ModelPart, device: str = "cpu") -> PreTrainedModel:
    """The frozen base model on `device`, in evaluation mode.

    dtype `auto`: bfloat16 where the hardware computes in it (GPUs; CPUs only for models of a billion parameters or
    more), otherwise float32. Raises StudioError when the weights are missing, damaged or do not fit the configuration.
    """
    if model.quantization != "none":
        raise StudioError(f"model.quantization {model.quantization} is not supported yet.", "Set it to none.", "model")
    config = load_config(model)
    auto = model_class(config, describe(model))
    folder = locate(model, weights=True)
    dtype = choose_dtype(model, device, count_parameters(folder))
    # Logs are read by their last line, which should be a sentence; no variable turns this bar off.
    disable_progress_bar()
    try:
        loaded, notes = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if "out of memory" in str(error).lower() or "can't allocate" in str(error).lower():
            raise out_of_memory(model) from error
        raise StudioError(
            f"The weights of {describe(model)} cannot be read: {first_sentence(error)}",
            "Download or copy the model again.",
            "model",
        ) from error
    except MemoryError as error:
        raise out_of_memory(model) from error
    absent = sorted(notes["missing_keys"])
    if absent:
        raise StudioError(
            f"The weights of {describe(model)} are incomplete: {len(absent)} tensors are missing, such as {absent[0]}.",
            "Choose a complete text generation model.",
            "model",
        )
    try:
        return loaded.to(device).eval().requires_grad_(False)
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(model) from error


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


def out_of_memory(model: ModelPart) -> StudioError:
    return StudioError(
        f"This machine's memory is too small for {describe(model)}.",
        "Choose a smaller model, or a smaller dtype such as bfloat16.",
        "memory",
    )


def describe(model: ModelPart) -> str:
    """The model as a sentence names it."""
    if model.id == "bundled":
        return "the bundled model"
    return f"the folder {model.id}" if os.sep in resolve(model) and Path(resolve(model)).is_absolute() else model.id


def first_sentence(error: BaseException) -> str:
    """The first line of a library's message, kept short; the whole stands in the log as the cause."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else line[:199] + "…"
