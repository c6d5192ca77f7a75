"""Tokens become text: whole characters, right spaces, and stop strings that never show."""

from __future__ import annotations

import pytest

from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.generation.text import Completion, RowText, complete, end_ids, overlap, stream_text
from prefix_studio.prefix.initialise import text_prefix

PROMPT = "Once there was a small"


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    eos_token_id = 256

    def decode(self, ids, **_options):
        return bytes(ids).decode("utf-8", errors="replace")


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], RowText]:
    row = RowText(Bytes(), list(b"prompt"), stop)
    given = []
    for token in text.encode():
        given.append(row.push(token))
        if row.stopped:
            break
    given.append(row.finish())
    return given, row


def test_half_characters_are_held_back():
    text = "Ca\u00f1\u00f3n \u2615 \U0001f600!"
    given, row = pieces(text)
    assert "".join(given) == text == row.text
    assert not any("\ufffd" in piece for piece in given)
    assert "\U0001f600" in given


def test_a_character_that_never_becomes_whole_is_given_at_the_end():
    row = RowText(Bytes(), [], ())
    assert row.push("\u2615".encode()[0]) == ""
    assert row.finish() == "\ufffd"


def test_a_stop_string_ends_the_text_and_never_shows():
    given, row = pieces("one two END three", ("END",))
    assert "".join(given) == "one two " == row.text
    assert row.stopped
    assert row.tokens == len("one two END")


def test_what_only_looked_like_a_stop_string_is_given_after_all():
    given, row = pieces("EN route to the EN", ("END",))
    assert "".join(given) == "EN route to the EN"
    assert given[:3] == ["", "", "EN "]
    assert not row.stopped


def test_the_first_of_several_stop_strings_wins():
    assert pieces("a;b.c", (".", ";"))[1].text == "a"


def test_overlap_is_the_longest_possible_beginning():
    assert overlap("aab", "abab") == 2
    assert overlap("abc", "x") == 0
    assert overlap("aaa", "aaaa") == 3


def test_streamed_pieces_make_the_decoded_text(bundled):
    model, tokenizer = bundled
    rows = [
        Row(tokenizer(PROMPT)["input_ids"], prefix, Sampling(24, temperature=1.0, seed=5))
        for prefix in (None, text_prefix(model, tokenizer, "A story about a boat."))
    ]
    texts, done = ["", ""], [None, None]
    for index, piece, completion in stream_text(model, tokenizer, rows):
        assert done[index] is None, "nothing comes after the end of a row"
        texts[index] += piece
        done[index] = completion
    assert [completion.text for completion in done] == texts
    assert all((completion.tokens == 24) == (completion.finish_reason == "length") for completion in done)
    assert complete(model, tokenizer, rows) == done


def test_a_row_alone_and_in_a_batch_gives_the_same_text(bundled):
    model, tokenizer = bundled
    rows = [
        Row(tokenizer(f"{PROMPT} {word}")["input_ids"], None, Sampling(10 + length))
        for length, word in enumerate(["boat", "old wooden boat", "a", "cat and a dog"])
    ]
    alone = [complete(model, tokenizer, [row])[0] for row in rows]
    assert complete(model, tokenizer, rows) == alone
    assert complete(model, tokenizer, rows, batch_size=3) == alone


def test_a_stop_string_frees_the_row_and_the_others_go_on(bundled):
    model, tokenizer = bundled
    ids = tokenizer(PROMPT)["input_ids"]
    (free,) = complete(model, tokenizer, [Row(ids, None, Sampling(30))], eos_ids=())
    stop = free.text[5:8]
    stopped, other = complete(
        model, tokenizer, [Row(ids, None, Sampling(30, stop=(stop,))), Row(ids, None, Sampling(30))], eos_ids=()
    )
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.tokens < 30
    assert other == free == Completion(free.text, 30, "length")


def test_an_end_token_counts_and_does_not_show(bundled):
    model, tokenizer = bundled
    ids = tokenizer(PROMPT)["input_ids"]
    written = [made[0][1] for made in generate(model, [Row(ids, None, Sampling(8))], eos_ids=())]
    end = written[3]
    (cut,) = complete(model, tokenizer, [Row(ids, None, Sampling(8))], eos_ids={end})
    before = written[: written.index(end)]
    assert cut == Completion(tokenizer.decode(before), len(before) + 1, "stop")


def test_rows_cut_short_keep_what_they_wrote(bundled):
    model, tokenizer = bundled
    ids = tokenizer(PROMPT)["input_ids"]
    answers = iter([False] * 4 + [True] * 9)
    (cut,) = complete(model, tokenizer, [Row(ids, None, Sampling(30))], eos_ids=(), should_stop=lambda: next(answers))
    assert cut.tokens == 4
    assert cut.finish_reason == "length"
    assert cut.text


@pytest.mark.parametrize("value", [7, [7, 8]])
def test_end_tokens_come_from_the_model_its_settings_and_the_tokenizer(bundled, monkeypatch, value):
    model, tokenizer = bundled
    monkeypatch.setattr(model.generation_config, "eos_token_id", value)
    assert end_ids(model, tokenizer) == {tokenizer.eos_token_id, 7, *([8] if isinstance(value, list) else [])}
