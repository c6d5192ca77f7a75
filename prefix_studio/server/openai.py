"""The server in OpenAI's dialect: /v1/models, /v1/completions, /v1/chat/completions, answers whole or streamed.

Base models and adapters are models by name. Errors have OpenAI's shape and status codes.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from prefix_studio.errors import StudioError
from prefix_studio.server.engine import Engine, Piece, Prompt
from prefix_studio.server.names import Names, Served, find
from prefix_studio.server.openai_schema import ChatRequest, CompletionRequest
from prefix_studio.server.openai_schema import Request as AnyRequest
from prefix_studio.server.streams import begun, collect, follow
from prefix_studio.server.worker import Busy

# Whose fault a StudioError is: 400 the request's, 503 this machine's at the moment, 500 the program's.
STATUS = {"input": 400, "data": 400, "model": 400, "memory": 503, "network": 503, "disk": 503, "interrupted": 503}

Choice = Callable[[int, str, str | None], dict[str, Any]]


class Refusal(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(self, status: int, message: str, kind: str, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def answer(self) -> JSONResponse:
        return JSONResponse(self.body, self.status)


def refusal_of(error: Exception) -> Refusal:
    """Any error as OpenAI would put it; what is not meant for people is not shown to them."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Busy):
        return Refusal(429, str(error), "rate_limit_error", "rate_limit_exceeded")
    if isinstance(error, StudioError):
        status = STATUS.get(error.category, 500)
        return Refusal(status, str(error), "invalid_request_error" if status == 400 else "server_error")
    return Refusal(500, "The server failed; its log says where.", "server_error")


def openai_routes(engine: Engine, names: Names) -> APIRouter:
    router = APIRouter(prefix="/v1")

    def model_named(name: str) -> Served:
        served = find(names, name)
        if served is None:
            raise Refusal(
                404, f"The model {name!r} does not exist: GET /v1/models lists those that do.", "invalid_request_error",
                "model_not_found", "model",
            )  # fmt: skip
        return served

    async def answer(
        http: Request, asked: AnyRequest, prompts: list[Prompt], max_new_tokens: int, form: type[Form]
    ) -> Response:
        served = model_named(asked.model)
        samplings = [asked.sampling(max_new_tokens, index) for index in range(len(prompts))]
        work = engine.complete(served.model, served.adapter, prompts, samplings)
        reply = form(asked.model)
        if asked.stream:
            pieces = await begun(follow(http, engine.worker, work))
            lines = reply.stream(pieces, len(prompts), asked.stream_options.include_usage)
            return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        return JSONResponse(reply.whole(await collect(http, engine.worker, work)))

    @router.get("/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(served) for served in names.all()]}

    @router.get("/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        return model_card(model_named(name))

    @router.post("/completions")
    async def completions(asked: CompletionRequest, http: Request) -> Response:
        return await answer(http, asked, list(asked.prompt), asked.max_tokens, TextForm)

    @router.post("/chat/completions")
    async def chat_completions(asked: ChatRequest, http: Request) -> Response:
        return await answer(http, asked, [asked.messages], asked.max_completion_tokens, ChatForm)

    return router


def model_card(served: Served) -> dict[str, Any]:
    """`root` and `parent` as other open servers give them: an adapter's parent is its base."""
    parent = served.model.id if served.adapter else None
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "prefix-studio",
        "root": parent or served.name,
        "parent": parent,
    }


class Form:
    """One answer in OpenAI's shape. Subclasses say how a choice looks."""

    id_prefix = ""
    object = ""
    chunk_object = ""

    def __init__(self, model: str):
        self.head = {"id": f"{self.id_prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        raise NotImplementedError

    def first_chunks(self, prompts: int) -> Iterable[dict[str, Any]]:
        """Choices that go before any text."""
        return ()

    def chunk(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        raise NotImplementedError

    def whole(self, pieces: list[Piece]) -> dict[str, Any]:
        ends = sorted((piece for piece in pieces if piece.done), key=lambda piece: piece.index)
        choices = [self.choice(end.index, end.done.text, end.done.finish_reason) for end in ends]
        return {**self.head, "object": self.object, "choices": choices, "usage": usage(ends)}

    async def stream(self, pieces: AsyncIterator[Piece], prompts: int, with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events. An error on the way is the last of them: the status code has long been sent."""

        def event(choices: list[dict[str, Any]], total: dict[str, int] | None = None) -> str:
            chunk = {**self.head, "object": self.chunk_object, "choices": choices}
            return server_sent(chunk | {"usage": total} if with_usage else chunk)

        ends = []
        for choice in self.first_chunks(prompts):
            yield event([choice])
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if piece.text:
                        yield event([self.chunk(piece.index, piece.text, None)])
                    if piece.done:
                        ends.append(piece)
                        yield event([self.chunk(piece.index, "", piece.done.finish_reason)])
        except Exception as error:
            yield server_sent(refusal_of(error).body)
            if not isinstance(error, StudioError):
                raise
            return
        if with_usage:
            yield event([], usage(ends))
        yield "data: [DONE]\n\n"


class TextForm(Form):
    id_prefix = "cmpl"
    object = chunk_object = "text_completion"

    def choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    chunk = choice


class ChatForm(Form):
    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}

    def first_chunks(self, prompts: int) -> Iterable[dict[str, Any]]:
        opening = {"role": "assistant", "content": ""}
        return [{"index": n, "delta": opening, "logprobs": None, "finish_reason": None} for n in range(prompts)]

    def chunk(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        delta = {} if finish_reason else {"content": text}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def usage(ends: Iterable[Piece]) -> dict[str, int]:
    ends = list(ends)
    prompt, written = sum(end.prompt_tokens for end in ends), sum(end.done.tokens for end in ends)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def server_sent(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
