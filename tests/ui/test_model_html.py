"""The model's card: whether it takes a prefix, on which layers, what is trained and whether it fits."""

from __future__ import annotations

import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.ui.model_html import model_card
from tests.ui.conftest import CHECK


def card(model="bundled", **found):
    return model_card(Recipe.from_fields({"model": {"id": model}, "data": {"source": "rows.csv"}}), CHECK | found)


def layers(**counts):
    """Layers by the attention they belong to."""
    return [
        {"index": index, "key_shape": [2, 8], "value_shape": [2, 8]}
        | ({} if name == "decoder" else {"submodule": name})
        for name, count in counts.items()
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"layers": layers(decoder=12), "num_layers": 12}, "12 of 12 layers take a prefix."),
        ({"layers": layers(decoder=3), "num_layers": None}, "3 of 3 layers take a prefix."),
        (
            {"layers": layers(decoder=6), "num_layers": 6, "encoder_decoder": True},
            "6 of 6 layers of the decoder take a prefix.",
        ),
        (
            {"layers": layers(decoder=4, encoder=6, cross=4), "num_layers": 4, "encoder_decoder": True},
            "A prefix goes into the encoder&#x27;s 6 layers, the decoder&#x27;s 4 and the 4 that join them.",
        ),
    ],
    ids=["all", "nobody knows of how many", "a decoder's", "all three places"],
)
def test_the_layers_that_take_a_prefix(found, said):
    assert said in card(**found)


def test_where_some_layers_take_none_the_check_says_it_once():
    warning = "The prefix goes into 2 of 8 layers. Of the others, 6 have a running state instead of keys and values."
    shown = card(layers=layers(decoder=2), num_layers=8, warnings=[warning])
    assert shown.count("2 of 8 layers") == 1


def test_how_much_is_trained():
    assert "640 numbers are trained beside the model&#x27;s 64,000: 1.0% of all." in card()


def test_whether_it_fits():
    said = "8 rows of 512 tokens would take about 1.0 GB of memory; 8.0 GB are free, enough for 150."
    assert said in card()
    assert "rows of" not in card(memory_available_bytes=10**8), "the check warns of it, with the way out"


def test_a_refused_model_says_why():
    shown = card("state-spaces/mamba-130m", supported=False, reason="mamba has no attention.", layers=[])
    assert "mamba has no attention." in shown
    assert "numbers are trained" not in shown


def test_the_catalogue_says_what_it_knows_and_warnings_come_along():
    shown = card("meta-llama/Llama-3.2-1B", warnings=["Half of the layers look back 512 tokens only."])
    for said in ("Llama 3.2 Community Licence", "asks for access on the Hub", "Half of the layers look back"):
        assert said in shown
