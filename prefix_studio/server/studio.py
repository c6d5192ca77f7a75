"""What the page asks of the model process: compare, check, preview, inspect, estimate, prompts to try.

Only for whoever holds the studio's token. Adapters are read from the studio's home alone: whoever may use the page
need not be allowed to read other folders.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from prefix_studio.data.chat import Malformed, read_messages
from prefix_studio.data.examples import load_examples
from prefix_studio.data.preview import inspect_source, preview
from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Sampling
from prefix_studio.models.check import check_model
from prefix_studio.models.load import fingerprint, load_config, load_tokenizer
from prefix_studio.recipe import ModelPart, Recipe
from prefix_studio.server.engine import Engine, Prompt
from prefix_studio.server.streams import begun, collect, follow
from prefix_studio.settings import Settings
from prefix_studio.training.evaluate import one_a_prompt


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CompareRequest(Asked):
    """Either prompt or messages."""

    model: ModelPart = ModelPart()
    adapters: list[str] = []
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    init_text: str | None = None
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def what_to_answer(self) -> Prompt:
        if self.messages is not None:
            try:
                return read_messages(self.messages)
            except Malformed as error:
                raise StudioError(f"The chat cannot be read: {error}.") from error
        if self.prompt is None:
            raise StudioError("There is neither a prompt nor messages.", "Write something for the model to go on from.")
        return self.prompt

    def sampling(self) -> Sampling:
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, seed=self.seed)


class RecipeRequest(Asked):
    """A recipe's fields; for the check, those of the data may be missing."""

    recipe: dict[str, Any]


class PromptsRequest(RecipeRequest):
    count: int = Field(20, ge=1, le=1000)


class SourceRequest(Asked):
    source: str


class Tokenizers:
    """Tokenizers for previews, apart from those that generate: one of them must not serve two threads at once."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._newest: tuple[str, Any] | None = None

    def get(self, model: ModelPart) -> Any:
        """The model's tokenizer, to be used while holding `lock`."""
        key = fingerprint(model)
        if self._newest is None or self._newest[0] != key:
            self._newest = (key, load_tokenizer(model))
        return self._newest[1]


def studio_routes(engine: Engine, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/studio")
    tokenizers = Tokenizers()

    @router.post("/compare")
    async def compare(asked: CompareRequest, http: Request) -> StreamingResponse:
        for adapter in asked.adapters:
            refuse_outside(settings, adapter)
        work = engine.compare(asked.model, asked.adapters, asked.what_to_answer(), asked.init_text, asked.sampling())
        events = await begun(follow(http, engine.worker, work))
        return StreamingResponse(json_lines(events), media_type="application/x-ndjson")

    @router.post("/check")
    def check(asked: RecipeRequest) -> dict[str, Any]:
        recipe = Recipe.from_fields({"data": {"source": "sample:restaurants"}, **asked.recipe})
        answer = check_model(
            recipe.model,
            recipe.prefix,
            batch_size=recipe.training.per_device_train_batch_size,
            max_length=recipe.data.max_length,
            gradient_checkpointing=recipe.training.gradient_checkpointing,
        )
        return answer | layers_of(recipe.model)

    @router.post("/preview")
    def preview_recipe(asked: RecipeRequest) -> dict[str, Any]:
        recipe = Recipe.from_fields(asked.recipe)
        with tokenizers.lock:
            both = load_config(recipe.model).is_encoder_decoder
            return preview(recipe, tokenizers.get(recipe.model), encoder_decoder=both)

    @router.post("/inspect")
    def inspect(asked: SourceRequest) -> dict[str, Any]:
        return inspect_source(asked.source)

    @router.post("/estimate")
    async def estimate(asked: RecipeRequest, http: Request) -> dict[str, Any]:
        answers = await collect(http, engine.worker, engine.estimate(Recipe.from_fields(asked.recipe)))
        return answers[0] if answers else {}  # nothing only when the client has gone

    @router.post("/validation-prompts")
    def validation_prompts(asked: PromptsRequest) -> list[dict[str, Any]]:
        held_back = load_examples(Recipe.from_fields(asked.recipe).data).validation
        return [
            {
                "prompt": example.prompt,
                "reference": example.completion,
                "messages": example.messages and example.messages[:-1],
            }
            for example in one_a_prompt(held_back)[: asked.count]
        ]

    return router


def layers_of(model: ModelPart) -> dict[str, Any]:
    """{"num_layers": those of the text model, or of its decoder; "encoder_decoder": whether it has an encoder too}"""
    config = load_config(model)
    text = config.get_text_config(decoder=True)
    names = ("num_decoder_layers", "num_hidden_layers")  # T5 counts its decoder's layers apart
    layers = next((getattr(text, name) for name in names if getattr(text, name, None)), None)
    return {"num_layers": layers, "encoder_decoder": config.is_encoder_decoder}


def refuse_outside(settings: Settings, adapter: str) -> None:
    """Raises StudioError for an adapter that is not in the studio's home."""
    folder = Path(adapter).resolve()
    if not any(folder.is_relative_to(shelf.resolve()) for shelf in (settings.runs, settings.adapters)):
        raise StudioError(
            f"The adapter {adapter} is not one of this studio's.", "Import its zip on the Adapters tab first."
        )


async def json_lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """One JSON object a line; an error on the way is the last line."""
    try:
        async with aclosing(events):
            async for event in events:
                yield json.dumps(event, ensure_ascii=False) + "\n"
    except Exception as error:
        yield json.dumps({"error": error_fields(error)}, ensure_ascii=False) + "\n"
        if not isinstance(error, StudioError):
            raise


def error_fields(error: Exception) -> dict[str, str]:
    """An error as the page gets it; what is not meant for people is not shown to them."""
    if isinstance(error, StudioError):
        return {"message": error.message, "hint": error.hint, "category": error.category}
    return {
        "message": f"The model process failed ({type(error).__name__}).",
        "hint": "server.log in the studio's home says where.",
        "category": "internal",
    }
