"""Chats: one shape for what files call messages, and the text that a model's chat template makes of them.

Files write {"role", "content"} (OpenAI's) or {"from", "value"} (ShareGPT's), as lists or as JSON text; here a message
is always {"role": system | user | assistant | tool, "content": str}, with what tools need besides. A model without a
chat template gets plain "User: ...\\nAssistant:" lines. Knows tokenizers only as owners of a template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from prefix_studio.errors import StudioError

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("user", "human", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "agent"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
TOOL_FIELDS = ("tool_calls", "tool_call_id", "name")
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


class Malformed(ValueError):
    """A cell is not a chat that can be learned from; the text says why."""


def read_chat(value: Any) -> list[Message]:
    """A cell's messages up to the last assistant turn; what follows it has no answer to learn.

    Raises Malformed when the cell is no list of messages, or no assistant answers in it.
    """
    messages = read_messages(value)
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise Malformed("no assistant turn to learn")
    messages = messages[: answers[-1] + 1]
    if len(messages) == 1:
        raise Malformed("no message before the assistant's turn")
    if not messages[-1]["content"].strip():
        raise Malformed("the last assistant turn is empty")
    return messages


def read_messages(value: Any) -> list[Message]:
    """Messages in either dialect, as a list or as JSON text. Raises Malformed."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Malformed(
                f"the messages are neither a list nor JSON ({error.msg} at character {error.pos})"
            ) from error
    if not isinstance(value, list) or not value:
        raise Malformed("the messages are not a list, or an empty one")
    return [read_message(message, number) for number, message in enumerate(value, start=1)]


def read_message(message: Any, number: int) -> Message:
    if not isinstance(message, dict):
        raise Malformed(f"message {number} is not an object")
    name = message.get("role", message.get("from"))
    if name is None:
        raise Malformed(f"message {number} has neither role nor from")
    role = ROLES.get(str(name).lower())
    if role is None:
        raise Malformed(f"message {number} has the unknown role {str(name)!r}")
    tools = {field: message[field] for field in TOOL_FIELDS if message.get(field) is not None}
    return {"role": role, "content": content_text(message, number), **tools}


def content_text(message: dict[str, Any], number: int) -> str:
    content = message.get("content", message.get("value"))
    if isinstance(content, list):  # OpenAI's parts
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise Malformed(f"message {number} holds a part that is not text")
        return "".join(parts)
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, str):
        raise Malformed(f"message {number} has no text")
    return content


def transcript(messages: Sequence[Message]) -> str:
    """For people: a single question as it stands, anything longer with its speakers."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in messages)


def render_chat(messages: Sequence[Message], tokenizer: Any, *, generate: bool) -> str:
    """The text the model sees, ending where the assistant is to speak when `generate` is set.

    Where the template refuses a system message, its text goes in front of the first user message.
    Raises StudioError (category data) with the template's own words when it refuses the chat all the same.
    """
    return rendered(messages, tokenizer, generate)[0]


def template_messages(messages: Sequence[Message], tokenizer: Any) -> list[Message]:
    """The messages in the form the model's template takes. Raises StudioError when it takes none."""
    return rendered(messages, tokenizer, False)[1]


def rendered(messages: Sequence[Message], tokenizer: Any, generate: bool) -> tuple[str, list[Message]]:
    refusal = None
    for candidate in (list(messages), without_system(messages)):
        try:
            return render(candidate, tokenizer, generate), candidate
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            refusal = refusal or error
    raise StudioError(
        f"The model's chat template refuses this chat: {str(refusal).rstrip('.')}.",
        "Let user and assistant take turns, starting with the user.",
        "data",
    ) from refusal


def render(messages: list[Message], tokenizer: Any, generate: bool) -> str:
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
    end = tokenizer.eos_token or ""
    turns = [
        f"{SPEAKERS[message['role']]}: {message['content']}{end if message['role'] == 'assistant' else ''}"
        for message in messages
    ]
    return "\n".join([*turns, "Assistant:"] if generate else turns)


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same chat with the system's text in front of the first user message."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [dict(message) for message in messages if message["role"] != "system"]
    first = next((message for message in others if message["role"] == "user"), None)
    if system and first is not None:
        first["content"] = f"{system}\n\n{first['content']}"
    return others
