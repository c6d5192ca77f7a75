"""The benchmark of a training step measures what it says: the same rows and the same loss for every peer."""

from __future__ import annotations

import csv
import importlib
from types import SimpleNamespace

import pytest

from benchmarks import speed
from benchmarks.peers import models

LLAMA = {
    "vocab_size": 1100,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 160,
}
BATCH, STEPS = 4, 3


@pytest.fixture
def task(monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "llama", LLAMA)
    models.prepare(tmp_path, "llama", None, BATCH * STEPS)
    return speed.Task.load(tmp_path, "llama", BATCH, STEPS, seed=0)


def test_rows_are_as_long_as_they_were_drawn(task, tmp_path):
    with (tmp_path / "rows.csv").open() as file:
        texts = list(csv.DictReader(file))
    rows = task.rows(task.tokenizer())
    assert len(rows) == len(texts) == BATCH * STEPS
    for text, row in zip(texts, rows, strict=True):
        learned = [label for label in row.labels if label != -100]
        assert len(learned) == len(text["ref"].split()) + 1  # and the end
        assert len(row.input_ids) - len(learned) == len(text["mr"].split())
        assert 7 <= len(learned) - 1 <= 64


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_every_peer_trains_and_those_with_a_prefix_start_at_one_loss(task):
    losses = {}
    for name in ("floor", "ours", "stock"):
        figures = speed.measure(importlib.import_module(f"benchmarks.peers.{name}"), task)
        assert set(speed.FIGURES) < set(figures)
        assert figures["step_cpu_s"] > 0
        assert figures["peak_mb"] > 100
        losses[name] = figures["start_loss"]
    assert losses["floor"] is None
    assert losses["ours"] == pytest.approx(losses["stock"], abs=speed.LOSS_TOLERANCE)


def figures(seconds, loss):
    return {"step_cpu_s": seconds, "step_s": seconds, "start_s": 1, "peak_mb": 1, "above_mb": 1, "start_loss": loss}


def test_ratios_are_those_of_the_medians(capsys):
    runs = {
        "stock": [figures(seconds, 2.0) for seconds in (4.0, 90.0, 6.0)],
        "floor": [figures(2.0, None)] * 3,
        "ours": [figures(3.0, 2.0)] * 3,
    }
    speed.print_table("llama", runs, SimpleNamespace(batch=8, steps=8, threads=1, rounds=3))
    line = next(line for line in capsys.readouterr().out.splitlines() if "CPU seconds" in line)
    assert [float(cell) for cell in line.split("|")[2:-1]] == [6, 2, 3, 1.5, 2]


def test_different_losses_fail(capsys):
    assert speed.same_loss({"stock": [figures(1, 2.0)], "floor": [figures(1, None)], "ours": [figures(1, 2.00001)]})
    assert not speed.same_loss({"stock": [figures(1, 2.0)], "ours": [figures(1, 2.001)]})
    assert "means nothing" in capsys.readouterr().err
