"""The loss curve: drawn from what was seen, with round ticks, and never an empty frame."""

from __future__ import annotations

import re

import pytest

from prefix_studio.ui.curve_html import bounds, curve_html, ticks
from prefix_studio.ui.live import POINTS, Seen


def test_nothing_is_drawn_before_there_are_two_points():
    assert curve_html(Seen()) == ""
    assert curve_html(Seen(eval=[(0, 2.0)])) == ""


def test_both_curves_and_the_untuned_model_are_drawn():
    drawn = curve_html(Seen(train=[(1, 3.0), (2, 2.0), (4, 1.0)], eval=[(0, 3.5), (4, 1.5)], base_loss=4.0))
    assert drawn.count('class="ps-held"') == 2
    assert "training rows <b>1.000</b>" in drawn
    assert "held-back rows <b>1.500</b>" in drawn
    assert "untuned model <b>4.000</b>" in drawn
    ends = re.search(r'class="ps-train" d="M25\.00 [\d.]+ L50\.00 [\d.]+ L100\.00 ([\d.]+)"', drawn)
    assert ends, drawn
    assert float(ends[1]) > 80, "the lowest loss is near the bottom"


def test_a_long_run_is_a_small_picture():
    drawn = curve_html(Seen(train=[(step, 1 / step) for step in range(1, 100_000)], eval=[(0, 1.0)]))
    assert drawn.count(" L") == POINTS - 1
    assert len(drawn) < 10_000


@pytest.mark.parametrize("losses", [[2.0, 2.0], [0.0, 0.0], [1e-9, 3e-9], [5.0, 700.0], [-1.0, 1.0]])
def test_any_span_gets_some_round_ticks_inside_it(losses):
    low, high = bounds(losses)
    marks = ticks(low, high)
    assert low < high
    assert 2 <= len(marks) <= 7
    assert all(low - 1e-12 <= mark <= high + 1e-12 for mark in marks)


def test_tick_labels_say_what_the_ticks_are():
    drawn = curve_html(Seen(train=[(1, 7.57), (60, 6.71)]))
    labels = [float(label) for label in re.findall(r'top:[\d.]+%">([\d.]+)<', drawn)]
    assert labels == pytest.approx(ticks(*bounds([7.57, 6.71])))
