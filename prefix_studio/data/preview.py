"""What a person sees before Start: the first examples token by token, which of them are learned, and the report.

Knows recipes and tokenizers; the page draws what it returns. Cells leave here as strings only.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from prefix_studio.data.examples import GUESSING_ROWS, load_examples
from prefix_studio.data.mapping import guess_mapping
from prefix_studio.data.read import read_rows, row_values
from prefix_studio.data.spans import IGNORED
from prefix_studio.data.template import written_value
from prefix_studio.data.tokens import TokenRow, tokenize_all
from prefix_studio.recipe import Recipe

CELL_LENGTH = 2000  # characters
WINDOW = 8  # tokens decoded before the one in question, for tokenizers whose tokens depend on their neighbours
HALF = "\ufffd"  # what a decoder writes for a part of a character


def preview(recipe: Recipe, tokenizer: Any, *, count: int = 5, encoder_decoder: bool = False) -> dict[str, Any]:
    """`preview --json`: the report, and the first `count` examples with their tokens.

    {"report": {"rows_read", "rows_used", "dropped", "warnings"}, "examples": [{"prompt", "completion", "row",
    "tokens": [{"text", "learned"}]}], "train", "validation" (rows in each half), "lengths" (tokens: shortest, median,
    longest)}. The texts of an example's tokens joined are the text the model sees.
    Raises StudioError like `load_examples` and `tokenize_all`.
    """
    split = load_examples(recipe.data, tokenizer)
    max_length = recipe.data.max_length
    train = tokenize_all(split.train, tokenizer, max_length, split.report, encoder_decoder=encoder_decoder)
    held = tokenize_all(split.validation, tokenizer, max_length, split.report, encoder_decoder=encoder_decoder)
    by_row = {example.row: example for example in split.train}
    lengths = [len(row.input_ids) for row in train]
    return {
        "report": {
            "rows_read": split.report.rows_read,
            "rows_used": split.report.rows_used,
            "dropped": split.report.dropped,
            "warnings": split.report.warnings,
        },
        "examples": [
            {
                "prompt": by_row[row.row].prompt,
                "completion": by_row[row.row].completion,
                "row": row.row,
                "tokens": labelled_tokens(row, tokenizer),
            }
            for row in train[:count]
        ],
        "train": len(train),
        "validation": len(held),
        "lengths": {"shortest": min(lengths), "median": median(lengths), "longest": max(lengths)},
    }


def inspect_source(source: str, *, token: str | None = None) -> dict[str, Any]:
    """What is in a source: {"columns", "rows" (the first 20, a list of strings each), "row_count", "mapping"}."""
    rows = read_rows(source, token=token)
    first = list(row_values(rows, GUESSING_ROWS))
    return {
        "columns": rows.column_names,
        "rows": [[cell_text(row[column]) for column in rows.column_names] for row in first],
        "row_count": len(rows),
        "mapping": guess_mapping(rows.column_names, first),
    }


def cell_text(value: Any) -> str:
    """A cell for the page: always a string, and short enough to show."""
    text = str(written_value(value))
    return text if len(text) <= CELL_LENGTH else text[: CELL_LENGTH - 1] + "…"


def labelled_tokens(row: TokenRow, tokenizer: Any) -> list[dict[str, Any]]:
    """Every token's text and whether it is learned; of an encoder-decoder, the input's tokens and then the target's."""
    if len(row.labels) == len(row.input_ids) and all(
        label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True)
    ):
        learned = [label != IGNORED for label in row.labels]
        texts = token_texts(row.input_ids, tokenizer)
    else:
        target = [label for label in row.labels if label != IGNORED]
        learned = [False] * len(row.input_ids) + [True] * len(target)
        texts = token_texts(row.input_ids, tokenizer) + token_texts(target, tokenizer)
    return [{"text": text, "learned": is_learned} for text, is_learned in zip(texts, learned, strict=True)]


def token_texts(ids: list[int], tokenizer: Any) -> list[str]:
    """Each token's text, such that joined they are the decoded whole.

    A token that ends inside a character shows nothing; the token that completes the character shows it.
    """
    texts: list[str] = []
    start = 0  # the window's first token
    shown = ""  # what the window's tokens have shown so far
    for index in range(len(ids)):
        text = decode(ids[start : index + 1], tokenizer)
        unfinished = text.endswith(HALF) and index + 1 < len(ids)
        new = "" if unfinished or not text.startswith(shown) else text[len(shown) :]
        texts.append(new)
        shown += new
        if not unfinished and index + 1 - start >= 2 * WINDOW:
            start = index + 1 - WINDOW
            shown = decode(ids[start : index + 1], tokenizer)
    return texts


def decode(ids: list[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
