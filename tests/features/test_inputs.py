"""Every kind of input, model and precision: tokens, channels last, shared layers, compiled, half precision, frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import (
    LastChannelNet,
    PoolNet,
    ResidualNet,
    SignalNet,
    StacksNet,
    TokenNet,
    VolumeNet,
    build,
    loader,
    trained,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import LayerError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.activation_patching import ActivationPatch
from lightning_ifa.model.head import Head, depends_on_layer_only
from lightning_ifa.model.layer_search import find_layer


def table_of(model, x, layer=None, batch_size=5, **options):
    data = TensorDataset(x, torch.arange(len(x)) % 3)
    return FeatureExtractor(model.eval(), layer, "multiclass", **options)(
        DataLoader(data, batch_size), np.arange(len(x))
    )


def raw_gradient(model, module, x, column=0):
    """Output of a module and the gradient of a logit there, by plain autograd."""
    kept = []
    handle = module.register_forward_hook(lambda m, args, output: (output.retain_grad(), kept.append(output))[0])
    model(x)[:, column].sum().backward()
    handle.remove()
    return kept[0].detach(), kept[0].grad


# --- transformers ---


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("layer", ["encoder.layers.0", "encoder.layers.0.norm2", "encoder.layers.1.norm1"])
def test_tokens_become_maps_and_the_kept_ones_add_up(layer, norm_first, registers):
    torch.manual_seed(0)
    model, x = TokenNet("patches", norm_first, registers).eval(), torch.randn(3, 1, 8, 12)
    target = find_layer(model, x, layer).target
    with ActivationCapture(model, target) as tap:
        A, G = tap.gradient(tap.forward(x)[:, 0])
    tokens, gradient = raw_gradient(model, model.get_submodule(layer), x)
    assert A.shape == (3, 8, 2, 3)
    skip = 1 + registers
    for row, column in np.ndindex(2, 3):
        torch.testing.assert_close(A[:, :, row, column], tokens[:, skip + 3 * row + column], rtol=1e-4, atol=1e-5)
    expected = (tokens * gradient)[:, skip:].sum(1)
    torch.testing.assert_close((A * G).sum((2, 3)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (TokenNet("patches"), "norm"),
        (TokenNet("all", norm_first=False), "norm"),
        (TokenNet("class"), "encoder.layers.1.norm1"),  # behind it only the class token is read
        (TokenNet("class", norm_first=False), "encoder.layers.0"),
    ],
)
def test_last_layer_whose_image_tokens_are_read(model, name):
    assert find_layer(model.eval(), torch.randn(2, 1, 8, 12)).target.name == name


def test_tokens_fill_a_table_and_the_self_check_stays_honest():
    torch.manual_seed(0)
    table = table_of(TokenNet("all"), torch.randn(12, 1, 8, 12))  # linear, but the class token has a share of its own
    assert table.cams.shape == (12, 2, 3)
    np.testing.assert_allclose(table.contributions.sum(1), table.intensity, rtol=1e-4, atol=1e-5)


def test_class_token_is_a_second_way_to_the_output():
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 12)
    for reads, alone in (("all", False), ("patches", True)):
        model = TokenNet(reads).eval()
        assert depends_on_layer_only(model, find_layer(model, x, "norm").target, x) is alone


def test_tail_of_a_transformer_runs_from_maps():
    torch.manual_seed(0)
    model, x = TokenNet("patches").eval(), torch.randn(4, 1, 8, 12)
    target = find_layer(model, x).target
    maps = torch.randn(4, 8, 2, 3)
    with Head(model, target, x) as tail:
        assert tail.scope == "pooled"
        torch.testing.assert_close(tail(maps.mean((2, 3))), model.head(maps.mean((2, 3))))


def test_patches_without_a_convolution_have_the_inputs_proportions():
    class Unfolded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x):
            patches = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)
            return self.head(self.embed(patches).mean(1))

    model, x = Unfolded().eval(), torch.randn(2, 1, 8, 12)
    with ActivationCapture(model, find_layer(model, x).target) as tap:
        assert tap.gradient(tap.forward(x)[:, 0])[0].shape == (2, 8, 2, 3)


def test_channels_last_outputs_are_recognised():
    torch.manual_seed(0)
    model, x = LastChannelNet(), torch.randn(6, 1, 8, 12)
    table = table_of(model, x)
    assert (table.layer, table.cams.shape) == ("norm", (6, 2, 3))
    logits = model(x).gather(1, torch.arange(6)[:, None] % 3)[:, 0] - model.head.bias[torch.arange(6) % 3]
    np.testing.assert_allclose(table.contributions.sum(1), logits.detach(), rtol=1e-4, atol=1e-5)


def test_reshape_of_the_user():
    model, x = TokenNet("patches").eval(), torch.randn(6, 1, 8, 12)
    own = table_of(model, x, "norm", reshape=lambda t: t[:, 3:].transpose(1, 2).reshape(len(t), 8, 2, 3))
    np.testing.assert_array_equal(own.cams, table_of(model, x, "norm").cams)


@pytest.mark.parametrize("reshape", [lambda t: t.mean(1), lambda t: (t * 2).unflatten(1, (3, 3)).movedim(-1, 1)])
def test_reshape_that_does_more_than_pick_is_refused(reshape):
    with pytest.raises(LayerError, match='reshape of layer "norm" must take maps'):
        table_of(TokenNet("patches"), torch.randn(6, 1, 8, 12), "norm", reshape=reshape)


def test_reshape_needs_a_layer():
    with pytest.raises(LayerError, match="name it by layer="):
        table_of(TokenNet(), torch.randn(6, 1, 8, 12), reshape=lambda t: t)


# --- layers that run more than once ---


@pytest.mark.parametrize("call", [0, 1])
def test_a_chosen_call_of_a_shared_layer(call):
    model, x = build("residual")
    with ActivationCapture(model, find_layer(model, x, f"relu#{call}").target) as tap:
        A, G = tap.gradient(tap.forward(x)[:, 0])

    class Apart(ResidualNet):
        def __init__(self):
            super().__init__()
            self.relus = nn.ModuleList([nn.ReLU(), nn.ReLU()])

        def forward(self, x):
            identity = self.stem(x)
            out = self.bn2(self.conv2(self.relus[0](self.bn1(self.conv1(identity)))))
            return self.head(self.relus[1](out + identity).mean((2, 3)))

    duplicate = Apart().eval()
    duplicate.load_state_dict(model.state_dict())
    expected = raw_gradient(duplicate, duplicate.relus[call], x)
    torch.testing.assert_close((A, G), expected, rtol=1e-5, atol=1e-7)


def test_a_chosen_call_is_replaced_alone():
    model, x = build("residual")
    target = find_layer(model, x, "relu#1").target
    changed = ActivationPatch(model, target).run(x, torch.ones(4, 6, 6, 6))
    torch.testing.assert_close(changed, model.head(torch.ones(4, 6)).detach())
    with Head(model, target, x) as tail:
        torch.testing.assert_close(tail(torch.ones(4, 6, 6, 6), x), changed)


def test_a_shared_layer_names_its_calls():
    model, x = build("residual")
    with pytest.raises(LayerError, match=r'"relu" runs more than once.*\("relu#0", "relu#1"\)'):
        find_layer(model, x, "relu")
    with pytest.raises(LayerError, match=r'no call "relu#2"; in one forward pass there is "relu#0" to "relu#1"'):
        find_layer(model, x, "relu#2")


# --- several layers in one pass ---


def test_several_layers_share_a_pass_and_equal_those_taken_alone():
    model, source = trained(ResidualNet()), loader(11, batch_size=4)
    names = ["relu#1", "bn2", "stem", "relu#0", None]
    passes = []
    model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    together = FeatureExtractor(model).tables(source, np.arange(11), names)
    assert len(passes) < 20  # three batches, a survey for each layer, self-checks of the first batch
    for name, table in zip(names, together, strict=True):
        alone = FeatureExtractor(model, name)(source, np.arange(11))
        assert table.layer == (name or "relu#1")
        for column in ("contributions", "activations", "cams", "logits"):
            np.testing.assert_allclose(getattr(table, column), getattr(alone, column), rtol=1e-5, atol=1e-6)


def test_nested_layers_and_tokens_in_one_pass():
    torch.manual_seed(0)
    model, x = TokenNet("class"), torch.randn(6, 1, 8, 12)
    data = DataLoader(TensorDataset(x, torch.arange(6) % 3), 4)
    names = ["patches", "encoder.layers.0", "encoder.layers.0.norm1"]
    for name, table in zip(names, FeatureExtractor(model.eval()).tables(data, np.arange(6), names), strict=True):
        alone = FeatureExtractor(model, name)(data, np.arange(6))
        np.testing.assert_allclose(table.contributions, alone.contributions, rtol=1e-4, atol=1e-6)


# --- shapes, memory formats, precisions ---


@pytest.mark.parametrize(
    ("model", "shape", "space"),
    [
        (SignalNet(), (8, 2, 33), (33,)),
        (PoolNet(n_in=1), (6, 1, 9, 17), (9, 17)),
        (PoolNet(n_in=13), (6, 13, 17, 9), (17, 9)),
        (StacksNet(3), (6, 3, 5, 8), (5, 8)),
        (VolumeNet(), (6, 1, 3, 4, 5), (3, 4, 5)),
    ],
)
def test_signals_images_and_volumes_of_any_shape_and_depth(model, shape, space):
    y = torch.arange(shape[0]) % 2
    y = torch.randn(shape[0]) if isinstance(model, SignalNet) else y
    data = DataLoader(TensorDataset(torch.randn(shape), y), 4)
    table = FeatureExtractor(model.eval())(data, np.arange(shape[0]))
    assert table.cams.shape == (shape[0], *space)
    np.testing.assert_allclose(table.contributions.sum(1), table.intensity, rtol=1e-3, atol=1e-4)


def test_channels_last_memory_changes_nothing():
    model, x = PoolNet(n_in=3).eval(), torch.randn(6, 3, 9, 11)
    expected = table_of(model, x)
    found = table_of(model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last))
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_model(whole):
    model, x = PoolNet().eval(), torch.randn(6, 1, 12, 12)
    expected = table_of(model, x)
    if whole:
        found = table_of(torch.compile(model, backend="eager"), x)
    else:
        model.features = torch.compile(model.features, backend="eager")
        found = table_of(model, x)
    assert found.layer == "features"
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    model, x = PoolNet().eval(), torch.randn(6, 1, 12, 12)
    expected = table_of(model, x)
    found = table_of(model, x, forward_context=lambda: torch.autocast("cpu", dtype))
    assert found.contributions.dtype == np.float32
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("method", ["hirescam", "scorecam", "ablationcam"])
def test_true_half_precision(method):
    model, x = PoolNet(channels=5).eval(), torch.randn(6, 1, 12, 12)
    expected = table_of(model, x, cam=method)
    found = table_of(model.bfloat16(), x.bfloat16(), cam=method)
    assert found.cams.dtype == np.float32
    scale = np.abs(expected.cams).max()
    np.testing.assert_allclose(found.cams, expected.cams, atol=0.1 * scale)


def test_tensors_and_parameters_made_in_inference_mode():
    model, x = PoolNet().eval(), torch.randn(6, 1, 12, 12)
    expected = table_of(model, x, cam="ablationcam")
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        found = table_of(model, x.clone(), cam="ablationcam")
    np.testing.assert_allclose(found.cams, expected.cams, rtol=1e-4, atol=1e-5)


def test_models_that_return_tuples_and_mappings():
    model, x = PoolNet().eval(), torch.randn(6, 1, 12, 12)
    expected = table_of(model, x)

    class Wrapped(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.net, self.wrap = model, wrap

        def forward(self, x):
            return self.wrap(self.net(x))

    for wrap in (lambda logits: (logits, None), lambda logits: {"logits": logits, "loss": None}):
        np.testing.assert_array_equal(table_of(Wrapped(wrap), x).cams, expected.cams)
