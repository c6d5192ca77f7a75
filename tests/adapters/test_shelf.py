"""Adapters on the shelf: seen by their owner, renamed, deleted, zipped for the road and taken in with suspicion."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from prefix_studio.adapters.shelf import Shelf
from prefix_studio.errors import StudioError
from prefix_studio.settings import BUNDLED_MODEL


@dataclass
class FinishedRun:
    id: str
    name: str
    owner: str = "local"
    state: str = "finished"
    created: float = 1.0


class Queue:
    """As much of the queue as the shelf asks for."""

    def __init__(self, *runs):
        self.runs = {run.id: run for run in runs}

    def list(self, owner=None):
        return [run for run in self.runs.values() if owner in (None, run.owner)]

    def rename(self, run_id, name, owner=None):
        self.runs[run_id].name = name


def write_adapter(folder, tokens=3, layers=2, width=4, **config):
    folder.mkdir(parents=True)
    fields = {
        "peft_type": "PREFIX_TUNING",
        "base_model_name_or_path": "bundled",
        "num_virtual_tokens": tokens,
        "num_layers": layers,
        "token_dim": width,
    }
    (folder / "adapter_config.json").write_text(json.dumps(fields | config))
    save_file(
        {"prompt_embeddings": np.zeros((3, 16), dtype=np.float32)},
        folder / "adapter_model.safetensors",
    )
    return folder


@pytest.fixture
def shelf(home):
    write_adapter(home.runs / "r1" / "adapter")
    (home.runs / "r1" / "recipe.yaml").write_text("data: {source: 'sample:restaurants'}\n")
    (home.runs / "r1" / "result.json").write_text('{"eval_loss": 0.5, "base_loss": 4.0}')
    samples = [{"prompt": "a", "references": ["b"], "base": "```x", "tuned": "b"}]
    (home.runs / "r1" / "samples.json").write_text(json.dumps(samples))
    return Shelf(home, Queue(FinishedRun("r1", "Köche & co"), FinishedRun("r2", "other", owner="grace")))


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def adapter_files(folder):
    return {name: (folder / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}


def test_a_finished_runs_adapter_stands_on_the_shelf(shelf):
    (row,) = shelf.list("local")
    assert (row.id, row.name, row.base_model, row.num_virtual_tokens) == ("r1", "Köche & co", "bundled", 3)
    assert row.metrics["eval_loss"] == 0.5


def test_another_persons_adapter_is_not_there(shelf):
    assert shelf.list("grace") == []
    with pytest.raises(StudioError, match="There is no adapter 'r1'"):
        shelf.get("r1", "grace")


def test_the_zip_holds_pefts_files_a_card_and_the_recipe(shelf):
    path = shelf.zip("r1", "local")
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "README.md",
            "recipe.yaml",
            "result.json",
            "samples.json",
        }
        card = archive.read("README.md").decode()
    front_matter = yaml.safe_load(card.split("---")[1])
    assert front_matter["library_name"] == "peft"
    assert "PeftModel.from_pretrained" in card
    assert "| base loss | 4 |" in card
    assert "````text" in card, "a fence inside a sample cannot close the block"


def test_the_zip_tells_nothing_of_this_machines_folders(shelf, home):
    config = home.runs / "r1" / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"bundled"', json.dumps(str(BUNDLED_MODEL))))
    (home.runs / "r1" / "recipe.yaml").write_text("data: {source: /home/ada/secret/rows.csv}\n")
    with zipfile.ZipFile(shelf.zip("r1")) as archive:
        assert json.loads(archive.read("adapter_config.json"))["base_model_name_or_path"] == "bundled"
        for name in ("README.md", "recipe.yaml"):
            text = archive.read(name).decode()
            assert "rows.csv" in text
            assert "/home/ada" not in text
            assert str(BUNDLED_MODEL) not in text


def test_what_was_zipped_can_be_imported_renamed_and_deleted(shelf):
    adapter_id = shelf.import_zip(shelf.zip("r1"), "ada")
    assert [row.id for row in shelf.list("ada")] == [adapter_id]
    assert shelf.list("local")[0].id == "r1"
    shelf.rename(adapter_id, "  mine  ", "ada")
    assert shelf.get(adapter_id, "ada").name == "mine"
    assert shelf.get(adapter_id, "ada").metrics["base_loss"] == 4.0
    shelf.delete(adapter_id, "ada")
    assert shelf.list("ada") == []


def test_renaming_a_trained_adapter_renames_its_run(shelf):
    shelf.rename("r1", "new")
    assert shelf.runs.runs["r1"].name == "new"
    with pytest.raises(StudioError, match="name is empty"):
        shelf.rename("r1", "  ")


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"../evil.txt": "x"}, "leaves its folder"),
        ({"/etc/evil": "x"}, "leaves its folder"),
        ({"adapter_model.bin": "x"}, "a pickle"),
        ({"second/adapter_config.json": "{}"}, "holds 2 files named adapter_config.json"),
    ],
)
def test_an_unsafe_zip_is_refused_and_leaves_nothing(shelf, home, tmp_path, extra, sentence):
    path = zip_of(tmp_path / "bad.zip", adapter_files(home.runs / "r1" / "adapter") | extra)
    with pytest.raises(StudioError, match=sentence):
        shelf.import_zip(path)
    assert list(home.adapters.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "LORA"}, "of PEFT type LORA, not PREFIX_TUNING"),
        ({"num_virtual_tokens": 5}, "holds 3 x 16 numbers, but adapter_config.json beside it says 5 x 16"),
        ({"token_dim": "wide"}, "says token_dim: 'wide'"),
    ],
)
def test_an_adapter_that_does_not_fit_itself_is_refused(shelf, tmp_path, config, sentence):
    folder = write_adapter(tmp_path / "adapter", **config)
    with pytest.raises(StudioError, match=sentence):
        shelf.import_zip(zip_of(tmp_path / "a.zip", adapter_files(folder)))


def test_files_that_are_no_zip_are_refused(shelf, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(StudioError, match=r"a\.zip is not a zip file"):
        shelf.import_zip(tmp_path / "a.zip")
    with pytest.raises(StudioError, match="There is no file"):
        shelf.import_zip(tmp_path / "none.zip")
