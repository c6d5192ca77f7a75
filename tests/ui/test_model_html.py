"""The model's card: whether it takes a prefix, on which layers, what is trained and whether it fits."""

from __future__ import annotations

import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.ui.model_html import model_card
from tests.ui.conftest import CHECK


def card(model="bundled", **found):
    return model_card(Recipe.from_fields({"model": {"id": model}, "data": {"source": "rows.csv"}}), CHECK | found)


@pytest.mark.parametrize(
    ("taking", "everything", "said"),
    [
        (12, 12, "12 of 12 layers take a prefix."),
        (2, 8, "2 of 8 layers take a prefix: the others keep a running state, or look at another layer&#x27;s keys."),
        (18, 6, "18 layers take a prefix."),
        (3, None, "3 layers take a prefix."),
    ],
    ids=["all", "some", "in several places", "nobody knows of how many"],
)
def test_the_layers_that_take_a_prefix(taking, everything, said):
    assert said in card(layers=CHECK["layers"] * taking, num_layers=everything)


def test_how_much_is_trained():
    assert "640 numbers are trained, 1.0% of the model&#x27;s 64,000." in card()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "8 rows of 512 tokens would take about 1.0 GB of memory; 8.0 GB are free, enough for 150 rows."),
        ({"largest_batch_size": 1}, "8.0 GB are free, enough for 1 row."),
        ({"largest_batch_size": 0}, "8.0 GB are free, too little for a single row."),
    ],
)
def test_whether_it_fits(found, said):
    assert said in card(**found)


def test_a_refused_model_says_why():
    shown = card("state-spaces/mamba-130m", supported=False, reason="mamba has no attention.", layers=[])
    assert "mamba has no attention." in shown
    assert "numbers are trained" not in shown


def test_the_catalogue_says_what_it_knows_and_warnings_come_along():
    shown = card("meta-llama/Llama-3.2-1B", warnings=["Half of the layers look back 512 tokens only."])
    for said in ("Llama 3.2 Community Licence", "asks for access on the Hub", "Half of the layers look back"):
        assert said in shown
