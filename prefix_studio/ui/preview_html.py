"""The rows as the model will see them: virtual tokens in front, ignored tokens grey, learned ones bold.

Pure: `preview --json`'s dictionary in, escaped HTML out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefix_studio.ui.fragments import badge, empty, escape

SHOWN_VIRTUAL_TOKENS = 6
SHOWN_TOKENS = 400
SHOWN_DROPPED = 5


def preview_html(preview: Mapping[str, Any], num_virtual_tokens: int | None) -> str:
    """Report and examples. num_virtual_tokens: None where the length follows the text."""
    examples = preview.get("examples") or []
    if not examples:
        return report_html(preview["report"]) + empty("No rows to show.", "Pick a sample, or drop in another file.")
    shown = "".join(example_html(example, num_virtual_tokens) for example in examples)
    return report_html(preview["report"]) + LEGEND + f'<div class="ps-examples">{shown}</div>'


def report_html(report: Mapping[str, Any]) -> str:
    """How many rows were read and used, and which were dropped and why."""
    read, used, dropped = report["rows_read"], report["rows_used"], report.get("dropped") or []
    line = f"{badge(f'{read:,} rows read')} {badge(f'{used:,} used', 'good' if used else 'bad')}"
    if dropped:
        line += f" {badge(f'{len(dropped):,} dropped', 'warm')}"
    details = ""
    if dropped:
        items = "".join(
            f"<li>Row {escape(item['row'])}: {escape(item['why'])}</li>" for item in dropped[:SHOWN_DROPPED]
        )
        more = len(dropped) - SHOWN_DROPPED
        items += f"<li>and {more:,} more</li>" if more > 0 else ""
        details = f"<ul>{items}</ul>"
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in report.get("warnings") or [])
    details += f'<ul class="ps-warnings">{warnings}</ul>' if warnings else ""
    return f'<div class="ps-report">{line}{details}</div>'


def example_html(example: Mapping[str, Any], num_virtual_tokens: int | None) -> str:
    """One row, token by token."""
    tokens = example["tokens"]
    body = virtual_tokens_html(num_virtual_tokens) + "".join(map(token_html, tokens[:SHOWN_TOKENS]))
    if len(tokens) > SHOWN_TOKENS:
        body += f'<span class="ps-more">… {len(tokens) - SHOWN_TOKENS:,} more tokens</span>'
    learned = sum(bool(token["learned"]) for token in tokens)
    caption = f"<figcaption>{learned} of {len(tokens)} tokens learned</figcaption>"
    return f'<figure class="ps-example"><p>{body}</p>{caption}</figure>'


def virtual_tokens_html(count: int | None) -> str:
    """The prefix as chips: the first few by number, the rest as a count."""
    if count is None:
        return '<span class="ps-virtual" title="as many as the text has tokens">v1 … vₘ</span>'
    shown: Iterable[int] = range(1, min(count, SHOWN_VIRTUAL_TOKENS) + 1)
    chips = "".join(f'<span class="ps-virtual" title="virtual token {index}">v{index}</span>' for index in shown)
    rest = count - SHOWN_VIRTUAL_TOKENS
    return chips + (f'<span class="ps-virtual" title="{rest} more virtual tokens">+{rest}</span>' if rest > 0 else "")


def token_html(token: Mapping[str, Any]) -> str:
    """A token's text; a line break is shown as a sign and broken there, a lone space stays visible."""
    kind = "ps-learned" if token["learned"] else "ps-ignored"
    text = escape(token["text"]).replace("\n", "↵<br>")
    return f'<span class="{kind}">{text}</span>'


LEGEND = (
    '<div class="ps-legend"><span><span class="ps-virtual">v1</span> virtual tokens, what is trained</span>'
    '<span><span class="ps-ignored">grey</span> read by the model, not learned</span>'
    '<span><span class="ps-learned">bold</span> what it learns to write</span></div>'
)
