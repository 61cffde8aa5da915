"""Every CAM method at every layer of every test network, against captum or a slow reference of its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from models import NETS, PoolNet, build, first_score, loader, trained
from torch import nn

from lightning_ifa.cam.gradient_methods import RANDOM_SEED
from lightning_ifa.cam.methods import METHODS, ONE_PASS, WithForwards, cam, cam_weights, contributions
from lightning_ifa.cam.rescoring import Rescore
from lightning_ifa.errors import LayerError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.tracing import memory_of, trace_layers


def spatial_layers():
    for name in NETS:
        model, x = build(name)
        output, layers = trace_layers(model, lambda m=model, x=x: m(x))
        named = [layer for layer in layers if len(layer.shape) == x.dim() and layer.calls == 1]
        yield from ((name, layer.name) for layer in named if layer.memory != memory_of(output))


def by_the_package(model, layer, x, methods=("hirescam",)):
    with ActivationCapture(model, model.get_submodule(layer), layer) as tap:
        score = first_score(tap.forward(x))
        A, G = tap.gradient(score)
        rescore = Rescore(tap, x, score.detach(), lambda output, r: first_score(output))
        return A, G, {method: cam(A, G, METHODS[method], rescore) for method in methods}


# --- the slow references: one sample at a time, plain autograd on a deep copy that is run from a given activation ---


class Duplicate:
    """A deep copy of the network that runs from a changed output of the layer."""

    def __init__(self, model, layer):
        self.model, self.change = copy.deepcopy(model).requires_grad_(False), lambda output: output
        self.model.get_submodule(layer).register_forward_hook(lambda module, args, output: self.change(output).clone())

    def score(self, x, change):
        self.change = change
        return first_score(self.model(x))


def slow_gradient(model, layer, x):
    duplicate, parts = Duplicate(model, layer), []
    for one in x.split(1):
        seen = []

        def recorded(output, seen=seen):
            seen.append(output.detach().clone().requires_grad_())
            return seen[0]

        y = duplicate.score(one, recorded)
        parts.append((seen[0].detach(), torch.autograd.grad(y.sum(), seen[0])[0]))
    return (torch.cat(part) for part in zip(*parts, strict=True))


def slow_gradcam_plus_plus(model, layer, x, A, G):
    W = torch.zeros(A.shape[:2], dtype=A.dtype)
    for n, k in np.ndindex(*A.shape[:2]):
        a, g = A[n, k].double(), G[n, k].double()
        positive = g[g > 0]
        W[n, k] = (positive**2 / (2 * positive**2 + a.sum() * positive**3) * positive).sum()
    return W


def slow_xgradcam(model, layer, x, A, G):
    W = torch.zeros(A.shape[:2])
    for n, k in np.ndindex(*A.shape[:2]):
        a, g = A[n, k].double(), G[n, k].double()
        W[n, k] = float((g * a / a.sum()).sum()) if float(a.sum()) else 0.0
    return W


def principal(values):
    matrix = values.flatten(1).double().numpy().T  # positions x channels
    direction = np.linalg.svd(matrix)[2][0]
    return torch.from_numpy(direction if direction.sum() >= 0 else -direction)


def slow_eigencam(model, layer, x, A, G):
    return torch.stack([principal(a) for a in A]).float()


def slow_eigengradcam(model, layer, x, A, G):
    directions = torch.stack([principal(a * g) for a, g in zip(A, G, strict=True)]).float()
    return G * directions.reshape(*A.shape[:2], *[1] * (A.dim() - 2))


def slow_scorecam(model, layer, x, A, G):
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    W, size = torch.zeros(A.shape[:2]), x.shape[2:]
    for n, k in np.ndindex(*A.shape[:2]):
        mask = nn.functional.interpolate(A[n, k][None, None], size=size, mode=modes[len(size)])[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min()) if A[n, k].max() > A[n, k].min() else mask * 0
        with torch.no_grad():
            increase = first_score(model(x[[n]] * mask)) - first_score(model(torch.zeros_like(x[[n]])))
        W[n, k] = float(increase)
    return torch.exp(W) / torch.exp(W).sum(1, keepdim=True)


def slow_ablationcam(model, layer, x, A, G):
    duplicate, W = Duplicate(model, layer), torch.zeros(A.shape[:2])
    for n, k in np.ndindex(*A.shape[:2]):
        y = float(first_score(model(x[[n]])).detach())
        without = float(duplicate.score(x[[n]], lambda output, k=k: output.index_fill(1, torch.tensor(k), 0)))
        W[n, k] = (y - without) / abs(y)
    return W


def slow_random(model, layer, x, A, G):
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    return torch.randn(A.shape[1], generator=generator).expand(A.shape[:2])


SLOW = {
    "layercam": lambda model, layer, x, A, G: G.clamp(min=0),
    "gradcam++": slow_gradcam_plus_plus,
    "xgradcam": slow_xgradcam,
    "eigencam": slow_eigencam,
    "eigengradcam": slow_eigengradcam,
    "scorecam": slow_scorecam,
    "ablationcam": slow_ablationcam,
    "random": slow_random,
}


def slow_maps(methods, model, layer, x):
    A, G = slow_gradient(model, layer, x)
    for method in methods:
        W = SLOW[method](model, layer, x, A, G)
        yield method, (W.reshape(*W.shape, *[1] * (A.dim() - W.dim())) * A).sum(1)


def assert_close(found, expected, name):
    """Equal to 1e-5 of the largest value of each sample."""
    size = expected.flatten(1).abs().amax(1).reshape(-1, *[1] * (expected.dim() - 1)).clamp(min=1e-12)
    torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-5, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize(("net", "layer"), list(spatial_layers()))
def test_equals_captum_at_every_layer(net, layer):
    model, x = build(net)
    A, G, found = by_the_package(model, layer, x, ["hirescam", "gradcam"])
    module, score = model.get_submodule(layer), lambda *args: first_score(model(*args))
    expected = LayerGradientXActivation(score, module).attribute(x.clone()).detach()
    assert_close(A * G, expected, layer)
    assert_close(contributions(A, G), expected.flatten(2).sum(2), layer)
    assert_close(found["hirescam"], expected.sum(1), "hirescam")
    assert_close(found["gradcam"], LayerGradCam(score, module).attribute(x.clone()).detach()[:, 0], "gradcam")


@pytest.mark.parametrize(("net", "layer"), list(spatial_layers()))
def test_equals_a_slow_reference_at_every_layer(net, layer):
    model, x = build(net)
    methods = [method for method in SLOW if method != "gradcam++"]
    found = by_the_package(model, layer, x[:2], methods)[2]
    for method, expected in slow_maps(methods, model, layer, x[:2]):
        assert_close(found[method], expected, method)


@pytest.mark.parametrize(("net", "layer"), list(spatial_layers()))
def test_gradcam_plus_plus_equals_a_slow_reference_in_double_precision(net, layer):
    model, x = build(net)  # it has poles, near which single precision cannot be compared
    model, x = model.double(), x[:2].double()
    found = by_the_package(model, layer, x, ["gradcam++"])[2]
    for method, expected in slow_maps(["gradcam++"], model, layer, x):
        assert_close(found[method], expected, method)


def test_every_method_is_compared():
    assert {*SLOW, "hirescam", "gradcam"} == set(METHODS)


def test_layers_changed_in_place_are_among_those_compared():
    assert {("residual", "bn2"), ("hardswish", "features.1"), ("hardswish", "features"), ("mlp", "conv")} <= set(
        spatial_layers()
    )


@pytest.mark.parametrize("method", ONE_PASS)
def test_stays_finite_where_a_channel_is_dead(method):
    A, G = torch.randn(2, 3, 4, 4).relu(), torch.randn(2, 3, 4, 4)
    A[:, 0], G[:, 1] = 0, 0
    A[1], G[1] = 0, 0
    found = cam(A, G, METHODS[method])
    assert found.shape == (2, 4, 4)
    assert found.isfinite().all()


def test_eigen_maps_agree_with_the_plain_sum_whatever_sign_the_library_returns():
    A, G = torch.randn(8, 6, 5, 5), torch.randn(8, 6, 5, 5)
    for method, plain in (("eigencam", A.sum(1)), ("eigengradcam", (A * G).sum(1))):
        found = cam(A, G, METHODS[method])
        assert ((found * plain).flatten(1).sum(1) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_table_is_the_same_in_batches_of_any_size(method):
    model = trained(PoolNet(channels=6))
    large, small = (FeatureExtractor(model, cam=method)(loader(9, batch_size=size), np.arange(9)) for size in (9, 4))
    assert large.cam == method
    np.testing.assert_allclose(small.cams, large.cams, rtol=1e-4, atol=1e-5)


def test_masked_inputs_share_passes_of_bounded_size():
    sizes = []

    class Watched(PoolNet):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    FeatureExtractor(Watched(channels=40).eval(), "features", cam="scorecam")(loader(20, batch_size=20), np.arange(20))
    assert max(sizes) == 60  # three of forty channels at a time
    assert sizes.count(60) == 13


def test_method_of_the_user_may_run_the_network_itself():
    model = trained(PoolNet())

    def halved(A, G, rescore):
        return (rescore.score[:, None] - rescore.activations(iter([A / 2])))[:, :, None, None] * torch.ones_like(A)

    table = FeatureExtractor(model, cam=WithForwards(halved))(loader(6), np.arange(6))
    x = loader(6).dataset.images
    A = model.features(x).detach()
    score = model(x).gather(1, loader(6).dataset.labels[:, None]).detach()
    bias = model.head.bias.detach()[loader(6).dataset.labels][:, None]
    np.testing.assert_allclose(table.cams, A.sum(1) * ((score - bias) / 2)[..., None], rtol=1e-3, atol=1e-4)


def test_method_with_forwards_asks_for_them():
    A = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="ablationcam runs the network again"):
        cam(A, A, METHODS["ablationcam"])


def test_unknown_method_names_the_others():
    with pytest.raises(ValueError, match=r"unknown CAM method 'gradcan'; choose one of hirescam, gradcam"):
        cam_weights("gradcan")


def test_score_cam_refuses_a_layer_without_the_inputs_axes():
    class Lines(PoolNet):
        def __init__(self):
            super().__init__()
            self.lines = nn.Conv1d(8, 4, 1)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.lines(self.features(x).mean(3)).mean(2))

    with pytest.raises(LayerError, match="Score-CAM masks the input"):
        by_the_package(Lines().eval(), "lines", torch.randn(2, 1, 12, 12), ["scorecam"])


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_products_in_pieces_are_the_whole_product(monkeypatch, piece):
    monkeypatch.setattr("lightning_ifa.cam.methods.PIECE", piece)
    A, G = torch.randn(2, 5, 7, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(contributions(A, G), (A * G).sum((2, 3, 4)))
    for broadcast in (G, G[:, :, :1, :1, :1], G[:1], G[:1, :, :1, :1, :1]):
        torch.testing.assert_close(cam(A, G, lambda A, G, W=broadcast: W), (broadcast * A).sum(1))
