"""A tiny model in a folder, rows in files, and a run that keeps its events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prefix_studio.recipe import Recipe
from prefix_studio.settings import BUNDLED_MODEL
from prefix_studio.training.run import train


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Results are compared to the bit, and tests share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random Llama of two narrow layers, with the bundled model's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """24 rows of unequal length."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    names = ["Ada", "Ben", "Cleo", "Dora"]
    rows = [
        {"prompt": f"{names[i % 4]} has {i} apples =>", "completion": f" {names[i % 4]}" + " counts" * (1 + i % 5)}
        for i in range(24)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def make_recipe(tiny_folder, rows_file):
    """A short recipe on the tiny model; each part's fields can be changed by name."""

    def make(**parts: dict[str, Any]) -> Recipe:
        fields: dict[str, Any] = {
            "model": {"id": str(tiny_folder)},
            "data": {"source": str(rows_file), "validation": 0.25, "max_length": 64},
            "prefix": {"num_virtual_tokens": 4, "init_text": "Question: "},
            "training": {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 0.1, "eval_steps": 2},
            "evaluation": {"samples": 2, "max_new_tokens": 4},
        }
        for name, part in parts.items():
            fields[name] = fields.get(name, {}) | part
        return Recipe.from_fields(fields)

    return make


class Run:
    """A run in a folder, with all its events."""

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder
        self.events: list[dict[str, Any]] = []

    def go(self, *, pause_after: int | None = None, stop=lambda event: None, killed_at: int | None = None) -> str:
        """Trains. pause_after: asks for a pause once this step is done. stop: gives the word to stop with, from the
        newest event. killed_at: dies when this step is reported."""
        asked: list[str] = []

        def report(event: dict[str, Any]) -> None:
            self.events.append(event)
            step = event["step"] if event["event"] == "step" else None
            if killed_at is not None and step == killed_at:
                raise Killed
            if pause_after is not None and step == pause_after:
                asked.append("pause")

        def should_stop() -> str | None:
            return asked[0] if asked else stop(self.events[-1])

        return train(self.recipe, self.folder, report, should_stop, device="cpu")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def losses(self) -> dict[int, float]:
        """The last told loss of every step."""
        return {event["step"]: event["loss"] for event in self.of("step")}

    @property
    def eval_losses(self) -> dict[int, float]:
        return {event["step"]: event["eval_loss"] for event in self.of("eval")}

    @property
    def adapter(self) -> bytes:
        return (self.folder / "adapter" / "adapter_model.safetensors").read_bytes()

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


class Killed(BaseException):
    """Stands for kill -9: nothing in the program catches it."""


@pytest.fixture
def make_run(make_recipe, tmp_path):
    """make_run("name", training={...}) is a Run in a folder of its own."""

    def make(name: str, **parts: dict[str, Any]) -> Run:
        return Run(make_recipe(**parts), tmp_path / name)

    return make


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
