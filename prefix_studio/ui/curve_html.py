"""The loss curve as an SVG drawn here: training rows as a line, held-back rows as dots, the untuned model dashed.

Drawn on the server because a picture of at most 400 points is a few kilobytes, follows light and dark by style sheet,
and costs the browser nothing to keep current. The drawing stretches with its box; strokes and words keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from prefix_studio.ui.fragments import escape
from prefix_studio.ui.live import Seen, decimate

Series = list[tuple[int, float]]
TICKS = 5
# Room above and below the curves, as a share of what they span.
HEADROOM = 0.08


def curve_html(seen: Seen) -> str:
    """The curves of a run so far; empty before there is anything to draw."""
    train, held_back = decimate(seen.train), decimate(seen.eval)
    if len(train) + len(held_back) < 2:
        return ""
    last_step = max(1, *(step for step, _ in [*train, *held_back]))
    losses = [loss for _, loss in [*train, *held_back]] + ([] if seen.base_loss is None else [seen.base_loss])
    low, high = bounds(losses)

    def place(step: float, loss: float) -> tuple[float, float]:
        return 100 * step / last_step, 100 * (high - loss) / (high - low)

    grid = "".join(f'<path class="ps-grid" d="M0 {place(0, tick)[1]:.2f}H100"/>' for tick in ticks(low, high))
    base = ""
    if seen.base_loss is not None:
        base = f'<path class="ps-base" d="M0 {place(0, seen.base_loss)[1]:.2f}H100"/>'
    dots = "".join(dot(*place(step, loss), f"step {step:,}: {loss:.3f}") for step, loss in held_back)
    drawing = (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="loss by step">'
        f'{grid}{base}<path class="ps-train" d="{path(place(*point) for point in train)}"/>'
        f'<path class="ps-held-line" d="{path(place(*point) for point in held_back)}"/>{dots}</svg>'
    )
    return (
        f'<div class="ps-curve">{legend(seen, train, held_back)}'
        f'<div class="ps-plot"><div class="ps-y">{labels_y(low, high)}</div>{drawing}'
        f'<div class="ps-x">{labels_x(last_step)}</div></div></div>'
    )


def bounds(losses: list[float]) -> tuple[float, float]:
    """Lowest and highest loss to show, with some room; never an empty span."""
    low, high = min(losses), max(losses)
    room = (high - low) * HEADROOM or max(abs(high) * HEADROOM, 0.05)
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers between two bounds, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 2.5, 5, 10), key=lambda nice: abs(nice * power - rough))
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if index else 'M'}{x:.2f} {y:.2f}" for index, (x, y) in enumerate(points))


def dot(x: float, y: float, said: str) -> str:
    """A round dot: a stroke of no length, which keeps its shape when the drawing is stretched."""
    return f'<path class="ps-held" d="M{x:.2f} {y:.2f}h.001"><title>{escape(said)}</title></path>'


def legend(seen: Seen, train: Series, held_back: Series) -> str:
    """What is drawn, each with its latest figure."""
    entries = [("train", "training rows", train[-1][1])] if train else []
    entries += [("held", "held-back rows", held_back[-1][1])] if held_back else []
    entries += [("base", "untuned model", seen.base_loss)] if seen.base_loss is not None else []
    shown = "".join(
        f'<span class="ps-key-{key}">{escape(name)} <b>{loss:.3f}</b></span>' for key, name, loss in entries
    )
    return f'<div class="ps-curve-legend"><b>Loss</b>{shown}</div>'


def labels_y(low: float, high: float) -> str:
    marks = ticks(low, high)
    digits = next((digits for digits in range(6) if all(round(mark, digits) == round(mark, 9) for mark in marks)), 6)
    return "".join(
        f'<span style="top:{100 * (high - mark) / (high - low):.2f}%">{mark:.{digits}f}</span>' for mark in marks
    )


def labels_x(last_step: int) -> str:
    marks = [mark for mark in ticks(0, last_step) if mark == int(mark)]
    return "".join(f'<span style="left:{100 * mark / last_step:.2f}%">{mark:,.0f}</span>' for mark in marks)
