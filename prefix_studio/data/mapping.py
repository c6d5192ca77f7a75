"""Which column is the prompt and which the completion: a guess from names and values, for a person to correct.

Knows column names and a few rows; no files, no tokenizers. What it returns are recipe fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prefix_studio.data.template import written_column

Guess = dict[str, str | None]

CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat", "dialog", "dialogue", "turns")
# (prompt, completion), likeliest first; names are compared in lower case
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("question", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("mr", "ref"),
    ("meaning_representation", "human_reference"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("text", "label"),
    ("sentence", "label"),
    ("review", "label"),
    ("review", "sentiment"),
    ("text", "sentiment"),
    ("text", "category"),
    ("text", "intent"),
    ("user", "assistant"),
)
COMPLETIONS = frozenset(
    "completion response output answer target ref reference summary label sentiment category intent class reply text"
    " description".split()
)
CONTEXTS = ("context", "passage", "input")  # printed with the prompt where they are filled
BOOKKEEPING = frozenset("id idx index uuid guid url link timestamp date split source_id column_1".split())


def guess_mapping(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Guess:
    """The recipe fields {"format", "prompt", "completion", "messages"} that fit these columns best.

    rows: the first few; they tell a chat from a text. Templates that the format does not use are None.
    """
    chat = chat_column(columns, rows)
    if chat is not None:
        return {"format": "chat", "prompt": None, "completion": None, "messages": chat}
    by_name = {column.lower().strip(): column for column in reversed(columns)}
    for prompt, completion in PAIRS:
        if prompt in by_name and completion in by_name:
            context = next((by_name[name] for name in CONTEXTS if name in by_name and name != prompt), None)
            return pair(prompt_with(by_name[prompt], context, prompt), written_column(by_name[completion]))
    telling = [column for column in columns if column.lower().strip() not in BOOKKEEPING] or list(columns)
    if len(telling) == 1:
        return {"format": "text", "prompt": None, "completion": written_column(telling[0]), "messages": None}
    completion = telling[-1]
    if len(telling) > 2 and completion.lower() not in COMPLETIONS:
        completion = next((column for column in telling if column.lower() in COMPLETIONS), completion)
    return pair(described([column for column in telling if column != completion]), written_column(completion))


def chat_column(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column whose cells hold lists of messages; a known name first."""
    named = [column for column in columns if column.lower().strip() in CHAT_COLUMNS]
    for column in [*named, *columns]:
        values = [row[column] for row in rows if row.get(column) not in (None, "")]
        if values and looks_like_chat(values[0]):
            return column
    return None


def looks_like_chat(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return False
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return {"role", "content"} <= value[0].keys() or {"from", "value"} <= value[0].keys()


def prompt_with(prompt: str, context: str | None, name: str) -> str:
    """The prompt's template; an instruction stands before its input, a question after its context."""
    if context is None:
        return written_column(prompt)
    column = written_column(context)
    condition = column.removeprefix("{{ ").removesuffix(" }}")
    if name == "question":
        return f"{{% if {condition} %}}{column}\n\n{{% endif %}}{written_column(prompt)}"
    return f"{written_column(prompt)}{{% if {condition} %}}\n\n{column}{{% endif %}}"


def described(columns: Sequence[str]) -> str:
    """One column as it is; several as lines of `name: value`."""
    if len(columns) == 1:
        return written_column(columns[0])
    return "\n".join(f"{column.replace('{', '(')}: {written_column(column)}" for column in columns)


def pair(prompt: str, completion: str) -> Guess:
    return {"format": "prompt-completion", "prompt": prompt, "completion": completion, "messages": None}
