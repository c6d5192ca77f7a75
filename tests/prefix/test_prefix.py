"""A prefix as a value: its order when flattened, and that flattening loses nothing."""

from __future__ import annotations

import pytest
import torch

from prefix_studio.prefix.prefix import LayerShape, Prefix


def test_the_flat_order_is_token_then_layer_then_key_or_value_then_head():
    flat = torch.arange(3 * 2 * 2 * 2 * 5).view(3, -1).float()  # 3 tokens, 2 layers, 2 heads of 5
    prefix = Prefix.unflatten(flat, [LayerShape(0, (2, 5), (2, 5)), LayerShape(1, (2, 5), (2, 5))])
    assert prefix.length == 3
    assert prefix.num_layers == 2
    assert prefix.keys[0].shape == (2, 3, 5)
    assert torch.equal(prefix.keys[0][0, 0], flat[0, 0:5])
    assert torch.equal(prefix.keys[0][1, 0], flat[0, 5:10])
    assert torch.equal(prefix.values[0][0, 0], flat[0, 10:15])
    assert torch.equal(prefix.keys[1][0, 2], flat[2, 20:25])
    assert torch.equal(prefix.flatten(), flat)


def test_moving_and_detaching_make_new_prefixes():
    flat = torch.randn(2, 2 * 2 * 4, requires_grad=True)
    prefix = Prefix.unflatten(flat, [LayerShape(index, (1, 4), (1, 4)) for index in range(2)])
    assert prefix.keys[0].requires_grad
    assert not prefix.detach().keys[0].requires_grad
    assert prefix.to(dtype=torch.bfloat16).values[1].dtype == torch.bfloat16
    assert prefix.values[1].dtype == torch.float32


def test_keys_without_values_are_no_prefix():
    with pytest.raises(ValueError, match="1 keys, 0 values"):
        Prefix((torch.zeros(1, 1, 1),), ())


def test_layers_may_differ_and_leave_others_out():
    shapes = [LayerShape(1, (2, 5), (1, 3)), LayerShape(4, (1, 4), (1, 4))]
    flat = torch.randn(3, 10 + 3 + 4 + 4)
    prefix = Prefix.unflatten(flat, shapes)
    assert prefix.layers == (1, 4)
    assert [tuple(states.shape) for states in (*prefix.keys, *prefix.values)] == [
        (2, 3, 5),
        (1, 3, 4),
        (1, 3, 3),
        (1, 3, 4),
    ]
    assert prefix.shapes == tuple(shapes)
    assert torch.equal(prefix.flatten(), flat)


def test_what_changes_a_prefix_changes_its_parts():
    part = Prefix((torch.ones(1, 2, 4),), (torch.ones(1, 2, 4),))
    whole = Prefix(part.keys, part.values, encoder=part, cross=part).to(dtype=torch.bfloat16)
    assert whole.encoder.keys[0].dtype == whole.cross.values[0].dtype == torch.bfloat16
