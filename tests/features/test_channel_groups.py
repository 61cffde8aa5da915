"""Contributions to every class, in closed form where that is right, and maps by group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import CLASSES, MlpNet, PoolNet, ResidualNet, StacksNet, TokenNet, VolumeNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import LayerError
from lightning_ifa.features.channel_groups import class_contributions, convolution_groups, group_maps
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.layer_search import find_layer


class Bent(PoolNet):
    """Pooled, but not linear: as good as linear for the samples of one class."""

    def forward(self, x):
        return nn.functional.leaky_relu(super().forward(x), 0.5)


def gradients_taken(monkeypatch):
    taken = []
    own = ActivationCapture.gradient
    monkeypatch.setattr(
        ActivationCapture, "gradient", lambda *args, **options: (taken.append(1), own(*args, **options))[1]
    )
    return taken


@pytest.mark.parametrize(
    ("kind", "layer", "closed"),
    [
        (PoolNet, "features", True),
        (PoolNet, "features.0", False),
        (MlpNet, "pool", False),
        (Bent, "features", False),
        (ResidualNet, "relu#1", False),  # the sum with the stem is changed in place, which no stub can stand for
    ],
)
def test_equals_a_table_explained_for_each_class(kind, layer, closed, monkeypatch):
    model, source = trained(kind()), loader(20, batch_size=8)
    extraction = FeatureExtractor(model, layer)
    table = extraction(source, np.arange(20))
    taken = gradients_taken(monkeypatch)
    found = class_contributions(extraction, source, table)
    assert (not taken) is closed
    assert (found.shape, found.dtype) == ((20, CLASSES, table.contributions.shape[1]), np.float32)
    for name in range(CLASSES):
        expected = FeatureExtractor(model, layer, explain=name)(source, np.arange(20)).contributions
        np.testing.assert_allclose(found[:, name], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_some_classes_only():
    model, source = trained(PoolNet()), loader(9)
    extraction = FeatureExtractor(model)
    table = extraction(source, np.arange(9))
    every = class_contributions(extraction, source, table)
    np.testing.assert_array_equal(class_contributions(extraction, source, table, [2, 0]), every[:, [2, 0]])


def test_one_logit_has_two_classes_and_a_transformer_many(monkeypatch):
    taken = gradients_taken(monkeypatch)
    data = DataLoader(TensorDataset(torch.randn(8, 1, 4, 5, 6), torch.arange(8) % 2), 4)
    extraction = FeatureExtractor(VolumeNet().eval())
    found = class_contributions(extraction, data, extraction(data, np.arange(8)))
    np.testing.assert_allclose(found[:, 0], -found[:, 1])
    data = DataLoader(TensorDataset(torch.randn(8, 1, 8, 12), torch.arange(8) % 3), 4)
    extraction = FeatureExtractor(TokenNet("patches").eval(), "norm")
    table = extraction(data, np.arange(8))
    taken.clear()
    found = class_contributions(extraction, data, table)
    assert not taken
    np.testing.assert_allclose(found[np.arange(8), table.explained], table.contributions, rtol=1e-3, atol=1e-5)


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
    assert convolution_groups(model, find_layer(model, x, layer).place, x) == groups


def test_groups_that_do_not_exist():
    model, source = trained(PoolNet()), loader(6)
    extraction = FeatureExtractor(model)
    table = extraction(source, np.arange(6))
    with pytest.raises(LayerError, match='"features" neither comes from a grouped convolution nor feeds one'):
        group_maps(extraction, source, table)
    with pytest.raises(LayerError, match=r"8 channels .* do not divide into 3 groups"):
        group_maps(extraction, source, table, groups=3)
