"""The shelf says of an adapter where it can be loaded."""

from __future__ import annotations

from prefix_studio.adapters.files import AdapterFacts
from prefix_studio.ui.adapters_view import about_html


def facts(peft_loads: bool) -> AdapterFacts:
    return AdapterFacts("gpt2", 20, 12, 1000, peft_loads, {})


def test_an_adapter_that_peft_loads_needs_no_word():
    assert about_html(facts(peft_loads=True)) == ""


def test_our_own_format_says_what_loads_it():
    said = about_html(facts(peft_loads=False))
    assert "loads with Prefix Studio&#x27;s load_prefix; stock PEFT cannot load it" in said
