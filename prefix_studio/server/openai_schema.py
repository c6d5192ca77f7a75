"""OpenAI's requests as this server takes them: what is honoured, what is ignored, what is refused by name.

Honoured: model, prompt or messages, max_tokens (max_completion_tokens), temperature, top_p, stop, seed, stream,
stream_options.include_usage; and top_k and repetition_penalty, which other open servers know too. Ignored: who is
asking. Everything else must be absent or at its neutral value, so that nobody gets another answer than asked for.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prefix_studio.data.chat import Malformed, read_messages
from prefix_studio.generation.engine import Sampling

COMPLETION_TOKENS = 16  # OpenAI's default for completions
CHAT_TOKENS = 512  # OpenAI has no limit there; a small model that does not stop should not run on for ever
MAX_PROMPTS = 64
MAX_STOPS = 4

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "suffix": ("",),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "reasoning_effort": ("none",),
    "store": (False,),
}
IGNORED = {"user", "metadata", "safety_identifier", "prompt_cache_key"}


class StreamOptions(BaseModel):
    include_usage: bool = False


class Request(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    stop: list[str] = Field([], max_length=MAX_STOPS)
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @model_validator(mode="before")
    @classmethod
    def leave_out_what_says_nothing(cls, fields: Any) -> Any:
        """Drops nulls and neutral values, refuses what this server does not do, and makes a single stop a list."""
        if not isinstance(fields, dict):
            return fields
        kept = {}
        for name, value in fields.items():
            if value is None or name in IGNORED:
                continue
            if name not in NEUTRAL:
                kept[name] = value
            elif not any(value == neutral and type(value) is type(neutral) for neutral in neutrals(name)):
                raise ValueError(f"{name} is not supported: leave it out")
        if isinstance(kept.get("stop"), str):
            kept["stop"] = [kept["stop"]]
        return kept

    def sampling(self, max_new_tokens: int, index: int = 0) -> Sampling:
        """Settings of the request's row `index`. Without a seed every answer is another one, as OpenAI's."""
        seed = secrets.randbits(62) if self.seed is None else self.seed + index
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            stop=tuple(self.stop),
            seed=seed % 2**63,
        )


class CompletionRequest(Request):
    prompt: list[str] = Field(min_length=1, max_length=MAX_PROMPTS)
    max_tokens: int = Field(COMPLETION_TOKENS, ge=1)

    @model_validator(mode="before")
    @classmethod
    def one_prompt_is_a_list_of_one(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(fields.get("prompt"), str):
            return {**fields, "prompt": [fields["prompt"]]}
        return fields


class ChatRequest(Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int = Field(CHAT_TOKENS, ge=1)

    @model_validator(mode="before")
    @classmethod
    def max_tokens_is_the_old_name(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("max_tokens") is not None:
            return {"max_completion_tokens": fields["max_tokens"]} | {
                name: value for name, value in fields.items() if name != "max_tokens"
            }
        return fields

    @model_validator(mode="after")
    def messages_are_text(self) -> ChatRequest:
        try:
            self.messages = read_messages(self.messages)
        except Malformed as error:
            raise ValueError(str(error)) from error
        return self


def neutrals(name: str) -> tuple[Any, ...]:
    """Neutral values, numbers in both types."""
    numbers = [value for value in NEUTRAL[name] if type(value) is int]
    return (*NEUTRAL[name], *map(float, numbers))
