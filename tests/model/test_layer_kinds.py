"""The default layer and its axes on each kind of network that shapes alone mislead on."""

from __future__ import annotations

import pytest
import torch
from models import HardswishNet, ResidualNet
from torch import nn
from torch.nn.functional import relu

from lightning_ifa.errors import LayerError
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, run_captured
from lightning_ifa.model.activation_patching import ActivationPatch
from lightning_ifa.model.axes import Layout, confirm_layout
from lightning_ifa.model.head import Head
from lightning_ifa.model.layer_search import find_layer, find_layers
from lightning_ifa.model.perturbation import Bands, Movement, cut_bands


def conv(n_in=1, n_out=8):
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, 2, 1), nn.ReLU())


def found(model, *shape, **options):
    torch.manual_seed(0)
    return find_layer(model.eval(), torch.randn(2, *shape), **options).target


class Parts(nn.Module):
    """A network told by its parts and what it does with them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def test_decoder_that_runs_last_is_not_on_the_way():
    def run(net, x):
        features = net.encoder(x)
        return net.head(features.mean((2, 3))), net.decoder(features)

    model = Parts(run, encoder=conv(), head=nn.Linear(8, 2), decoder=nn.ConvTranspose2d(8, 1, 2, 2))
    assert found(model, 1, 16, 16, scores=lambda output: output[0]).name == "encoder"


@pytest.mark.parametrize("how", ["no_grad", "detach"])
def test_teacher_that_runs_last_is_not_on_the_way(how):
    def run(net, x):
        out = net.head(net.student(x).mean((2, 3)))
        if how == "detach":
            net.target = net.teacher(x).detach()
            return out
        with torch.no_grad():
            net.target = net.teacher(x)
        return out

    model = Parts(run, student=conv(), teacher=conv(), head=nn.Linear(8, 2))
    assert found(model, 1, 16, 16).name == "student"


def test_parameters_beside_the_input_are_not_on_the_way():
    def run(net, x):
        table = net.bias(net.positions)
        return net.head((net.body(x) + table).mean((2, 3)))

    model = Parts(run, body=conv(), bias=nn.Conv2d(1, 8, 1), head=nn.Linear(8, 2))
    model.positions = nn.Parameter(torch.randn(1, 1, 8, 8))
    assert found(model, 1, 16, 16).name == "body"


@pytest.mark.parametrize("last", [nn.Dropout(), nn.Identity(), nn.AdaptiveAvgPool2d(9), nn.Upsample(scale_factor=2)])
def test_copies_are_not_the_last_activation(last):
    model = nn.Sequential(conv(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert found(model, 1, 8, 8).name == "0"


def test_class_planes_are_no_features_but_as_many_channels_are():
    planes = nn.Sequential(conv(), nn.Conv2d(8, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert found(planes, 1, 16, 16).name == "0"
    probabilities = nn.Sequential(*planes, nn.Softmax(1))
    assert found(probabilities, 1, 16, 16).name == "0"
    features = nn.Sequential(conv(1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    assert found(features, 1, 16, 16).name == "0"


@pytest.mark.parametrize("asleep", ["head", "branch"])
def test_weights_that_are_zero_hide_nothing(asleep):
    def run(net, x):
        return net.head(relu(net.stem(x) + net.scale * net.branch(x)).mean((2, 3)))

    model = Parts(run, stem=conv(), branch=conv(), head=nn.Linear(8, 2))
    model.scale = nn.Parameter(torch.zeros(8, 1, 1) if asleep == "branch" else torch.ones(8, 1, 1))
    if asleep == "head":
        nn.init.zeros_(model.head.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert found(model, 1, 16, 16).name == "relu()"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gate_is_not_taken_for_the_features_it_is_multiplied_with():
    def run(net, x):
        features = net.body(x)
        return net.head((features * net.gate(features)).mean((2, 3)))

    model = Parts(run, body=conv(), gate=nn.Sequential(nn.Conv2d(8, 1, 1), nn.Sigmoid()), head=nn.Linear(8, 2))
    assert found(model, 1, 16, 16).name == "body"


def test_what_a_function_returns_is_captured_replaced_and_run_from():
    def run(net, x):
        return net.head(relu(net.features(x)).mean((2, 3)))

    torch.manual_seed(0)
    model, x = Parts(run, features=nn.Conv2d(1, 7, 3), head=nn.Linear(7, 2)).eval(), torch.randn(4, 1, 8, 8)
    target = find_layer(model, x).target
    assert target.name == "relu()"
    with ActivationCapture(model, find_layer(model, x, "relu()").target) as capture:
        output = capture.forward(x)
        A, G = capture.gradient(output[:, 0])
    features = model.features(x).relu()
    torch.testing.assert_close(A, features.detach())
    torch.testing.assert_close(
        (A * G).sum((1, 2, 3)), (output[:, 0] - model.head.bias[0]).detach(), rtol=1e-4, atol=1e-5
    )
    ones = torch.ones_like(A)
    torch.testing.assert_close(ActivationPatch(model, target).run(x, ones), model.head(torch.ones(4, 7)).detach())
    with Head(model, target, x) as head:
        assert head.scope == "pooled"
        torch.testing.assert_close(head(ones.mean((2, 3))), model.head(torch.ones(4, 7)).detach())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_functions_count_in_the_module_whose_forward_calls_them():
    class Twice(HardswishNet):
        def forward(self, x):
            return self.head(relu(relu(self.features(x)) + 1).mean((2, 3)))

    model, x = Twice().eval(), torch.randn(2, 1, 12, 12)
    assert find_layer(model, x).target.name == "relu()#1"
    first, second = (found.target for found in find_layers(model, x, ["relu()#0", "relu()#1"]))
    with ActivationCapture(model, first) as one, ActivationCapture(model, second) as two:
        (A, _), (B, _) = gradients([one, two], run_captured([one, two], x)[:, 0])
    torch.testing.assert_close(B, A + 1)
    with pytest.raises(LayerError, match=r'"relu\(\)" runs more than once'):
        find_layer(model, x, "relu()")


def test_shared_activations_last_call():
    assert found(ResidualNet(), 1, 12, 12).name == "relu#1"


class Attention(nn.Module):
    """One block with separate projections; tokens may be taken in another order first."""

    def __init__(self, order=None, d=16):
        super().__init__()
        self.order = order
        self.patch, self.norm, self.head = nn.Conv2d(1, d, 4, 4), nn.LayerNorm(d), nn.Linear(d, 2)
        self.q, self.k, self.v = (nn.Linear(d, d) for _ in range(3))
        self.matrix = nn.Identity()
        self.cls = nn.Parameter(torch.randn(1, 1, d))

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = tokens if self.order is None else tokens[:, self.order]
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1)
        h = self.norm(tokens)
        weights = self.matrix((self.q(h) @ self.k(h).transpose(1, 2)).div(4).softmax(-1)[:, None])[:, 0]
        return self.head((tokens + weights @ self.v(h))[:, 0])


def test_residual_stream_is_taken_before_its_projections_on_a_grid_of_any_proportion():
    target = found(Attention(), 1, 24, 32)
    assert (target.name, target.reshape.front, target.reshape.space) == ("norm", 1, (6, 8))


def test_attention_matrix_is_no_map():
    with pytest.raises(LayerError, match="reshape="):
        found(Attention(), 1, 24, 32, name="matrix")


@pytest.mark.parametrize("seed", range(5))
def test_a_small_attention_matrix_is_no_default_layer(seed):
    def run(net, x):
        tokens = net.norm(net.patch(x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).flatten(1, 3)))
        matrix = net.drop(torch.stack([tokens @ tokens.transpose(1, 2)] * 3, 1).softmax(-1))
        return net.head((matrix.mean(1) @ tokens).mean(1))

    torch.manual_seed(seed)
    parts = {"patch": nn.Linear(64, 6), "norm": nn.LayerNorm(6), "drop": nn.Dropout(0.1), "head": nn.Linear(6, 2)}
    assert found(Parts(run, **parts), 1, 32, 32).name == "norm"


def test_tokens_in_another_order_are_refused():
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    with pytest.raises(LayerError, match=r"reshape="):
        found(Attention(order), 1, 24, 32, name="norm")


def test_merged_patches_are_found_in_the_last_stage():
    def run(net, x):
        tokens = net.norm(net.patch(x).flatten(2).transpose(1, 2))
        grid = tokens.unflatten(1, (8, 8)).unfold(1, 2, 2).unfold(2, 2, 2)
        return net.head(net.last(net.merge(grid.flatten(3).flatten(1, 2))).mean(1))

    parts = {"patch": nn.Conv2d(1, 6, 2, 2), "norm": nn.LayerNorm(6), "merge": nn.Linear(24, 12)}
    target = found(Parts(run, **parts, last=nn.LayerNorm(12), head=nn.Linear(12, 2)), 1, 16, 16)
    assert (target.name, target.reshape.space) == ("last", (4, 4))


@pytest.mark.parametrize("axis", [1, 2])
def test_signals_are_followed_along_the_axis_of_time(axis):
    def run(net, x):
        return net.head(net.norm(net.embed(x if axis == 1 else x.transpose(1, 2))).mean(1))

    model = Parts(run, embed=nn.Linear(5, 12), norm=nn.LayerNorm(12), head=nn.Linear(12, 2))
    shape = (40, 5) if axis == 1 else (5, 40)
    target = found(model, *shape)
    assert (target.name, target.reshape.space, target.inputs) == ("norm", (40,), (axis,))
    assert target.as_picture(torch.zeros(2, *shape)).shape == (2, 5, 40)


def test_spectrogram_without_a_channel_axis():
    def run(net, x):
        tokens = net.patch(x[:, None].transpose(2, 3)).flatten(2).transpose(1, 2)
        return net.head(net.norm(tokens).mean(1))

    model = Parts(run, patch=nn.Conv2d(1, 8, 4, 4), norm=nn.LayerNorm(8), head=nn.Linear(8, 2))
    target = found(model, 48, 16)
    assert (target.reshape.space, target.inputs) == ((12, 4), (1, 2))  # as the input lies, not as the network turns it


@pytest.mark.parametrize("behind", [0, 3])
def test_tokens_before_the_batch_axis_and_extra_tokens_behind_those_of_the_image(behind):
    def run(net, x):
        tokens = net.patch(x).flatten(2).permute(2, 0, 1)
        tokens = torch.cat([tokens, net.extra[:, None].expand(-1, len(x), -1)])
        return net.head(net.norm(net.block(tokens)).mean(0))

    torch.manual_seed(0)
    model = Parts(
        run,
        patch=nn.Conv2d(1, 8, 4, 4),
        extra=nn.Parameter(torch.randn(behind, 8)),
        block=nn.TransformerEncoderLayer(8, 2, 16),
        norm=nn.LayerNorm(8),
        head=nn.Linear(8, 2),
    ).eval()
    x = torch.randn(3, 1, 24, 32)
    target = find_layer(model, x).target
    with ActivationCapture(model, target) as capture:
        score = capture.forward(x)[:, 0]
        A, G = capture.gradient(score)
    assert (target.name, A.shape) == ("norm", (3, 8, 6, 8))
    if not behind:
        torch.testing.assert_close((A * G).flatten(1).sum(1) + model.head.bias[0].detach(), score.detach())
        torch.testing.assert_close(ActivationPatch(model, target).run(x, 0 * A), model.head.bias.expand(3, -1).detach())


def test_slices_in_the_batch_axis_are_put_together_again():
    def run(net, x):
        maps = net.body(x.transpose(1, 2).flatten(0, 1))
        return net.head(maps.mean((2, 3)).unflatten(0, (len(x), -1)).mean(1))

    torch.manual_seed(0)
    model, x = Parts(run, body=conv(), head=nn.Linear(8, 2)).eval(), torch.randn(3, 1, 6, 16, 16)
    target = find_layer(model, x).target
    with ActivationCapture(model, target) as capture:
        output = capture.forward(x)
        A, G = capture.gradient(output[:, 0])
    assert (target.rows, A.shape) == (6, (3, 8, 6, 8, 8))
    torch.testing.assert_close(A[1, :, 4], model.body(x[1:2, :, 4])[0].detach())
    torch.testing.assert_close((A * G).flatten(1).sum(1), (output[:, 0] - model.head.bias[0]).detach())


def test_video_is_followed_along_frames_height_and_width():
    def run(net, x):
        return net.head(net.body(x.transpose(1, 2)).mean((2, 3, 4)))

    model = Parts(run, body=nn.Sequential(nn.Conv3d(2, 6, 3, 1, 1), nn.ReLU()), head=nn.Linear(6, 2))
    target, x = found(model, 6, 2, 8, 8), torch.randn(3, 6, 2, 8, 8)
    assert target.inputs == (1, 3, 4)
    assert target.as_picture(x).shape == (3, 2, 6, 8, 8)
    assert torch.equal(target.from_picture(target.as_picture(x), x), x)


def test_layout_from_movements_alone():
    x = torch.randn(1, 1, 12, 8)
    _, bands = cut_bands(x)
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(4), indexing="ij")
    places = {2: (rows.flatten() + 0.5) / 6, 3: (columns.flatten() + 0.5) / 4}
    moved = torch.stack(
        [1 / (0.1 + (places[axis] - centre).abs()) for axis, centre in zip(bands.axis, bands.centre, strict=True)]
    ).double()
    tokens = torch.cat([moved.mean(1, keepdim=True).expand(-1, 2), moved], 1).numpy()
    seen = confirm_layout(Movement((26, 5), 1, {1: tokens}), Bands(bands.axis, bands.centre), 4)
    assert seen.layout == Layout(1, (6, 4), 2, (0, 1), (2, 3))


def attend(net, x):
    """Pool by attention whose weights have a hidden layer of their own."""
    features = net.body(x)
    weights = net.score(features).flatten(2).softmax(2).reshape(len(x), 1, *features.shape[2:])
    return net.head((features * weights).sum((2, 3)))


def mask(net, x):
    """Pool under a mask that a decoder draws."""
    features = net.body(x)
    drawn = nn.functional.avg_pool2d(net.score(features).sigmoid(), 2)
    return net.head((features * drawn).sum((2, 3)) / drawn.sum((2, 3)))


def gate(net, x):
    """Multiply features with channels that a gate lets through."""
    features = net.body(x)
    return net.head((features * net.score(features).sigmoid()).mean((2, 3)))


@pytest.mark.parametrize(
    ("run", "score"),
    [
        (attend, nn.Sequential(nn.Conv2d(8, 4, 1), nn.Tanh(), nn.Conv2d(4, 1, 1))),
        (mask, nn.Sequential(nn.ConvTranspose2d(8, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 1, 1))),
        (gate, nn.Conv2d(8, 8, 1)),
    ],
)
def test_what_the_score_reads_as_weights_only_are_no_features(run, score):
    model = Parts(run, body=conv(), score=score, head=nn.Linear(8, 2))
    assert found(model, 1, 16, 16).name == "body"


def test_views_pooled_by_attention_are_not_told_by_the_layer_that_weighs_them():
    def run(net, x):
        views = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 1, 8, 8)
        features = net.body(views).mean((2, 3)).reshape(len(x), -1, 8)
        return net.head((net.score(features).softmax(1) * features).sum(1))

    score = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
    with pytest.raises(LayerError, match="views or windows per sample lie in the batch axis"):
        found(Parts(run, body=conv(), score=score, head=nn.Linear(8, 2)), 1, 16, 16)
