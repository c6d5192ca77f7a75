"""The form has a component for every field of a recipe, so that a recipe that is read in loses nothing."""

from __future__ import annotations

import gradio as gr
import pytest
from pydantic import BaseModel

from prefix_studio.recipe import Recipe
from prefix_studio.ui.form import AS_LONG_AS_TEXT, SPREAD, first_values, recipe_of, values_of
from prefix_studio.ui.tune_form import Form, build_form


@pytest.fixture(scope="module")
def form() -> Form:
    with gr.Blocks():
        return build_form([("Bundled", "bundled")], [("Restaurants", "sample:restaurants")], first_values())


def keys_of(part: type[BaseModel], before: str = "") -> set[str]:
    """`training.seed` and so on, by the recipe's own definition."""
    keys = set()
    for name, field in part.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= keys_of(field.annotation, f"{name}.")
        else:
            keys.add(before + name)
    return keys


def test_every_field_of_a_recipe_has_a_component(form):
    assert set(form.fields) - {AS_LONG_AS_TEXT} == keys_of(Recipe)
    assert form.fields.keys() == first_values().keys()


def test_every_component_can_be_changed_and_opens_with_the_default(form):
    for name, component in form.fields.items():
        assert component.interactive, name
        assert component.value == first_values()[name], name


def test_choices_are_those_of_the_recipe(form):
    for name, component in form.fields.items():
        if name in ("model.id", SPREAD):
            continue
        for _, choice in getattr(component, "choices", None) or ():
            value = [choice] if isinstance(component, gr.CheckboxGroup) else choice
            assert values_of(recipe_of(first_values() | {name: value}))[name] == value
