"""The shelf in HTML. Pure: adapter rows in, escaped HTML out."""

from __future__ import annotations

from prefix_studio.adapters.files import AdapterFacts
from prefix_studio.adapters.shelf import AdapterRow
from prefix_studio.ui.fragments import badge, empty, escape, notice, picker
from prefix_studio.ui.tune_view import model_title
from prefix_studio.ui.words import say_ago, say_bytes

NO_ADAPTERS = empty(
    "The shelf is empty.", "A finished run puts its adapter here. One you have already can be dropped in as a zip."
)

OWN_FORMAT = "Its base model's layers differ, or it has a part for an encoder, which PEFT's format has no place for."


def shelf_html(rows: list[AdapterRow], chosen: str) -> str:
    """One row an adapter: name, where it comes from, its base model, length and size."""
    if not rows:
        return NO_ADAPTERS
    return picker([(row.id, row_html(row)) for row in rows], chosen)


def about_html(facts: AdapterFacts) -> str:
    """What a person should know before taking the adapter elsewhere; empty where PEFT loads it."""
    if facts.peft_loads:
        return ""
    return notice("This adapter loads with Prefix Studio's load_prefix; stock PEFT cannot load it.", OWN_FORMAT, "warm")


def row_html(row: AdapterRow) -> str:
    source = badge("tuned here", "good") if row.source == "run" else badge("imported")
    small = [
        model_title(row.base_model),
        f"{row.num_virtual_tokens} virtual tokens",
        say_bytes(row.size_bytes),
        say_ago(row.created),
    ]
    return (
        f'<span class="ps-row-top"><b>{escape(row.name)}</b><span>{source}</span></span>'
        f"<small>{escape(' · '.join(small))}</small>"
    )
