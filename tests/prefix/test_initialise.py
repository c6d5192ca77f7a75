"""Which tokens of a text become the prefix."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.prefix.initialise import text_ids, text_prefix


class Letters:
    """A tokenizer of letters, with a start token 1 and, if asked for, an end token 2."""

    bos_token_id, eos_token_id = 1, 2
    chat_template = None

    def __init__(self, ends: bool = False):
        self.ends = ends

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, *(ord(letter) for letter in text), *([2] if self.ends else [])]}


def test_a_shorter_text_is_repeated_after_one_start_token():
    assert text_ids(Letters(), "ab", 6) == [1, 97, 98, 97, 98, 97]


def test_a_longer_text_is_cut():
    assert text_ids(Letters(), "abcdef", 3) == [1, 97, 98]


def test_without_a_length_the_text_decides():
    assert text_ids(Letters(), "abc", None) == [1, 97, 98, 99]


def test_an_end_token_does_not_end_up_in_the_middle():
    assert text_ids(Letters(ends=True), "ab", 5) == [1, 97, 98, 97, 98]


def test_a_text_without_tokens_is_refused():
    with pytest.raises(StudioError, match="has no tokens"):
        text_ids(Letters(), "", 5)


def test_a_text_longer_than_the_model_is_refused(bundled):
    model, tokenizer = bundled
    with pytest.raises(StudioError, match="1024 positions in all"):
        text_prefix(model, tokenizer, "word " * 2000)


def test_a_chat_template_makes_it_a_system_message(bundled):
    model, tokenizer = bundled
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    plain = text_ids(tokenizer, "hello", None)
    try:
        tokenizer.chat_template = template
        chat = text_ids(tokenizer, "hello", None, use_chat_template=True)
        assert tokenizer.decode(chat) == "<system>hello"
        tokenizer.chat_template = "{{ raise_exception('no system role') }}"
        assert text_ids(tokenizer, "hello", None, use_chat_template=True) == plain
    finally:
        tokenizer.chat_template = None
