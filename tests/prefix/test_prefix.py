"""A prefix as a value: its order when flattened, and that flattening loses nothing."""

from __future__ import annotations

import pytest
import torch

from prefix_studio.prefix.prefix import Prefix


def test_the_flat_order_is_token_then_layer_then_key_or_value_then_head():
    flat = torch.arange(3 * 2 * 2 * 2 * 5).view(3, -1).float()  # 3 tokens, 2 layers, 2 heads of 5
    prefix = Prefix.unflatten(flat, kv_heads=2, head_dim=5)
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
    prefix = Prefix.unflatten(flat, 1, 4)
    assert prefix.keys[0].requires_grad
    assert not prefix.detach().keys[0].requires_grad
    assert prefix.to(dtype=torch.bfloat16).values[1].dtype == torch.bfloat16
    assert prefix.values[1].dtype == torch.float32


def test_keys_without_values_are_no_prefix():
    with pytest.raises(ValueError, match="1 keys and 0 values"):
        Prefix((torch.zeros(1, 1, 1),), ())
