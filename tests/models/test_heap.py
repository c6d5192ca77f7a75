"""The heap: pages for large blocks, gaps that are used again, and what is left unused between them."""

from __future__ import annotations

from prefix_studio.models.heap import FIRST_THRESHOLD, LAST_THRESHOLD, PAGE, TOP_PAD, Heap

KILO, MEGA = 1024, 2**20


def taken(heap):
    return heap.touched + heap.pages


def test_a_large_block_has_pages_of_its_own_and_leaves_nothing():
    heap = Heap()
    block = heap.take(100 * MEGA)
    assert 100 * MEGA <= taken(heap) <= 100 * MEGA + PAGE
    heap.give_back(block)
    assert taken(heap) == 0
    assert heap.peak >= 100 * MEGA


def test_small_blocks_lie_side_by_side():
    heap = Heap()
    for _ in range(1000):
        heap.take(KILO)
    assert 1000 * KILO < taken(heap) < 1000 * (KILO + 200)


def test_a_gap_is_used_again():
    heap = Heap()
    first, *_ = (heap.take(64 * KILO) for _ in range(3))
    before = taken(heap)
    heap.give_back(first)
    heap.take(32 * KILO)
    assert taken(heap) == before


def test_neighbouring_gaps_become_one():
    heap = Heap()
    blocks = [heap.take(64 * KILO) for _ in range(4)]
    before = taken(heap)
    for block in blocks[:3]:
        heap.give_back(block)
    heap.take(190 * KILO)
    assert taken(heap) == before


def test_a_block_does_not_fit_exactly_where_one_of_its_size_was():
    """What is aligned asks for more than it keeps, so the heap grows although as much was given back."""
    heap = Heap()
    blocks = []
    for _ in range(100):
        blocks.append(heap.take(64 * KILO))
        heap.take(16)
    before = taken(heap)
    for block in blocks[::2]:
        heap.give_back(block)
        heap.take(64 * KILO)
    assert taken(heap) > before + 20 * 64 * KILO


def test_the_threshold_grows_with_what_is_given_back():
    heap = Heap()
    assert heap.threshold == FIRST_THRESHOLD
    heap.give_back(heap.take(MEGA))
    assert heap.threshold >= MEGA
    heap.take(MEGA // 2)
    assert heap.pages == 0
    heap.give_back(heap.take(2 * LAST_THRESHOLD))
    assert heap.threshold < LAST_THRESHOLD


def test_the_heap_shrinks_where_its_end_is_free():
    heap = Heap()
    first = [heap.take(100 * KILO) for _ in range(12)]
    before = taken(heap)
    for block in [heap.take(100 * KILO) for _ in range(3)][::-1]:
        heap.give_back(block)
    assert taken(heap) <= before + FIRST_THRESHOLD + TOP_PAD + PAGE
    assert heap.peak > (len(first) + 3) * 100 * KILO
