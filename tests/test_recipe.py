"""A recipe is complete by default, survives YAML, and says which field is wrong and how."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import PrefixPart, Recipe, default_learning_rate

MINIMAL = {"data": {"source": "sample:restaurants"}}


def refused(fields) -> str:
    with pytest.raises(StudioError) as caught:
        Recipe.from_fields(fields)
    return str(caught.value)


def test_only_the_source_of_the_data_is_required():
    recipe = Recipe.from_fields(MINIMAL)
    assert recipe.model.id == "bundled"
    assert recipe.data.validation == 0.1
    assert recipe.prefix.init == "text"


def test_a_recipe_survives_yaml():
    recipe = Recipe.from_fields(
        {
            "name": "Köche",
            "data": {"source": "rows.csv", "prompt": "{{ a }}\n", "completion": "{{ b }}", "validation": 40},
            "prefix": {"num_virtual_tokens": 7, "prefix_projection": True, "encoder_hidden_size": 64},
            "training": {"max_steps": 3, "learning_rate": 1e-5},
        }
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


DESIGNS_EXAMPLE = """
name: restaurants
model: {id: bundled, revision: null, dtype: auto, quantization: none}      # bundled | Hub id | folder
data:
  source: rows.csv            # path | sample:NAME | hub:OWNER/NAME[:CONFIG[:SPLIT]]
  format: prompt-completion   # | chat | text
  prompt: "{{ mr }}"          # Jinja over the columns (sandboxed)
  completion: "{{ ref }}"
  validation: 0.1             # share, row count, or a second path
  max_length: 512
prefix: {num_virtual_tokens: 20, init: text, init_text: "...", prefix_projection: false, encoder_hidden_size: null}
training: {num_train_epochs: 5, max_steps: null, per_device_train_batch_size: 16, learning_rate: 0.03, seed: 0,
           eval_steps: null, early_stopping_patience: null, gradient_checkpointing: false}
evaluation: {metrics: [loss], samples: 8}
"""


def test_a_recipe_from_before_later_fields_loads_as_it_stands():
    recipe = Recipe.from_yaml(DESIGNS_EXAMPLE)
    assert recipe.training.learning_rate == 0.03
    assert recipe.prefix.num_virtual_tokens == 20
    # What came later leaves such a run what it was.
    assert (recipe.prefix.num_frozen_tokens, recipe.prefix.submodules) == (0, "decoder")
    assert (recipe.training.loss_average, recipe.training.label_smoothing_factor) == ("token", 0)
    assert (recipe.training.weight_decay, recipe.model.device_map) == (0, None)


@pytest.mark.parametrize("training", [{}, {"training": {}}, {"training": {"learning_rate": None}}])
@pytest.mark.parametrize("model", ["bundled", "gpt2"])
def test_a_learning_rate_that_fits_the_start_is_filled_in(model, training):
    def rate(**prefix) -> float:
        fields = MINIMAL | training | {"model": {"id": model}, "prefix": prefix}
        return Recipe.from_fields(fields).training.learning_rate

    assert rate() == default_learning_rate(model, PrefixPart())
    for init in ("text", "random", "zero"):
        assert rate(init=init) > 5 * rate(init=init, prefix_projection=True)
    assert rate() == rate(), "filling one recipe in leaves the next one as it is"


def test_a_filled_in_learning_rate_is_a_number_for_whoever_reads_the_recipe():
    recipe = Recipe.from_fields(MINIMAL | {"prefix": {"prefix_projection": True}})
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert f"learning_rate: {recipe.training.learning_rate}" in recipe.to_yaml()


def test_the_bundled_model_brings_its_own_defaults_and_gives_way_to_the_persons():
    bundled = Recipe.from_fields(MINIMAL)
    other = Recipe.from_fields(MINIMAL | {"model": {"id": "gpt2"}})
    chosen = Recipe.from_fields(MINIMAL | {"training": {"learning_rate": 0.5}})
    assert bundled.training.learning_rate > other.training.learning_rate
    assert chosen.training.learning_rate == 0.5
    assert chosen.training.num_train_epochs == bundled.training.num_train_epochs


def test_unknown_fields_are_refused_by_name():
    assert refused({"data": {"source": "x", "sorce": 1}}) == (
        "The recipe is not valid: data.sorce is not a field (did you mean source?)."
    )
    assert "epochz is not a field (known: name, model, data, prefix, training, evaluation)" in refused(
        MINIMAL | {"epochz": 3}
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "The recipe is not valid: data is missing."),
        ({"data": {}}, "The recipe is not valid: data.source is missing."),
        (
            MINIMAL | {"training": {"learning_rate": -1}},
            "The recipe is not valid: training.learning_rate: input should be greater than 0, not -1.",
        ),
        (
            MINIMAL | {"training": {"max_steps": "many"}},
            "The recipe is not valid: training.max_steps: input should be a valid integer, unable to parse string as "
            "an integer, not 'many'.",
        ),
        (
            MINIMAL | {"prefix": {"init": "text", "init_text": " "}},
            "The recipe is not valid: prefix: init_text is empty, but init is text: write a text, or choose random or "
            "zero.",
        ),
        (
            MINIMAL | {"prefix": {"init": "zero", "num_virtual_tokens": None}},
            "The recipe is not valid: prefix: num_virtual_tokens is null, which only init: text can fill: give a "
            "number.",
        ),
        (
            MINIMAL | {"prefix": {"num_virtual_tokens": 4, "num_frozen_tokens": 4}},
            "The recipe is not valid: prefix: num_frozen_tokens 4 leaves none of the 4 virtual tokens to learn: lower "
            "it, 1 is enough to keep the attention sink.",
        ),
        (
            MINIMAL | {"prefix": {"submodules": "encoder"}},
            "The recipe is not valid: prefix.submodules: input should be 'decoder' or 'all', not 'encoder'.",
        ),
        (
            MINIMAL | {"training": {"loss_average": "row"}},
            "The recipe is not valid: training.loss_average: input should be 'token' or 'example', not 'row'.",
        ),
        (
            MINIMAL | {"training": {"label_smoothing_factor": 1}},
            "The recipe is not valid: training.label_smoothing_factor: input should be less than 1, not 1.",
        ),
        (
            {"data": {"source": "x", "validation": -3}},
            "The recipe is not valid: data.validation: must be a share between 0 and 1, a number of rows, or a path.",
        ),
        ([], "The recipe is not a mapping of fields. Start with `data:` and, under it, `source: rows.csv`."),
    ],
)
def test_wrong_values_are_named_with_the_way_out(fields, sentence):
    assert refused(fields) == sentence


def test_every_wrong_field_is_named_at_once():
    message = refused({"data": {"source": "x"}, "training": {"learning_rate": 0, "seed": -1}})
    assert "training.learning_rate" in message
    assert "training.seed" in message


def test_broken_yaml_names_line_and_column():
    with pytest.raises(StudioError, match="The recipe is not YAML: line 2, column 1"):
        Recipe.from_yaml("data: {source: [x\n")


def test_yaml_makes_no_objects():
    with pytest.raises(StudioError, match="not YAML"):
        Recipe.from_yaml("data: !!python/object/apply:os.system ['true']")


def test_paths_are_found_beside_the_recipe(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "recipe.yaml").write_text("data: {source: rows.csv, validation: 5}\n")
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert recipe.data.source == str(tmp_path / "rows.csv")
    assert recipe.data.validation == 5


def test_a_missing_recipe_says_so(tmp_path):
    with pytest.raises(StudioError, match=r"no\.yaml cannot be read: No such file"):
        Recipe.load(tmp_path / "no.yaml")
