"""A recipe: everything that defines a run. The form, the command line, the API and the queue speak nothing else.

Field names are the ecosystem's: PEFT's `PrefixTuningConfig` for the prefix, `transformers.TrainingArguments` for
training. Every field has a default that works; only `data.source` is required. Unknown fields are refused by name.
Knows no files but the recipe's own, and no models: whether the model exists is the pre-flight check's business.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prefix_studio.errors import StudioError

# What learns well depends on the model.
BUNDLED_DEFAULTS: dict[str, dict[str, Any]] = {
    "prefix": {"num_virtual_tokens": 48},
    "training": {"num_train_epochs": 7, "per_device_train_batch_size": 8},
}
# By initialisation: learned directly, and through a projection. A tiny model wants several times an ordinary one's. A
# projection wants far less, the less the wider it is, because each number of the prefix moves with all its weights at
# once. From zeros without one, all virtual tokens are and stay alike; so few numbers bear larger steps.
LEARNING_RATES: dict[str, dict[str, tuple[float, float]]] = {
    "bundled": {"text": (0.2, 0.01), "random": (0.2, 0.015), "zero": (0.5, 0.01)},
    "other": {"text": (0.03, 0.001), "random": (0.03, 0.001), "zero": (0.03, 0.001)},
}
DEFAULT_INIT_TEXT = "Question: "


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelPart(Part):
    """The base model. id: `bundled`, a Hub id, or a folder.

    device_map: `auto` spreads a model that is larger than one GPU over all of them, and the rest over the CPU.
    """

    id: str = Field("bundled", min_length=1, max_length=4096)
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    device_map: Literal["auto"] | None = None


class DataPart(Part):
    """The rows and how each becomes a prompt and a completion.

    source: a path, `sample:NAME`, or `hub:OWNER/NAME[:CONFIG[:SPLIT]]`.
    prompt, completion: Jinja templates over the columns; null means guessed from the columns.
    messages: the column of a chat; null means guessed. Format `text` learns from `completion` alone.
    validation: a share of the rows (below 1), a count of rows, or the path of a second file; 0 holds none back.
    max_length: tokens of prompt and completion together; longer rows are dropped and reported.
    """

    source: str = Field(min_length=1, max_length=4096)
    format: Literal["prompt-completion", "chat", "text"] = "prompt-completion"
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    validation: float | int | str = 0.1
    max_length: int = Field(512, ge=8, le=1_000_000)

    @field_validator("validation")
    @classmethod
    def share_count_or_path(cls, value: float | int | str) -> float | int | str:
        if isinstance(value, bool) or (isinstance(value, int | float) and value < 0):
            raise ValueError("must be a share between 0 and 1, a number of rows, or a path")
        if isinstance(value, float) and value >= 1:
            if value != int(value):
                raise ValueError("must be a share between 0 and 1, a number of rows, or a path")
            return int(value)
        return value


class PrefixPart(Part):
    """The prefix, in PEFT's names.

    num_virtual_tokens: prefix length m; null with `init: text` means as long as the text.
    init: `text` starts from the keys and values of `init_text`, `random` from N(0, 1) as PEFT does, `zero` from zeros.
    prefix_projection: learn the prefix through a two-layer MLP (Li and Liang, section 4.3).
    encoder_hidden_size: the MLP's width; null means PEFT's default, or the prefix length where that is larger.
    num_frozen_tokens: the first virtual tokens stay as they started; 1 keeps the attention sink of a text (Cartridges,
        2506.06266, section 4).
    use_chat_template: the initial text stands as a system message, where the model's chat template has one.
    submodules: for encoder-decoder models, a prefix for the `decoder`'s own attention, which stock PEFT loads, or `all`
        three of the paper's (section 4.2): encoder, decoder, and the decoder's attention to the encoder.
    """

    num_virtual_tokens: int | None = Field(20, ge=1, le=4096)
    init: Literal["text", "random", "zero"] = "text"
    init_text: str = Field(DEFAULT_INIT_TEXT, max_length=100_000)
    prefix_projection: bool = False
    encoder_hidden_size: int | None = Field(None, ge=1, le=65536)
    num_frozen_tokens: int = Field(0, ge=0, le=4096)
    use_chat_template: bool = False
    submodules: Literal["decoder", "all"] = "decoder"

    @model_validator(mode="after")
    def initialisation_is_possible(self) -> PrefixPart:
        if self.init == "text" and not self.init_text.strip():
            raise ValueError("init_text is empty, but init is text: write a text, or choose random or zero")
        if self.init != "text" and self.num_virtual_tokens is None:
            raise ValueError("num_virtual_tokens is null, which only init: text can fill: give a number")
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ValueError("encoder_hidden_size is set, but prefix_projection is false: turn it on, or leave it out")
        narrow = self.encoder_hidden_size is not None and self.encoder_hidden_size < (self.num_virtual_tokens or 0)
        if narrow and self.init == "text":
            raise ValueError(
                f"encoder_hidden_size {self.encoder_hidden_size} is below num_virtual_tokens "
                f"{self.num_virtual_tokens}: text initialisation through the projection needs it at least as wide"
            )
        if self.num_virtual_tokens is not None and self.num_frozen_tokens >= self.num_virtual_tokens:
            raise ValueError(
                f"num_frozen_tokens {self.num_frozen_tokens} leaves none of the {self.num_virtual_tokens} virtual "
                "tokens to learn: lower it, 1 is enough to keep the attention sink"
            )
        return self


class TrainingPart(Part):
    """How the prefix is trained, in TrainingArguments' names.

    max_steps wins over num_train_epochs. learning_rate: null means what fits the model and the prefix's start; in a
    Recipe the number has taken its place. warmup_steps below 1 is a share of all steps.
    eval_steps, save_steps: optimizer steps; null means about ten evaluations a run, and a checkpoint a minute.
    early_stopping_patience: evaluations without a better eval_loss before stopping; null means never.
    loss_average: every `token` counts alike, or every `example`, however long.
    auto_find_batch_size: where memory is too small, go on with half the batch and twice the accumulation.
    """

    num_train_epochs: float = Field(5, gt=0, le=100_000)
    max_steps: int | None = Field(None, ge=1, le=100_000_000)
    per_device_train_batch_size: int = Field(16, ge=1, le=65536)
    per_device_eval_batch_size: int = Field(16, ge=1, le=65536)
    gradient_accumulation_steps: int = Field(1, ge=1, le=65536)
    learning_rate: float | None = Field(None, gt=0, le=1000)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: float = Field(0.05, ge=0)
    weight_decay: float = Field(0.0, ge=0, le=10)
    max_grad_norm: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0, lt=2**32)
    eval_steps: int | None = Field(None, ge=1)
    save_steps: int | None = Field(None, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    gradient_checkpointing: bool = False
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1)
    loss_average: Literal["token", "example"] = "token"
    auto_find_batch_size: bool = True


class EvaluationPart(Part):
    """metrics: what is computed on the validation rows. samples: validation rows written out at the end."""

    metrics: list[Literal["loss", "exact_match", "bleu"]] = ["loss"]
    samples: int = Field(8, ge=0, le=10_000)
    max_new_tokens: int = Field(128, ge=1, le=100_000)


class Recipe(Part):
    """Everything that defines a run."""

    name: str = Field("", max_length=200)
    model: ModelPart = ModelPart()
    data: DataPart
    prefix: PrefixPart = PrefixPart()
    training: TrainingPart = TrainingPart()
    evaluation: EvaluationPart = EvaluationPart()

    @model_validator(mode="before")
    @classmethod
    def fill_in_the_models_defaults(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        model = fields.get("model") or {}
        if not isinstance(model, dict) or model.get("id", "bundled") != "bundled":
            return fields
        filled = dict(fields)
        for part, defaults in BUNDLED_DEFAULTS.items():
            given = filled.get(part)
            if given is None or isinstance(given, dict):
                filled[part] = {**defaults, **(given or {})}
        return filled

    @model_validator(mode="after")
    def fill_in_the_learning_rate(self) -> Recipe:
        if self.training.learning_rate is None:
            rate = default_learning_rate(self.model.id, self.prefix)
            self.training = self.training.model_copy(update={"learning_rate": rate})
        return self

    @classmethod
    def from_fields(cls, fields: Any) -> Recipe:
        """A recipe from plain data. Raises StudioError that names every wrong field."""
        if not isinstance(fields, dict):
            raise StudioError(
                "The recipe is not a mapping of fields.", "Start with `data:` and, under it, `source: rows.csv`."
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise StudioError(f"The recipe is not valid: {'; '.join(map(describe, error.errors()))}.") from error

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """A recipe from YAML text. Raises StudioError with the line where the YAML breaks."""
        try:
            fields = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            raise StudioError(f"The recipe is not YAML: {where}{getattr(error, 'problem', error)}.") from error
        return cls.from_fields(fields)

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """The recipe in a file; relative paths inside are looked for beside it, then in the working directory."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise StudioError(f"The recipe {path} is not UTF-8 text (byte {error.start}).") from error
        except OSError as error:
            raise StudioError(f"The recipe {path} cannot be read: {error.strerror}.", "Check the path.") from error
        return cls.from_yaml(text).anchored(path.parent)

    def anchored(self, folder: Path) -> Recipe:
        """The same recipe with the relative paths that exist under `folder` made absolute."""

        def anchor(value: Any) -> Any:
            if not isinstance(value, str) or value == "bundled" or value.startswith(("sample:", "hub:")):
                return value
            path = Path(value).expanduser()
            for candidate in (folder / path, path):
                if candidate.exists():
                    return str(candidate.resolve())
            return value

        data = {"source": anchor(self.data.source), "validation": anchor(self.data.validation)}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update={"id": anchor(self.model.id)}),
                "data": self.data.model_copy(update=data),
            }
        )

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def default_learning_rate(model_id: str, prefix: PrefixPart) -> float:
    """The learning rate that a recipe without one gets."""
    plain, projected = LEARNING_RATES.get(model_id, LEARNING_RATES["other"])[prefix.init]
    return projected if prefix.prefix_projection else plain


def describe(problem: Any) -> str:
    """One pydantic error as `part.field: what is wrong`."""
    *parents, name = problem["loc"] or ("recipe",)
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    if problem["type"] == "extra_forbidden":
        known = known_fields([str(parent) for parent in parents])
        close = difflib.get_close_matches(str(name), known, 1)
        advice = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        return f"{where} is not a field ({advice})"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {message[0].lower()}{message[1:]}, not {shorten(problem['input'])}"


def known_fields(parents: list[str]) -> list[str]:
    part: type[BaseModel] = Recipe
    for parent in parents:
        part = part.model_fields[parent].annotation  # type: ignore[assignment]
    return list(part.model_fields)


def shorten(value: Any, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
