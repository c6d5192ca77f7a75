"""A rehearsal: what a model without storage makes of a step is what a real one makes of it, to the byte."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prefix_studio.models.memory import TrainingMemory
from prefix_studio.models.rehearsal import Bytes, rehearsal
from prefix_studio.prefix.shape import prefix_shape, submodule_shapes
from prefix_studio.recipe import PrefixPart, TrainingPart
from tests.prefix.zoo import DECODERS, ENCODER_DECODERS, config_of, model_of

LINEAR = nn.Linear(100, 100, bias=False)


def skeleton_of(name):
    config = config_of(name)
    with torch.device("meta"):
        return type(model_of(name))(config).eval().requires_grad_(False)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODER_DECODERS])
def test_a_step_takes_the_bytes_of_a_real_one(name, checkpointing):
    real, skeleton = model_of(name), skeleton_of(name)
    prefix = PrefixPart(num_virtual_tokens=6, init="random")
    training = TrainingPart(gradient_checkpointing=checkpointing)
    memory = TrainingMemory(skeleton, submodule_shapes(real), prefix, 6, training, weights=0)
    with Bytes(real) as taken:
        memory.step(real, batch_size=3, max_length=14)
    with rehearsal(skeleton) as counted:
        memory.step(skeleton, batch_size=3, max_length=14)
    assert counted.peak == pytest.approx(taken.peak, rel=0.02)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODER_DECODERS])
def test_shapes_are_those_of_the_real_model(name):
    skeleton = skeleton_of(name)
    with rehearsal(skeleton):
        assert prefix_shape(skeleton) == prefix_shape(model_of(name))
    assert all("forward" not in vars(module) for module in skeleton.modules())


def test_bytes_count_what_is_alive():
    with Bytes(LINEAR) as counted:
        one = torch.zeros(1000)
        two = one[10:]  # the same storage
        assert counted.now == 4000
        del one
        assert counted.now == 4000
        three = two + 1
        assert counted.now == 4000 + 3960
        del two, three
    assert counted.now == 0
    assert counted.peak == 7960


def test_the_models_own_weights_are_not_counted():
    with torch.no_grad(), Bytes(LINEAR) as counted:
        transposed = LINEAR.weight.T
        assert counted.now == 0
        result = torch.ones(3, 100) @ transposed
    assert counted.now == result.nbytes


def test_values_are_there_where_no_weight_has_a_part(tiny):
    with rehearsal(tiny) as counted:
        mask = torch.tensor([[1, 1, 0]], device=tiny.device) > 0
        assert int(mask.sum()) == 2
        hidden = tiny.get_input_embeddings()(torch.tensor([[1, 2, 3]]))
        assert hidden[mask].shape == (2, hidden.shape[-1])
        assert not mask.is_meta
        assert hidden.is_meta
        large = torch.zeros(2**40, dtype=torch.bool)
        assert large.is_meta
    assert counted.peak >= 2**40


def test_tensors_say_that_they_are_on_the_real_device(tiny):
    with rehearsal(tiny, "cpu"):
        assert tiny.get_input_embeddings().weight.device.type == "cpu"
    assert tiny.get_input_embeddings().weight.device.type == "meta"


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "qwen3_5", "t5"])
def test_a_gpu_is_rehearsed_without_one(name, checkpointing):
    skeleton, prefix = skeleton_of(name), PrefixPart(num_virtual_tokens=6, init="random")
    training = TrainingPart(gradient_checkpointing=checkpointing)
    memory = TrainingMemory(skeleton, submodule_shapes(model_of(name)), prefix, 6, training, weights=0)
    peaks = []
    for device in ("cpu", "cuda"):
        with rehearsal(skeleton, device) as counted:
            memory.step(skeleton, batch_size=3, max_length=14)
        peaks.append(counted.peak)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)


@pytest.fixture
def tiny():
    return skeleton_of("llama")
