"""The guess fits what people's files look like, and always is a template that renders."""

from __future__ import annotations

import pytest

from prefix_studio.data.mapping import guess_mapping
from prefix_studio.data.template import Template

OPENAI = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]


@pytest.mark.parametrize(
    ("columns", "prompt", "completion"),
    [
        (["prompt", "completion"], "{{ prompt }}", "{{ completion }}"),
        (["mr", "ref"], "{{ mr }}", "{{ ref }}"),
        (["label", "text"], "{{ text }}", "{{ label }}"),
        (["id", "Question", "Answer"], "{{ Question }}", "{{ Answer }}"),
        (["facts", "story"], "{{ facts }}", "{{ story }}"),
        (["What they asked", "What we said"], '{{ row["What they asked"] }}', '{{ row["What we said"] }}'),
        (
            ["instruction", "input", "output"],
            "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}",
            "{{ output }}",
        ),
        (
            ["context", "question", "answer"],
            "{% if context %}{{ context }}\n\n{% endif %}{{ question }}",
            "{{ answer }}",
        ),
        (["id", "name", "food", "text"], "name: {{ name }}\nfood: {{ food }}", "{{ text }}"),
        (["name", "description", "price"], "name: {{ name }}\nprice: {{ price }}", "{{ description }}"),
    ],
)
def test_prompt_and_completion(columns, prompt, completion):
    guess = guess_mapping(columns, [dict.fromkeys(columns, "x")])
    assert guess == {"format": "prompt-completion", "prompt": prompt, "completion": completion, "messages": None}
    for template in (prompt, completion):
        assert Template(template, columns, name="data.prompt").render(dict.fromkeys(columns, "x"), 1)


@pytest.mark.parametrize("columns", [["text"], ["id", "text"], ["lyrics"]])
def test_a_single_column_is_text(columns):
    guess = guess_mapping(columns, [dict.fromkeys(columns, "x")])
    assert guess["format"] == "text"
    assert guess["completion"] == f"{{{{ {columns[-1]} }}}}"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"id": 1, "messages": OPENAI}, "messages"),
        ({"conversations": SHAREGPT, "source": "web"}, "conversations"),
        ({"prompt": "x", "log": OPENAI}, "log"),
        ({"messages": '[{"role": "user", "content": "hi"}]'}, "messages"),
    ],
)
def test_chats_are_known_by_their_messages(row, column):
    guess = guess_mapping(list(row), [row])
    assert guess == {"format": "chat", "prompt": None, "completion": None, "messages": column}


def test_a_column_called_messages_that_holds_text_is_text():
    assert guess_mapping(["messages"], [{"messages": "just words"}])["format"] == "text"
