"""The tail run again equals the network, without its backbone, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from lightning_ifa.model.head import Head, depends_on_layer_only


class Counted(nn.Conv2d):
    """A convolution that counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Pool(nn.Module):
    """Convolutions, in-place ReLU, mean, linear."""

    def __init__(self):
        super().__init__()
        self.stem = Counted(1, 4, 3, padding=1)
        self.target = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.target(self.stem(x)).mean((2, 3)))


class Max(Pool):
    """Max pooling instead of the mean."""

    def forward(self, x):
        return self.head(self.target(self.stem(x)).amax((2, 3)))


class ReluAfter(Pool):
    """The mean is taken of something that is not linear in the layer."""

    def forward(self, x):
        return self.head(relu(self.target(self.stem(x)) - 0.5, inplace=True).mean((2, 3)))


class Flat(Pool):
    """Flattened positions; a head that cannot take another size."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, x):
        return self.head(self.target(self.stem(x)))


class Residual(Pool):
    """A connection around the layer."""

    def forward(self, x):
        identity = self.stem(x)
        out = self.target(identity.clone())
        out += identity
        return self.head(out.mean((2, 3)))


class SharedModule(Pool):
    """One module runs before and after the layer."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.head(self.act(1 - self.target(self.act(self.stem(x)))).mean((2, 3)))


class TupleBackbone(Pool):
    """A backbone that returns a dictionary with lists, and a batch folded into windows."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def forward(self, x):
        found = self.backbone(x)
        windows = found["windows"][1]
        maps = torch.cat([windows[0::2], windows[1::2]], dim=-1)
        return self.head(self.target(maps).mean((2, 3)))


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Counted(1, 4, 3, padding=1)

    def forward(self, x):
        maps = self.stem(x)
        windows = torch.stack([maps[..., :3], maps[..., 3:]], dim=1).flatten(0, 1)
        return {"windows": [maps, windows], "name": "kept as it is"}


CASES = {Pool: "pooled", Max: "head", ReluAfter: "head", Flat: "head", Residual: "network", SharedModule: "head"}
CASES |= {TupleBackbone: "pooled"}


def build(kind):
    torch.manual_seed(0)
    model = kind().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return model, torch.randn(7, 1, 6, 6)


def counted(model):
    return next(module for module in model.modules() if isinstance(module, Counted) and module.calls)


def is_clean(model):
    return not any(
        "forward" in m.__dict__ or m._forward_hooks or m._forward_pre_hooks or m._backward_hooks
        for m in model.modules()
    )


def replaced(model, x, activation):
    """The slow reference: the whole network with the layer's output replaced."""
    handle = model.target.register_forward_hook(lambda module, args, output: activation.clone())
    try:
        with torch.no_grad():
            return model(x)
    finally:
        handle.remove()


@pytest.mark.parametrize(("kind", "scope"), CASES.items())
def test_reaches_as_far_as_the_architecture_allows_and_equals_the_network(kind, scope):
    model, x = build(kind)
    with Head(model, model.target, x) as tail:
        assert tail.scope == scope
        for size in (1, 2, 7):
            activation = torch.rand(size, 4, 6, 6)
            given = activation.mean((2, 3)) if scope == "pooled" else activation.clone()
            expected = replaced_outside(kind, x[:size], activation)
            torch.testing.assert_close(tail(given, x[:size]), expected, rtol=1e-5, atol=1e-5)
    assert is_clean(model)


def replaced_outside(kind, x, activation):
    model, _ = build(kind)
    return replaced(model, x, activation)


@pytest.mark.parametrize("kind", [kind for kind, scope in CASES.items() if scope != "network"])
def test_does_not_run_the_backbone(kind):
    model, x = build(kind)
    with Head(model, model.target, x) as tail:
        stem = counted(model)
        before = stem.calls
        tail(torch.rand(50, 4, 6, 6) if tail.scope == "head" else torch.rand(50, 4))
        assert stem.calls == before


def test_leaves_no_trace_after_an_error_in_the_tail():
    model, x = build(Pool)
    with pytest.raises(RuntimeError), Head(model, model.target, x) as tail:
        tail(torch.rand(3, 99))
    assert is_clean(model)


def test_keeps_a_forward_that_was_patched_by_the_user():
    model, x = build(Pool)
    own = model.stem.forward
    model.stem.forward = lambda images: own(images) * 2
    patched = model.stem.forward
    with Head(model, model.target, x) as tail:
        assert tail.scope == "pooled"
    assert model.stem.forward is patched


def test_runs_inside_inference_mode_and_gives_no_graph():
    model, x = build(Flat)
    with torch.inference_mode(), Head(model, model.target, x) as tail:
        assert not tail(torch.rand(2, 4, 6, 6)).requires_grad


@pytest.mark.parametrize(("kind", "alone"), [(Pool, True), (Flat, True), (Residual, False)])
def test_knows_whether_the_output_depends_on_the_layer_only(kind, alone):
    model, x = build(kind)
    assert depends_on_layer_only(model, model.target, x) is alone
    assert is_clean(model)
