"""Tokens become text as they are made, a row at a time, and stop strings end a row.

Between the engine, which knows ids only, and whoever shows text. Never gives half a character, nor the beginning of
what may become a stop string. Knows a tokenizer; knows no server and no page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedModel

from prefix_studio.generation.engine import Row, generate, room

HALF = "\ufffd"  # what a tokenizer gives for bytes that are no whole character yet
CONTEXT = 6  # prompt tokens decoded along, because the first new token's leading space depends on what is before it


class Completion(NamedTuple):
    """What a row wrote: its text, how many tokens the model made for it (the end token too), and why it ended."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]


class RowText:
    """One row's text so far."""

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int], stop: tuple[str, ...]):
        self.tokenizer = tokenizer
        self.stop = stop
        self.ids = list(prompt_ids[-CONTEXT:])
        self.start, self.read = 0, len(self.ids)  # ids before `read` are text already; decoding begins at `start`
        self.tokens = 0
        self.text = ""  # given out
        self.held = ""  # decoded, but may yet turn out to begin a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that this token settles; may be empty. Sets `stopped` when a stop string is complete."""
        self.tokens += 1
        self.ids.append(token)
        return self.give(self.decode_new(flush=False), flush=False)

    def finish(self) -> str:
        """What was held back, once no more will come."""
        return "" if self.stopped else self.give(self.decode_new(flush=True), flush=True)

    def decode_new(self, *, flush: bool) -> str:
        before = self.decode(self.ids[self.start : self.read])
        now = self.decode(self.ids[self.start :])
        if len(now) <= len(before) or (now.endswith(HALF) and not flush):
            return ""
        self.start, self.read = self.read, len(self.ids)
        return now[len(before) :]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def give(self, new: str, *, flush: bool) -> str:
        text = self.held + new
        found = [place for place in (text.find(stop) for stop in self.stop) if place >= 0]
        if found:
            self.stopped = True
            text, self.held = text[: min(found)], ""
        else:
            cut = len(text) if flush else len(text) - max((overlap(text, stop) for stop in self.stop), default=0)
            text, self.held = text[:cut], text[cut:]
        self.text += text
        return text


def overlap(text: str, stop: str) -> int:
    """How many of the last characters of text could be the beginning of stop."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def end_ids(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """Every token that ends a text: the tokenizer's, the model's and its generation settings'."""
    found: set[int] = set()
    for value in (
        tokenizer.eos_token_id,
        model.config.get_text_config(decoder=True).eos_token_id,
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
    ):
        found.update([value] if isinstance(value, int) else value or ())
    return found


def stream_text(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    eos_ids: Collection[int] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, str, Completion | None]]:
    """Writes all rows in one batch. Yields (row's index, new text, None), and at a row's end (index, rest, Completion).

    The third is therefore true exactly when the row is finished. eos_ids: None means the model's own. Rows cut short
    by should_stop finish as `length`.
    """
    ends = end_ids(model, tokenizer) if eos_ids is None else set(eos_ids)
    # What an encoder reads is no left context of what the decoder writes.
    contexts = [() if model.config.is_encoder_decoder else row.prompt_ids for row in rows]
    texts = [RowText(tokenizer, ids, row.settings.stop) for ids, row in zip(contexts, rows, strict=True)]
    left = [room(model, row) for row in rows]
    open_rows = dict.fromkeys(range(len(rows)))
    tokens = generate(model, rows, eos_ids=ends, should_stop=should_stop)
    ended: set[int] = set()
    while True:
        try:
            made = tokens.send(ended) if ended else next(tokens)
        except StopIteration:
            break
        ended = set()
        for index, token in made:
            row = texts[index]
            if token in ends:
                row.tokens += 1
                del open_rows[index]
                piece = row.finish()
                yield index, piece, Completion(row.text, row.tokens, "stop")
                continue
            piece = row.push(token)
            if row.stopped:
                ended.add(index)
                del open_rows[index]
                yield index, piece, Completion(row.text, row.tokens, "stop")
            elif row.tokens == left[index]:
                del open_rows[index]
                piece += row.finish()
                yield index, piece, Completion(row.text, row.tokens, "length")
            elif piece:
                yield index, piece, None
    for index in open_rows:  # should_stop said yes
        piece = texts[index].finish()
        yield index, piece, Completion(texts[index].text, texts[index].tokens, "length")


def complete(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    batch_size: int = 16,
    eos_ids: Collection[int] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Completion]:
    """Every row's text, in the order of the rows; rows of like length are written together, batch_size at a time.

    After should_stop said yes, the rows not yet begun come back empty.
    """
    done = [Completion("", 0, "length")] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: rows[index].length)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        stream = stream_text(
            model, tokenizer, [rows[index] for index in batch], eos_ids=eos_ids, should_stop=should_stop
        )
        for index, _, completion in stream:
            if completion is not None:
                done[batch[index]] = completion
    return done
