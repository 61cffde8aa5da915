"""Which layer is found, and what is said where none is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import HardswishNet, MlpNet, PoolNet, ResidualNet, SegmentationNet, SignalNet, VolumeNet
from torch import nn

from lightning_ifa.errors import LayerError
from lightning_ifa.features.layers import find_layer

IMAGE = (2, 1, 12, 12)


@pytest.mark.parametrize(
    ("model", "shape", "name"),
    [
        (PoolNet, IMAGE, "features"),
        (MlpNet, IMAGE, "pool"),
        (ResidualNet, IMAGE, "bn2"),  # the last ReLU runs twice
        (HardswishNet, IMAGE, "features"),
        (SignalNet, (2, 2, 20), "conv"),
        (VolumeNet, (2, 1, 4, 4, 4), "conv"),
        (SegmentationNet, (2, 1, 8, 8), "decoder"),  # its class planes are the answer, not features
    ],
)
def test_last_layer_with_spatial_output(model, shape, name):
    assert find_layer(model().eval(), torch.randn(shape)).place.name == name


def test_layer_whose_freed_memory_the_output_gets_is_still_found():
    buffer = np.zeros((2, 8, 12, 12), dtype=np.float32)

    class AtOneAddress(nn.Module):
        def forward(self, x):
            torch.from_numpy(buffer).copy_(x)
            return torch.from_numpy(buffer)

    class Reuses(PoolNet):
        def __init__(self):
            super().__init__()
            self.last = AtOneAddress()

        def forward(self, x):
            self.last(self.features(x))
            return torch.from_numpy(buffer).flatten(1)[:, :3]

    assert find_layer(Reuses().eval(), torch.randn(IMAGE)).place.name == "last"


def test_compiled_parts_keep_their_plain_names():
    model = PoolNet().eval()
    model.features = torch.compile(model.features, backend="eager")
    assert find_layer(model, torch.randn(IMAGE)).place.name == "features"
    assert find_layer(model, torch.randn(IMAGE), "features.0").place.name == "features.0"


def test_misspelt_name_gets_the_nearest_one():
    with pytest.raises(LayerError, match=r'no layer "featurs.3"; did you mean "features.3"\?'):
        find_layer(PoolNet().eval(), torch.randn(IMAGE), "featurs.3")


def test_layer_without_space_names_those_that_would_do():
    with pytest.raises(LayerError, match=r'"head" returns \(2, 3\).*"features" \(2, 8, 12, 12\)'):
        find_layer(PoolNet().eval(), torch.randn(IMAGE), "head")


def test_network_without_maps():
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(LayerError, match=r'no layer with spatial output.*"0" \(2, 144\)'):
        find_layer(model.eval(), torch.randn(IMAGE))


def test_no_hook_stays_even_if_the_model_fails():
    model = PoolNet().eval()
    with pytest.raises(RuntimeError):
        find_layer(model, torch.randn(2, 5, 12, 12))
    assert not any(module._forward_hooks for module in model.modules())
