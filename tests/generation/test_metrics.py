"""Exact match and BLEU."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.generation.metrics import bleu, exact_match


def test_exact_match_is_a_share_and_any_reference_will_do():
    assert exact_match(["a ", "b", "c"], [["x", "a"], ["b"], ["C"]]) == pytest.approx(2 / 3)


def test_bleu_is_sacrebleus():
    from sacrebleu import corpus_bleu

    predictions = ["The cat sat on the mat.", "There is a dog in the garden today."]
    references = [["The cat sat on a mat.", "A cat was sitting on the mat."], ["There is a dog in the garden now."]]
    streams = [["The cat sat on a mat.", "There is a dog in the garden now."], ["A cat was sitting on the mat.", None]]
    assert bleu(predictions, references) == corpus_bleu(predictions, streams).score
    assert 30 < bleu(predictions, references) < 100


def test_bleu_is_cased_and_a_perfect_answer_has_100():
    assert bleu(["one two three four five"], [["one two three four five"]]) == pytest.approx(100)
    assert bleu(["ONE two three four five"], [["one two three four five"]]) < 100


def test_more_references_never_need_to_be_of_one_number():
    with_more = bleu(["one two three four", "a b c d"], [["one two three four"], ["x", "a b c d"]])
    assert with_more == pytest.approx(100)


def test_nothing_to_score_is_refused():
    with pytest.raises(StudioError, match="no rows to score"):
        exact_match([], [])
    with pytest.raises(StudioError, match="Row 2 has no reference"):
        bleu(["a", "b"], [["a"], []])
