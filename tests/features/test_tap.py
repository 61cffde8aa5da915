"""Activation, gradient and contributions at the cut, against captum and by hand."""

from __future__ import annotations

import pytest
import torch
from models import CLASSES, SegmentationNet, build, first_score
from torch import nn

from lightning_ifa.errors import LayerError, OutputError
from lightning_ifa.features.cam import METHODS, cam, contributions
from lightning_ifa.features.tap import Tap


def cut(model, layer, x, score=first_score):
    with Tap(model, model.get_submodule(layer), layer) as tap:
        output = tap.forward(x)
        with torch.inference_mode(False), torch.enable_grad():
            value = score(output)
        return tap.gradient(value)


def test_contributions_sum_to_the_map_and_to_the_logit_without_its_bias():
    model, x = build("pool")
    A, G = cut(model, "features", x)
    C, M = contributions(A, G), cam(A, G, METHODS["hirescam"])
    logit = model(x)[:, 0] - model.head.bias[0]
    torch.testing.assert_close(C.sum(1), M.sum((1, 2)))
    torch.testing.assert_close(C.sum(1), logit.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context):
    model, x = build("residual")
    expected = cut(model, "conv2", x)
    with context():
        found = cut(model, "conv2", x.clone())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_works_with_frozen_parameters_and_writes_no_gradient():
    model, x = build("pool")
    expected = cut(model, "features.0", x)
    model.requires_grad_(False)
    torch.testing.assert_close(cut(model, "features.0", x), expected, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_works_with_parameters_made_in_inference_mode():
    model, x = build("pool")
    expected = cut(model, "features", x)
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    torch.testing.assert_close(cut(model, "features", x), expected)


def test_works_on_compiled_modules_without_recompiling():
    model, x = build("pool")
    expected = cut(model, "features.3", x)
    model.features = torch.compile(model.features, backend="eager")
    model(x)
    with Tap(model, model.features._orig_mod[3], "features.3") as tap:
        output = tap.forward(x)
        found = tap.gradient(output[:, 0])
    torch.testing.assert_close(found, expected)


def test_no_hook_stays_after_success_or_failure():
    model, x = build("pool")
    cut(model, "features", x)
    with pytest.raises(ZeroDivisionError):
        cut(model, "features", x, score=lambda output: 1 / 0)
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_held_after_the_pass():
    model, x = build("pool")
    with Tap(model, model.features, "features") as tap:
        tap.gradient(tap.forward(x)[:, 0])
        assert tap._leaf is None


def test_layer_run_twice_is_refused():
    model, x = build("residual")
    with pytest.raises(LayerError, match='"relu" runs more than once'):
        cut(model, "relu", x)


def test_layer_that_does_not_run_is_refused():
    model, x = build("pool")
    model.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(LayerError, match='"unused" did not run'):
        cut(model, "unused", x)


def test_score_that_does_not_depend_on_the_layer_is_refused():
    model, x = build("pool")
    with pytest.raises(OutputError, match="does not depend on layer"):
        cut(model, "features", x, score=lambda output: output.argmax(1).float())


def test_segmentation_plane_can_be_explained():
    torch.manual_seed(0)
    model, x = SegmentationNet().eval(), torch.randn(2, 1, 8, 8)
    A, G = cut(model, "decoder", x, score=lambda planes: planes[:, CLASSES - 1].mean((1, 2)))
    expected = model(x)[:, CLASSES - 1].mean((1, 2)) - model.planes.bias[CLASSES - 1]
    torch.testing.assert_close(contributions(A, G).sum(1), expected.detach(), rtol=1e-5, atol=1e-6)
