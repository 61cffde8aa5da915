"""Maps by group, where grouped convolutions keep several input stacks apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import PoolNet, StacksNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import LayerError
from lightning_ifa.features.channel_groups import convolution_groups, group_maps
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.layer_search import find_layer


def stacks(groups=3):
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(7, groups, 9, 8), torch.arange(7) % 3), 4)
    return StacksNet(groups).eval(), data


@pytest.mark.parametrize("method", ["hirescam", "gradcam", "ablationcam"])
def test_one_map_a_group_of_the_grouped_convolution(method):
    model, data = stacks()
    extraction = FeatureExtractor(model, cam=method)
    table = extraction(data, np.arange(7))
    found = group_maps(extraction, data, table)
    assert found.shape == (7, 3, 9, 8)
    np.testing.assert_allclose(found.sum(1), table.cams, rtol=1e-4, atol=1e-5 * np.abs(table.cams).max())


def test_a_groups_map_depends_on_its_own_stack_only():
    model, data = stacks()
    extraction = FeatureExtractor(model)
    table = extraction(data, np.arange(7))
    before = group_maps(extraction, data, table)
    data.dataset.tensors[0][:, 1] += 1
    after = group_maps(extraction, data, table)
    assert np.array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not np.allclose(before[:, 1], after[:, 1])


@pytest.mark.parametrize(
    ("model", "layer", "groups"),
    [
        (StacksNet(2), "features.1", 2),
        (nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2)), "1", 2),  # feeds one
        (nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)), "1", 1),  # depthwise
        (nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU()), "1", 1),
    ],
)
def test_groups_of_the_convolution_that_the_layer_comes_from_or_feeds(model, layer, groups):
    model, x = model.eval(), torch.randn(2, 2, 8, 8)
    assert convolution_groups(model, find_layer(model, x, layer).target, x) == groups


def test_groups_that_do_not_exist():
    model, source = trained(PoolNet()), loader(6)
    extraction = FeatureExtractor(model)
    table = extraction(source, np.arange(6))
    with pytest.raises(LayerError, match='"features" neither comes from a grouped convolution nor feeds one'):
        group_maps(extraction, source, table)
    with pytest.raises(LayerError, match=r"8 channels .* do not divide into 3 groups"):
        group_maps(extraction, source, table, groups=3)
