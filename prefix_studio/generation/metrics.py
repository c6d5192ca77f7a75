"""How good texts are, against references: exact match and BLEU.

BLEU is sacrebleu's, cased, with its own tokenisation, corpus level, 0 to 100; any number of references a row. Knows
strings only: who wrote them is another room's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sacrebleu.metrics import BLEU

from prefix_studio.errors import StudioError


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of predictions, 0 to 1, that equal one of their references; only outer white space is ignored."""
    check_rows(predictions, references)
    hits = [
        prediction.strip() in {reference.strip() for reference in several}
        for prediction, several in zip(predictions, references, strict=True)
    ]
    return sum(hits) / len(hits)


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU, 0 to 100. Rows may have different numbers of references."""
    check_rows(predictions, references)
    most = max(len(several) for several in references)
    # sacrebleu wants streams: the first reference of every row, the second of every row, ..., None where there is none.
    streams = [[several[n] if n < len(several) else None for several in references] for n in range(most)]
    return BLEU().corpus_score(list(predictions), streams).score


METRICS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], float]] = {
    "exact_match": exact_match,
    "bleu": bleu,
}


def check_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not predictions:
        raise StudioError("There are no rows to score.", "Give one row or more.", "data")
    for number, several in enumerate(references, start=1):
        if not several:
            raise StudioError(f"Row {number} has no reference to compare with.", "Fill in its completion.", "data")
