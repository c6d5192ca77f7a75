"""The catalogue is what the form offers first: complete, honest about size, and cheap to read."""

from __future__ import annotations

import subprocess
import sys

from prefix_studio.models.catalogue import catalogue, find
from prefix_studio.settings import PROJECT


def test_the_bundled_model_comes_first_with_its_real_size(bundled):
    entry = catalogue()[0]
    assert entry.id == "bundled"
    assert entry.parameters == bundled[0].num_parameters()
    assert 0 < entry.size_mb <= 20
    assert entry.recommended["prefix"]["num_virtual_tokens"] > 0


def test_every_entry_is_told_in_full():
    ids = [entry.id for entry in catalogue()]
    assert len(set(ids)) == len(ids) >= 24
    for entry in catalogue():
        assert entry.title
        assert entry.licence
        assert entry.note.endswith(".")
        assert entry.id == "bundled" or entry.id.count("/") == 1
        # 2 bytes a parameter at least; tied weights and other precisions make it more, never five times.
        assert 1.9 <= entry.size_mb * 1e6 / entry.parameters <= 5, entry.id


def test_gated_models_are_marked():
    gated = {entry.id for entry in catalogue() if entry.gated}
    assert gated == {
        "meta-llama/Llama-3.2-1B",
        "meta-llama/Llama-3.2-3B",
        "google/gemma-3-270m",
        "google/gemma-3-1b-pt",
    }


def test_a_model_is_found_by_its_id():
    assert find("Qwen/Qwen3-0.6B").family == "qwen3"
    assert find("nobody/nothing") is None


def test_reading_it_needs_no_torch():
    code = (
        "import sys; from prefix_studio.models.catalogue import catalogue; from prefix_studio.models import hub; "
        "catalogue(); print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert process.stdout.strip() == "[]", process.stderr
