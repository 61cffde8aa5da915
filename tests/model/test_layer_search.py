"""Which layer is found, and what is said where none is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import HardswishNet, MlpNet, PoolNet, ResidualNet, SegmentationNet, SignalNet, VolumeNet
from torch import nn

from lightning_ifa.errors import LayerError
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.layer_search import find_layer

IMAGE = (2, 1, 12, 12)


@pytest.mark.parametrize(
    ("model", "shape", "name"),
    [
        (PoolNet, IMAGE, "features"),
        (MlpNet, IMAGE, "pool"),
        (ResidualNet, IMAGE, "relu#1"),  # one ReLU runs twice
        (HardswishNet, IMAGE, "relu()"),
        (SignalNet, (2, 2, 20), "conv"),
        (VolumeNet, (2, 1, 4, 4, 4), "conv"),
        (SegmentationNet, (2, 1, 8, 8), "decoder"),  # its class planes are the answer, not features
    ],
)
def test_last_layer_with_spatial_output(model, shape, name):
    assert find_layer(model().eval(), torch.randn(shape)).target.name == name


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

    assert find_layer(Reuses().eval(), torch.randn(IMAGE)).target.name == "last"


def test_compiled_parts_keep_their_plain_names():
    model = PoolNet().eval()
    model.features = torch.compile(model.features, backend="eager")
    assert find_layer(model, torch.randn(IMAGE)).target.name == "features"
    assert find_layer(model, torch.randn(IMAGE), "features.0").target.name == "features.0"


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


class RowsNet(nn.Module):
    """Reads an image's rows as the channels of a signal; no axis of what it makes of them is a place in the image."""

    def __init__(self, stem=False, along=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 3, padding=1) if stem else None
        self.signal = nn.Conv1d(12, 4, 3)
        self.act = nn.ReLU()
        self.along = nn.Linear(10, along)
        self.head = nn.Linear(4 * along, 3)

    def forward(self, x):
        maps = x if self.stem is None else self.stem(x)
        return self.head(self.along(self.act(self.signal(maps[:, 0]))).flatten(1))


@pytest.mark.parametrize("along", [10, 7])
def test_signals_made_of_an_image_are_not_taken_for_tokens(along):
    torch.manual_seed(along)  # ten positions may lie in some order by chance, in a few of a hundred random networks
    with pytest.raises(LayerError, match="no layer with spatial output"):
        find_layer(RowsNet(along=along).eval(), torch.randn(IMAGE))
    assert find_layer(RowsNet(True, along).eval(), torch.randn(IMAGE)).target.name == "stem"


def test_merged_patches_keep_the_inputs_proportions():
    class Merging(nn.Module):
        """Swin habits: four neighbouring tokens become one of twice the width."""

        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(1, 6, 2, stride=2)
            self.norm, self.merge, self.head = nn.LayerNorm(6), nn.Linear(24, 12), nn.Linear(12, 3)

        def forward(self, x):
            tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
            grid = tokens.unflatten(1, (4, 6)).unfold(1, 2, 2).unfold(2, 2, 2)  # (n, 2, 3, 6, 2, 2)
            return self.head(self.merge(grid.flatten(3).flatten(1, 2)).mean(1))

    model, x = Merging().eval(), torch.randn(2, 1, 8, 12)
    for name, shape in (("norm", (2, 6, 4, 6)), ("merge", (2, 12, 2, 3))):
        with ActivationCapture(model, find_layer(model, x, name).target) as tap:
            A, _ = tap.gradient(tap.forward(x)[:, 0])
        assert A.shape == shape
