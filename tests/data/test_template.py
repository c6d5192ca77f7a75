"""Templates print rows faithfully, say what is wrong with them, and cannot run away."""

from __future__ import annotations

import datetime
import time
from decimal import Decimal

import pytest

from prefix_studio.data.template import MAX_TEXT, Template, written_column
from prefix_studio.errors import StudioError

COLUMNS = ["name", "food", "Customer question", "class", "tags", "score"]
ROW = {
    "name": "Blue Spice",
    "food": None,
    "Customer question": "Why?",
    "class": "A",
    "tags": ["cheap", {"near": "river"}],
    "score": 3.5,
}


def render(text: str, row=ROW, columns=COLUMNS) -> str:
    return Template(text, columns, name="data.prompt").render(row, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ name }} serves {{ food }}.\n", "Blue Spice serves .\n"),
        ('{{ row["Customer question"] }}', "Why?"),
        ("{{ name ~ food ~ score }}", "Blue Spice3.5"),
        ("{% if food %}yes{% else %}no{% endif %}", "no"),
        ("{{ tags }} {{ tags[0] | upper }} {{ tags[1].near }}", '["cheap", {"near": "river"}] CHEAP river'),
        ("{% for tag in tags %}{{ loop.index }}{{ ', ' if not loop.last }}{% endfor %}", "1, 2"),
        ("{{ name.split()[0] }} {{ name | replace('Spice', 'Moon') }} {{ 'é' | tojson }}", 'Blue Blue Moon "é"'),
        ("{{ [name, food, score] | join(' | ') }}", "Blue Spice |  | 3.5"),
        ("{{ score * 2 + 1 }} {{ score > 3 }}", "8.0 true"),
        ("<{{ name }}>", "<Blue Spice>"),
    ],
)
def test_rows_print_as_written(text, expected):
    assert render(text) == expected


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (3, "3"),
        (2.5, "2.5"),
        (True, "true"),
        (["é", None], '["é", null]'),
        (datetime.date(2026, 11, 20), "2026-11-20"),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_every_kind_of_cell_as_text(cell, text):
    assert render("{{ name }}|{{ name ~ '' }}", {**ROW, "name": cell}) == f"{text}|{text}"


def test_cells_are_data_never_templates():
    nasty = "{{ 7 * 7 }}{% for x in row %}{{ x }}{% endfor %}"
    assert render("{{ name }}", {**ROW, "name": nasty}) == nasty


@pytest.mark.parametrize(
    "column", ["name", "Customer question", "class", 'quo"te', "naïve", "loop", "a-b", "_x", "row"]
)
def test_every_column_can_be_written(column):
    assert render(written_column(column), {column: "cell"}, [column]) == "cell"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ naem }}", "data.prompt asks for the column 'naem', which the rows do not have. Did you mean {{ name }}?"),
        ('{{ row["Customer"] }}', "the column 'Customer', which the rows do not have. Did you mean {{ row[\"Customer"),
        ("{{ nothing_like_it }}", "Known columns: name, food, Customer question, class, tags, score."),
        ("line one\n{{ name", "data.prompt, line 2: "),
        ("{{ name }}\n\n{% if %}", "data.prompt, line 3: expected an expression"),
        ("{{ Customer question }}", "data.prompt, line 1: expected token 'end of print statement', got 'question'."),
        ("{{ name | uper }}", "data.prompt, line 1: there is no filter 'uper'. Did you mean upper?"),
        ("{% include 'secrets' %}", "data.prompt, line 1: a template may not use include."),
        ("{% macro f() %}{{ f() }}{% endmacro %}", "data.prompt, line 1: a template may not use macro."),
        ("{{ 9 ** 9 ** 9 }}", "may not use pow."),
        ("x" * 30_000, "data.prompt is longer than 20,000 characters."),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "data.prompt is nested too deeply."),
    ],
)
def test_a_wrong_template_is_told_when_it_is_made(text, told):
    with pytest.raises(StudioError) as error:
        Template(text, COLUMNS, name="data.prompt")
    assert told in str(error.value)
    assert error.value.category == "data"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ tags[1].far }}", "data.prompt, row 7: 'dict object' has no attribute 'far'."),
        ("{{ name + 1 }}", "data.prompt, row 7: can only concatenate str"),
        ("{{ 1 / 0 }}", "data.prompt, row 7: division by zero."),
        ("{{ name.__class__.__mro__ }}", "data.prompt, row 7: access to attribute '__class__'"),
        ("{{ name.format }}{{ name.format(1) }}", "not safely callable"),
        ("{{ name() }}", "not safely callable"),
    ],
)
def test_a_row_that_breaks_a_template_is_named(text, told):
    with pytest.raises(StudioError) as error:
        render(text)
    assert told in error.value.message


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(10**9) %}x{% endfor %}".replace("10**9", "1000000000"),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{{ name * 0 }}{{ tags }}{{ tags }}{{ tags }}{{ tags }}{{ tags }}{% endfor %}",
        "{% for i in range(9999) %}" + "{{ tags }}" * 10 + "{% endfor %}",
        "{% set a = name %}" + "{% set a = a ~ a %}" * 60 + "{{ a | length }}",
        "{% set a = name %}" + "{% set a = a + a %}" * 60 + "{{ a | length }}",
        "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
        "{% set a = name %}" + "{% set a = a | replace('B', a) %}" * 60 + "{{ a | length }}",
        "{% set a = tags %}" + "{% set a = a | join(a | join) %}" * 60 + "{{ a | length }}",
        "{{ 'x' * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
    ],
)
def test_no_template_runs_away(text):
    began = time.monotonic()
    with pytest.raises(StudioError, match=r"data.prompt, row 7: "):
        render(text)
    assert time.monotonic() - began < 5


def test_a_long_cell_is_no_runaway():
    text = "x" * (MAX_TEXT - 10)
    assert render("{{ name }}", {**ROW, "name": text}) == text
