"""A studio with real rooms on a fresh home; where a test needs no model, a stand-in answers for the model process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.ui.studio import Studio

CHECK = {
    "supported": True,
    "reason": "",
    "family": "llama",
    "trainable_share": 640 / 64_640,
    "layers": [{"index": 0, "key_shape": [2, 8], "value_shape": [2, 8]}],
    "trainable_parameters": 640,
    "all_parameters": 64_000,
    "memory_bytes": 10**9,
    "warnings": [],
    "memory_available_bytes": 8 * 10**9,
    "largest_batch_size": 150,
    "num_layers": 1,
    "encoder_decoder": False,
}


class ModelStandIn:
    """Answers like the model process, from what a test puts here; an exception is raised instead."""

    def __init__(self) -> None:
        self.answers = {
            "check": CHECK,
            "preview": {"report": {"rows_read": 1, "rows_used": 1, "dropped": [], "warnings": []}, "examples": []},
            "inspect": {"columns": ["q", "a"], "rows": [], "row_count": 1, "mapping": {}},
            "estimate": {
                "seconds": 95.0,
                "steps": 200,
                "memory_bytes": 10**9,
                "trainable_parameters": 640,
                "all_parameters": 64_000,
            },
            "validation_prompts": [],
            "compare": iter(()),
        }
        self.asked: list[tuple[str, tuple, dict]] = []

    def state(self) -> str:
        return "ready"

    def __getattr__(self, name):
        def answer(*arguments, **named):
            self.asked.append((name, arguments, named))
            given = self.answers[name]
            if isinstance(given, StudioError):
                raise given
            return given

        return answer


@pytest.fixture
def models() -> ModelStandIn:
    return ModelStandIn()


@pytest.fixture
def studio(home, models) -> Studio:
    return replace(Studio.open(home), models=models)
