"""Token rows in flat arrays read like a list of rows, and take a few bytes a token."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from prefix_studio.data.token_rows import TokenRow, TokenRows, TokenRowsWriter, concatenate, token_rows


def some(count: int, *, targets: bool = False) -> list[TokenRow]:
    """Rows of one to nine tokens; with targets, labels of another length."""
    chance = random.Random(0)
    rows = []
    for number in range(1, count + 1):
        ids = chance.choices(range(1000), k=chance.randint(1, 9))
        labels = chance.choices(range(1000), k=chance.randint(1, 9)) if targets else [-100, *ids[1:]]
        rows.append(TokenRow(ids, labels, number))
    return rows


def written(rows: list[TokenRow]) -> TokenRows:
    writer = TokenRowsWriter()
    for row in rows:
        writer.add(row.input_ids, row.labels, row.row)
    return writer.finish()


@pytest.fixture(params=[False, True], ids=["decoder-only", "encoder-decoder"])
def rows(request) -> list[TokenRow]:
    return some(20, targets=request.param)


def test_they_read_like_the_list_they_came_from(rows):
    flat = written(rows)
    assert len(flat) == 20
    assert list(flat) == rows
    assert [flat[index] for index in range(-20, 20)] == rows + rows
    assert list(flat[3:17:2]) == rows[3:17:2]
    assert list(reversed(flat)) == rows[::-1]
    assert list(flat.select([5, 0, 5])) == [rows[5], rows[0], rows[5]]
    assert list(flat[10:].select(np.array([9, 1]))[1:]) == [rows[11]]
    assert list(token_rows(rows)) == rows
    with pytest.raises(IndexError):
        flat[20]


def test_lengths_are_arrays(rows):
    flat = written(rows)
    assert flat.lengths.tolist() == [len(row.input_ids) for row in rows]
    assert flat.target_lengths.tolist() == [len(row.labels) for row in rows]
    assert flat.numbers.tolist() == list(range(1, 21))
    assert flat[4:6].lengths.tolist() == flat.lengths[4:6].tolist()


def test_a_row_of_two_sequences_is_as_large_as_both():
    one, two = written(some(20)), written(some(20, targets=True))
    assert one.sizes.tolist() == one.lengths.tolist()
    assert two.sizes.tolist() == (two.lengths + two.target_lengths).tolist()


def test_rows_are_views_and_selections_copy_no_token(rows):
    flat = written(rows)
    assert np.shares_memory(flat[7].input_ids, flat.inputs.flat)
    chosen = flat.select([3, 1])
    assert chosen.inputs.flat is flat.inputs.flat
    assert chosen.labels.flat is flat.labels.flat
    assert np.shares_memory(flat[2:5].inputs.packed(), flat.inputs.flat)


def test_gone_through_they_give_numbers_that_json_takes(rows):
    row = written(rows)[0]
    assert json.loads(json.dumps(list(row.input_ids))) == rows[0].input_ids
    assert json.loads(json.dumps([label != -100 for label in row.labels])) == [x != -100 for x in rows[0].labels]
    assert json.dumps(row.row) == "1"


def test_rows_differ_by_tokens_labels_or_number():
    row = TokenRow([1, 2], [-100, 2], 3)
    assert written([row])[0] == row
    for other in (TokenRow([1, 3], [-100, 2], 3), TokenRow([1, 2], [1, 2], 3), TokenRow([1, 2], [-100, 2], 4)):
        assert other != row


def test_the_digest_is_of_what_is_learned_however_it_is_kept(rows):
    flat = written(rows)
    digest = flat.digest()
    assert token_rows(rows).digest() == digest
    assert concatenate([flat[:8], rows[8:]]).digest() == digest
    assert written(rows[::-1])[::-1].digest() == digest
    assert flat.select(list(range(20))).digest() == digest
    assert flat[:19].digest() != digest
    assert flat[::-1].digest() != digest


def test_the_digest_sees_every_token_label_and_border():
    digests = {
        written(rows).digest()
        for rows in (
            [TokenRow([1, 2], [1, 2], 1), TokenRow([3], [3], 2)],
            [TokenRow([1], [1], 1), TokenRow([2, 3], [2, 3], 2)],
            [TokenRow([1, 2], [-100, 2], 1), TokenRow([3], [3], 2)],
            [TokenRow([1, 4], [1, 2], 1), TokenRow([3], [3], 2)],
            [TokenRow([1, 2], [1], 1), TokenRow([3], [2, 3], 2)],
        )
    }
    assert len(digests) == 5


def test_parts_are_put_one_behind_the_other(rows):
    flat = written(rows)
    assert list(concatenate([flat[15:], rows[:2], flat[:0]])) == rows[15:] + rows[:2]


def test_nothing_is_a_list_of_rows_too():
    for empty in (written([]), token_rows([]), concatenate([]), written(some(3))[:0]):
        assert not empty
        assert list(empty) == []
        assert empty.sizes.tolist() == []
        assert empty.digest() == written([]).digest()


def test_padding_stands_on_the_right_and_nowhere_else():
    flat = written([TokenRow([7, 0, 7], [1], 1), TokenRow([5], [2, 3], 2)])
    assert flat.inputs.padded(9).tolist() == [[7, 0, 7], [5, 9, 9]]
    assert flat.inputs.inside().tolist() == [[True, True, True], [True, False, False]]
    assert flat.labels.padded(-100).tolist() == [[1, -100], [2, 3]]
    assert flat.select([1, 0]).inputs.padded(9).tolist() == [[5, 9, 9], [7, 0, 7]]


def test_a_token_takes_eight_bytes_and_a_row_forty():
    rows = some(50)
    tokens = sum(len(row.input_ids) for row in rows)
    assert written(rows).nbytes == 8 * tokens + 40 * len(rows)


def test_a_finished_writer_takes_no_more():
    writer = TokenRowsWriter()
    writer.add([1], [1], 1)
    rows = writer.finish()
    with pytest.raises(BufferError):
        writer.add([2], [2], 2)
    assert list(rows) == [TokenRow([1], [1], 1)]
