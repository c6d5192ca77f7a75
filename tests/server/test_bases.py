"""Loaded models are shared, and let go."""

from __future__ import annotations

import shutil

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart
from prefix_studio.server import bases as bases_module
from prefix_studio.server.bases import Bases
from prefix_studio.settings import BUNDLED_MODEL


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bases(clock):
    return Bases(idle_seconds=600, clock=clock)


@pytest.fixture
def other(tmp_path):
    """The bundled model again, in a folder of its own: another model as far as anybody can tell."""
    folder = tmp_path / "other"
    folder.mkdir()
    for path in BUNDLED_MODEL.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return ModelPart(id=str(folder))


def test_a_model_is_loaded_once_under_all_its_names(bases):
    base = bases.get(ModelPart())
    assert bases.get(ModelPart(id=str(BUNDLED_MODEL))) is base
    assert base.tokenizer.eos_token_id in base.eos_ids


def test_unused_models_are_let_go_and_used_ones_stay(bases, clock, other):
    bundled, second = bases.get(ModelPart()), bases.get(other)
    clock.now = 500
    bases.get(ModelPart())
    clock.now = 700
    bases.unload_idle()
    assert bases.get(ModelPart()) is bundled
    assert bases.get(other) is not second


def test_the_least_recently_used_makes_room(bases, clock, other, monkeypatch):
    bundled = bases.get(ModelPart())
    free = iter([0, 10**12, 10**12])
    monkeypatch.setattr(bases_module, "available_memory", lambda: next(free))
    second = bases.get(other)
    monkeypatch.undo()
    assert bases.get(other) is second
    assert bases.get(ModelPart()) is not bundled


def test_a_model_larger_than_memory_is_refused(bases, monkeypatch):
    monkeypatch.setattr(bases_module, "available_memory", lambda: 1000)
    with pytest.raises(StudioError, match="memory is too small for the bundled model: it needs 0.0 GB") as caught:
        bases.get(ModelPart())
    assert caught.value.category == "memory"
