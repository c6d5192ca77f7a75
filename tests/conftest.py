"""What every test may use: a home of its own, the bundled model, and never the network."""

from __future__ import annotations

import os

# Read by the Hub's client when it is imported: tests talk to loopback stand-ins or to nobody.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are slower on several threads than on one, and results are compared to the bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest

from prefix_studio.settings import BUNDLED_MODEL, Settings


@pytest.fixture
def home(tmp_path, monkeypatch) -> Settings:
    """Settings with a fresh home, which child processes inherit."""
    monkeypatch.setenv("PREFIX_STUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFIX_STUDIO_AUTH", raising=False)
    return Settings.from_environment().prepare()


@pytest.fixture(scope="session")
def bundled():
    """The bundled base model in fp32 and its tokenizer; nobody may change them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype="float32").eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(BUNDLED_MODEL)
