"""Activation, gradient and contributions at the cut, against captum and by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from models import CLASSES, SegmentationNet, build, first_score
from torch import nn

import lightning_ifa
from lightning_ifa.cam.methods import METHODS, cam, contributions
from lightning_ifa.errors import LayerError, OutputError
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, run_captured


def cut(model, layer, x, score=first_score):
    with ActivationCapture(model, model.get_submodule(layer), layer) as tap:
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
    with ActivationCapture(model, model.features._orig_mod[3], "features.3") as tap:
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
    with ActivationCapture(model, model.features, "features") as tap:
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


class Overwriting(nn.Module):
    """Changes its layer's output in place, in one of several ways, or leaves it alone."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.head, self.change, self.passes = nn.Conv2d(1, 4, 3), nn.Linear(4, CLASSES), change, 0

    def forward(self, x):
        self.passes += 1
        out = self.layer(x)
        if self.change is not None:
            out = self.change(out)
        return self.head(out.mean((2, 3)))


def no_grad_tripled(out):
    with torch.no_grad():
        out.mul_(3)
    return out


def data_tripled(out):
    out.data.mul_(3)
    return out


CHANGES = {
    "none": (None, 1),
    "relu": (torch.relu_, 2),
    "part of it": (lambda out: (out[:, 1:].add_(1), out)[1], 2),
    "without gradient": (no_grad_tripled, 2),
    "behind autograd's back": (data_tripled, 2),
}


@pytest.mark.parametrize(("change", "passes"), CHANGES.values(), ids=list(CHANGES))
def test_activation_is_the_layers_own_and_copied_only_where_it_is_changed(change, passes):
    torch.manual_seed(0)
    model, x = Overwriting(change).eval(), torch.randn(3, 1, 8, 8)
    expected = model.layer(x).detach()
    model.passes = 0
    with ActivationCapture(model, model.layer) as tap:
        for made in (passes, passes + 1):  # what the first batch has shown is remembered
            A, _ = tap.gradient(tap.forward(x)[:, 0])
            assert torch.equal(A, expected)
            assert model.passes == made


def test_change_in_place_that_comes_later_is_seen():
    torch.manual_seed(0)
    model, x = Overwriting(None).eval(), torch.randn(3, 1, 8, 8)
    expected = model.layer(x).detach()
    with ActivationCapture(model, model.layer) as tap:
        tap.gradient(tap.forward(x)[:, 0])
        for change in (torch.relu_, no_grad_tripled, torch.relu_):
            model.change = change
            A, G = tap.gradient(tap.forward(x)[:, 0])
            assert torch.equal(A, expected)
        torch.testing.assert_close(G, (A > 0) * model.head.weight[0, :, None, None].detach() / 36)


def test_failure_of_the_model_is_not_tried_twice():
    model, x = Overwriting(lambda out: out[:, :3]).eval(), torch.randn(3, 1, 8, 8)
    with ActivationCapture(model, model.layer) as tap, pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        tap.forward(x)
    assert model.passes == 1


def test_nested_cuts_share_an_output_that_is_changed_in_place():
    torch.manual_seed(0)
    model, x = build("pool")
    inner, outer = model.features[3], nn.Sequential(*model.features[:4])
    model.features = nn.Sequential(outer, model.features[4])  # the convolution's output is the container's own
    expected = cut(model, "features.0", x)
    with ActivationCapture(model, inner) as first, ActivationCapture(model, outer) as second:
        score = run_captured([first, second], x)[:, 0]
        for found in gradients([first, second], score):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_hooks_are_registered_in_few_places():
    package = Path(lightning_ifa.__file__).parent
    found = {path.stem for path in package.rglob("*.py") if re.search(r"\.register_\w*hook\(", path.read_text("utf-8"))}
    assert found == {
        "activation_capture",
        "call_watch",
        "conservative_gradients",
        "last_linear",
        "layer_hooks",
        "tracing",
    }
