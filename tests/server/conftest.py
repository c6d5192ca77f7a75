"""Adapters for the bundled model, made from texts so that they need no training."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def text_adapter(bundled):
    """make(folder, text, length=None): saves the text's own keys and values as an adapter there."""
    from prefix_studio.prefix.files import save_adapter
    from prefix_studio.prefix.initialise import text_prefix
    from prefix_studio.settings import BUNDLED_MODEL

    def make(folder, text, length=None):
        save_adapter(folder, text_prefix(*bundled, text, length), bundled[0], base_model=str(BUNDLED_MODEL))
        return folder

    return make
