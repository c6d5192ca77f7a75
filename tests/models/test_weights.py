"""Weight files by their headers alone."""

from __future__ import annotations

import json
import shutil

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.models.weights import WEIGHTS, WEIGHTS_INDEX, count_parameters, weight_files


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_parameters_are_counted_from_the_headers(folder):
    from safetensors.torch import load_file

    assert count_parameters(folder) == sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())


def test_an_index_names_the_shards(folder):
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[1], "b": shards[0], "c": shards[1]}}
    (folder / WEIGHTS_INDEX).write_text(json.dumps(index))
    assert weight_files(folder) == shards


@pytest.mark.parametrize("name", ["../../etc/passwd", "pytorch_model.bin", "/tmp/a.safetensors", 3])
def test_an_index_cannot_point_elsewhere(folder, name):
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(StudioError, match="names files that are not safetensors files beside it"):
        weight_files(folder)


def test_damage_is_named(folder):
    weights = folder / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(StudioError, match=rf"is damaged: {len(whole)} bytes expected, {len(whole) - 5} found"):
        count_parameters(folder)
    for content in (b"", b"PK\x03\x04 this is a zip file, not safetensors", b"\x02\0\0\0\0\0\0\0[]"):
        weights.write_bytes(content)
        with pytest.raises(StudioError, match="is damaged: it is not a safetensors file"):
            count_parameters(folder)
    (folder / WEIGHTS_INDEX).write_text("{}")
    with pytest.raises(StudioError, match="it lists no weight files"):
        weight_files(folder)
