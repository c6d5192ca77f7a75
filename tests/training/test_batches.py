"""Batches hold rows of like length, in an order that the seed decides, and count what they teach."""

from __future__ import annotations

import random
from itertools import chain

import torch

from prefix_studio.data.token_rows import TokenRow, token_rows
from prefix_studio.training.batches import Order, collate, longest_first, some_rows


def rows_of(lengths: list[int]) -> list[TokenRow]:
    return [TokenRow([7] * length, [-100] + [7] * (length - 1), number) for number, length in enumerate(lengths, 1)]


def test_an_epoch_takes_every_row_once_and_the_next_in_another_order():
    order = Order(rows_of([random.Random(i).randint(2, 90) for i in range(101)]), 8, 1, seed=3)
    epochs = [[order.step(step) for step in range(first, first + 13)] for first in (0, 13)]
    for epoch in epochs:
        assert sorted(chain.from_iterable(chain.from_iterable(epoch))) == list(range(101))
    assert epochs[0] != epochs[1]


def test_the_order_depends_on_seed_and_step_only():
    rows = rows_of([3, 9, 4, 8, 5, 7, 6, 2, 2, 9])
    straight = [Order(rows, 2, 2, seed=1).step(step) for step in range(12)]
    order = Order(rows, 2, 2, seed=1)
    assert [order.step(step) for step in reversed(range(12))] == straight[::-1]
    assert [Order(rows, 2, 2, seed=2).step(step) for step in range(12)] != straight


def test_a_seeds_order_is_the_same_on_every_machine_and_in_every_version():
    order = Order(rows_of([3, 9, 4, 8, 5, 7, 6, 2, 2, 9]), 2, 1, seed=1)
    assert [order.step(step) for step in range(5)] == [[[0, 2]], [[5, 3]], [[9, 1]], [[4, 6]], [[8, 7]]]


def test_arrays_and_lists_of_rows_meet_in_the_same_order():
    rows = rows_of([3, 9, 4, 8, 5, 7, 6, 2, 2, 9])
    straight, flat = (Order(some, 3, 1, seed=1) for some in (rows, token_rows(rows)))
    assert [straight.step(step) for step in range(8)] == [flat.step(step) for step in range(8)]
    assert list(longest_first(token_rows(rows))) == list(longest_first(rows))
    assert list(some_rows(token_rows(rows), 4, seed=2)) == list(some_rows(rows, 4, seed=2))


def test_accumulated_batches_are_given_together_and_the_epoch_ends_with_what_is_left():
    order = Order(rows_of([5] * 10), 2, 2, seed=0)
    assert order.steps_per_epoch == 3
    assert [len(order.step(step)) for step in range(3)] == [2, 2, 1]


def test_rows_of_like_length_meet():
    chance = random.Random(0)
    rows = rows_of([chance.randint(10, 200) for _ in range(800)])
    real = sum(len(row.input_ids) for row in rows)

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(len(rows[i].input_ids) for i in batch) for batch in batches)

    order = Order(rows, 8, 1, seed=0)
    ours = padded([batch for step in range(order.steps_per_epoch) for batch in order.step(step)])
    unsorted = padded([list(range(start, start + 8)) for start in range(0, 800, 8)])
    assert ours < 1.06 * real
    assert unsorted > 1.5 * real


def test_a_batch_is_padded_on_the_right_and_counts_what_it_teaches():
    batch = collate([TokenRow([5, 6, 7], [-100, 6, 7], 1), TokenRow([8, 9], [8, 9], 2)], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[-100, 6, 7], [8, 9, -100]]
    assert batch.learned == 3  # a row's first token has nothing before it that could predict it
    assert batch.tokens == 5


def test_a_list_and_arrays_make_the_same_batch():
    rows = rows_of([4, 9, 2])
    listed, flat = collate(rows, 2), collate(token_rows(rows), 2)
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(getattr(listed, name), getattr(flat, name))
        assert getattr(flat, name).dtype == torch.int64
    assert (listed.learned, listed.tokens) == (flat.learned, flat.tokens) == (12, 15)


def test_targets_are_padded_by_themselves_and_every_one_is_learned():
    rows = [TokenRow([5, 6, 7], [1, 2], 1), TokenRow([8], [3, 4, 5, 6], 2)]
    batch = collate(rows, pad_id=0, encoder_decoder=True)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[1, 2, -100, -100], [3, 4, 5, 6]]
    assert (batch.learned, batch.tokens) == (6, 10)


def test_a_row_is_as_long_as_its_input_and_its_target_together():
    sizes = [(1, 9), (8, 1), (2, 2), (5, 6)]
    rows = [TokenRow([7] * length, [7] * target, number) for number, (length, target) in enumerate(sizes)]
    assert [row.row for row in longest_first(rows)] == [3, 0, 1, 2]
    order = Order(rows, 2, 1, seed=0)
    assert sorted(sorted(batch) for step in range(2) for batch in order.step(step)) == [[0, 3], [1, 2]]


def test_an_evaluation_starts_with_the_longest_row():
    assert [len(row.input_ids) for row in longest_first(rows_of([3, 9, 4, 8, 5]))] == [9, 8, 5, 4, 3]
    equal = longest_first(rows_of([4, 4, 4]))
    assert [row.row for row in equal] == [1, 2, 3]


def test_a_part_of_the_rows_is_always_the_same_part():
    rows = rows_of(list(range(2, 52)))
    part, again, other = (list(some_rows(rows, 10, seed)) for seed in (4, 4, 5))
    assert part == again
    assert len({row.row for row in part}) == 10
    assert part != other
    assert list(some_rows(rows, 50, seed=4)) == rows
