"""Memory before the start: it grows with what is asked for, takes none itself, and knows its container's limits."""

from __future__ import annotations

import logging

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from prefix_studio.models import memory as module
from prefix_studio.models.memory import PROCESS_BYTES, TrainingMemory, available_memory
from prefix_studio.models.rehearsal import rehearsal
from prefix_studio.prefix.encoder import trainable_parameters
from prefix_studio.prefix.shape import submodule_shapes
from prefix_studio.recipe import PrefixPart, TrainingPart

SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
# Llama-3.2-1B's architecture: 1.2 billion parameters.
BILLION = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


@pytest.fixture
def memory_of():
    """memory_of(...) is the TrainingMemory of a Llama of such fields, and of such prefix and training parts."""

    def make(fields=SMALL, prefix=None, weights=0, **training):
        part = PrefixPart(**{"num_virtual_tokens": 20, "init": "random", **(prefix or {})})
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(LlamaConfig(**fields)).eval().requires_grad_(False)
        with rehearsal(skeleton):
            shapes = submodule_shapes(skeleton, part.submodules)
        return TrainingMemory(skeleton, shapes, part, part.num_virtual_tokens, TrainingPart(**training), weights)

    return make


def test_it_is_the_process_the_weights_and_the_step(memory_of):
    assert memory_of().bytes(2, 16) == PROCESS_BYTES + memory_of().step_bytes(2, 16)
    assert memory_of(weights=10**9).bytes(2, 16) == memory_of().bytes(2, 16) + 10**9


def test_a_step_keeps_the_prefix_its_gradient_and_two_moments(memory_of):
    memory = memory_of(prefix={"prefix_projection": True, "encoder_hidden_size": 16384})
    learned = 4 * trainable_parameters(memory.shapes, memory.prefix, 20)
    assert 4 * learned < memory.step_bytes(1, 8) < 6 * learned


def test_it_grows_with_rows_and_tokens(memory_of):
    memory = memory_of({**SMALL, "vocab_size": 100})
    small = memory.step_bytes(8, 64)
    assert 1.5 * small < memory.step_bytes(16, 64) < 2.5 * small
    assert 1.5 * small < memory.step_bytes(8, 128) < 2.5 * small


def test_gradient_checkpointing_takes_less(memory_of):
    deep = {**SMALL, "num_hidden_layers": 12}
    assert memory_of(deep, gradient_checkpointing=True).step_bytes(16, 128) < memory_of(deep).step_bytes(16, 128) / 2


def test_the_logits_of_a_large_vocabulary_stay_small(memory_of):
    narrow, wide = (memory_of({**SMALL, "vocab_size": size}).step_bytes(16, 128) for size in (1000, 200_000))
    assert wide - narrow < 16 * 128 * 200_000 * 4 / 2  # less than half of all logits once


def test_a_model_of_a_billion_parameters_is_rehearsed_without_its_memory(memory_of):
    process = psutil.Process()
    before = process.memory_info().rss
    memory = memory_of(BILLION, weights=2 * 1_235_814_400)
    assert 3e9 < memory.bytes(1, 512) < 2e10
    assert process.memory_info().rss - before < 2e8


def test_the_largest_batch_fits_and_a_larger_one_does_not(memory_of):
    memory = memory_of()
    for room in (50_000_000, 200_000_000, 2_000_000_000):
        available = PROCESS_BYTES + room
        largest = memory.largest_batch(64, available)
        assert memory.bytes(largest, 64) < available + 0.05 * room
        assert memory.bytes(2 * largest, 64) > available


def test_the_largest_batch_may_be_none_at_all(memory_of):
    assert memory_of(weights=10**12).largest_batch(64, 10**9) == 0


def test_large_batches_are_reckoned_rather_than_rehearsed(memory_of, monkeypatch):
    memory = memory_of()
    seen = []
    step = memory.step
    monkeypatch.setattr(memory, "step", lambda model, rows, *rest: seen.append(rows) or step(model, rows, *rest))
    reckoned = memory.bytes(1024, 64)
    assert max(seen) == 128
    assert reckoned == pytest.approx(PROCESS_BYTES + memory.step_bytes(1024, 64), rel=0.2)


def test_what_cannot_be_rehearsed_is_estimated_by_its_widths(memory_of, monkeypatch, caplog):
    rehearsed = memory_of().bytes(16, 128)

    def fails(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(module, "completion_loss", fails)
    with caplog.at_level(logging.WARNING):
        by_width = memory_of().bytes(16, 128)
    assert "no such kernel" in caplog.text
    assert rehearsed / 2 < by_width < 2 * rehearsed


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000\n", "memory.current": "400", "memory.stat": "anon 300\ninactive_file 50\n"}, [650]),
        ({"memory.max": "max\n", "memory.current": "400", "memory.stat": "inactive_file 50\n"}, []),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "1200",
                "memory/memory.stat": "total_inactive_file 0",
            },
            [0],
        ),
        ({}, []),
    ],
    ids=["version-2", "no-limit", "version-1-and-full", "none"],
)
def test_a_container_may_have_less_than_the_machine(files, free, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "CONTROL_GROUPS", tmp_path)
    assert module.container_memory() == free


def test_the_smaller_of_machine_and_container_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "container_memory", lambda: [1000])
    assert available_memory() == 1000
    monkeypatch.setattr(module, "container_memory", lambda: [])
    assert 0 < available_memory() <= psutil.virtual_memory().total
