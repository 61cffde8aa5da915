"""Which linear layer makes the scores, and whose weights may be exchanged."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_ifa.errors import LayerError
from lightning_ifa.model.last_linear import find_last_linear, watch_linear


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 5)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).relu())


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * x.norm(dim=1, keepdim=True)


def find(model, change=lambda scores: scores):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    with watch_linear(model) as calls:
        scores = change(model(x))
    assert not any(module._forward_hooks for module in model.modules())
    return find_last_linear(model, calls, scores)


def test_the_last_linear_layer_is_found_behind_what_shifts_all_scores_alike():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.LogSoftmax(1))
    assert find(model) == "2"
    assert find(nn.Sequential(nn.Linear(5, 1)), lambda z: torch.cat([-z / 2, z / 2], dim=1)) == "0"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Linear(5, 3), nn.Tanh()), "no nn.Linear gives the network's scores"),
        (nn.Sequential(weight_norm(nn.Linear(5, 3))), "computed from others"),
        (Tied(), "are shared"),
        (nn.Sequential(Scaled(5, 3)), "is not linear in it"),
    ],
)
def test_what_cannot_be_refitted_is_refused(model, why):
    with pytest.raises(LayerError, match=why):
        find(model)
