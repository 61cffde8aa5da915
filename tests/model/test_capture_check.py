"""A wrong capture is told from a right one by algebra, without knowing the architecture."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lightning_ifa.errors import LayerError
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.capture_check import CapturedBatch, require_sound_capture
from lightning_ifa.model.target_layer import TargetLayer


class Net(nn.Module):
    """Mean + head; optionally a second way from the input to the output."""

    def __init__(self, head, bypass=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head, self.bypass = head, bypass

    def forward(self, x):
        out = self.head(self.conv(x).relu().mean((2, 3)))
        return out + 5 * x.mean((1, 2, 3))[:, None] if self.bypass else out


def captured(model):
    x = torch.randn(12, 1, 5, 5) * torch.linspace(0.2, 3, 12).reshape(-1, 1, 1, 1) + 0.3
    explained = torch.arange(12) % 3
    with ActivationCapture(model, model.conv, "conv") as tap:
        score = tap.forward(x).gather(1, explained[:, None])[:, 0]
        A, G = tap.gradient(score)
    return CapturedBatch(x, A, G, score.detach(), explained, A.dtype)


class Target(Net):
    """The layer is what the mean is taken of."""

    def forward(self, x):
        out = self.head(self.conv(x).mean((2, 3)))
        return out + 5 * x.mean((1, 2, 3))[:, None] if self.bypass else out


LINEAR = partial(nn.Linear, 4, 3)
NONLINEAR = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731


@pytest.mark.parametrize(
    ("kind", "head", "bypass"),
    [(Target, LINEAR, False), (Target, LINEAR, True), (Target, NONLINEAR, False), (Net, LINEAR, False)],
    ids=["linear", "linear with a second way", "not linear", "layer before a ReLU"],
)
def test_lets_every_sound_capture_pass(kind, head, bypass):
    torch.manual_seed(1)
    model = kind(head(), bypass).eval()
    require_sound_capture(model, TargetLayer("conv", model.conv), captured(model))


@pytest.mark.parametrize("fault", ["activation", "gradient", "other layer's activation"])
def test_refuses_a_wrong_capture(fault):
    torch.manual_seed(1)
    model = Target(LINEAR()).eval()
    found = captured(model)
    changed = {
        "activation": {"A": found.A.relu()},
        "gradient": {"G": found.G * 3},
        "other layer's activation": {"A": found.x.expand_as(found.A)},
    }[fault]
    with pytest.raises(LayerError, match=r'capture at layer "conv" is wrong.*bias'):
        require_sound_capture(model, TargetLayer("conv", model.conv), found._replace(**changed))


def test_says_nothing_where_every_class_is_seen_once():
    torch.manual_seed(1)
    model = Target(LINEAR()).eval()
    found = captured(model)
    few = CapturedBatch(*(part[:3] for part in found[:-1]), found.precision)
    require_sound_capture(model, TargetLayer("conv", model.conv), few._replace(A=few.A * 2))


def test_a_gradient_below_the_scores_rounding_is_no_wrong_capture():
    torch.manual_seed(1)
    model = Target(LINEAR(), bypass=False).eval()
    batch = captured(model)
    for tiny in (1e-44, 1e-30, 0.0):
        faint = batch._replace(G=torch.full_like(batch.G, tiny))
        require_sound_capture(model, TargetLayer("conv", model.conv), faint)
