"""Contributions behind norms, attention and activations against Euler's theorem: without biases they are the score."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from lightning_ifa.model.activation_capture import ActivationCapture, gradients, run_captured
from lightning_ifa.model.conservative_gradients import find_rule

WIDTH = 8
ATTENTION = nn.MultiheadAttention(WIDTH, 2, bias=False, batch_first=True).eval()


def by_hand(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(-1, keepdim=True) + 1e-6)


def by_reciprocal(x):
    variance, mean = torch.var_mean(x, -1, keepdim=True)
    return (x - mean) * (variance + 1e-6) ** -0.5


def softmax_by_hand(x):
    exponentials = (x @ x.transpose(1, 2) / 4).exp()
    return exponentials / exponentials.sum(-1, keepdim=True) @ x


NORMS = {
    "layer": nn.LayerNorm(WIDTH),
    "functional": lambda x: F.layer_norm(x, (WIDTH,)),
    "channels first": lambda x: F.layer_norm(x.transpose(1, 2).transpose(1, 2), (WIDTH,), torch.arange(8.0)),
    "group": nn.GroupNorm(1, 6),
    "groups": nn.GroupNorm(3, 6),
    "instance": nn.InstanceNorm1d(6).eval(),
    "rms": nn.RMSNorm(WIDTH),
    "unit length": lambda x: F.normalize(x, dim=-1),
    "by hand": by_hand,
    "by reciprocal": by_reciprocal,
    "rms by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
}
ATTENTIONS = {
    "softmax": lambda x: (x @ x.transpose(1, 2)).softmax(-1) @ x,
    "softmax by hand": softmax_by_hand,
    "einsum": lambda x: torch.einsum("nij,njd->nid", torch.einsum("nid,njd->nij", x, x).softmax(-1), x),
    "fused": lambda x: F.scaled_dot_product_attention(x, x, x),
    "module": lambda x: ATTENTION(x, x, x)[0],
    "module without weights": lambda x: ATTENTION(x, x, x, need_weights=False)[0],
    "pooling": lambda x: x.mean(2).softmax(1)[..., None] * x,
}
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu by hand": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "silu": F.silu,
    "quick gelu": lambda x: x * torch.sigmoid(1.7 * x),
    "elu": F.elu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "squared relu": lambda x: F.relu(x) ** 2,
    "gated": lambda x: F.silu(x) * x.flip(-1),
    "glu": lambda x: F.glu(torch.cat([x, x.flip(1)], -1)),
}
ACTIVATED = {name: lambda x, f=f: f(F.layer_norm(x, (WIDTH,))) for name, f in ACTIVATIONS.items()}


def activation(seed=0):
    return torch.randn(4, 6, WIDTH, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def scored(function, x):
    weights = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1))
    return (function(x) * weights).sum((1, 2))


@pytest.mark.parametrize("function", [*NORMS.values(), *ATTENTIONS.values(), *ACTIVATED.values()],
                         ids=[*NORMS, *ATTENTIONS, *ACTIVATED])  # fmt: skip
def test_contributions_sum_to_the_score(function):
    x = activation()
    score = scored(function, x)
    rule = find_rule(score, x)
    assert rule is not None
    with rule.active():
        (held,) = torch.autograd.grad(score.sum(), x, retain_graph=True)
    (plain,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close((held * x).sum((1, 2)), score, rtol=1e-3, atol=1e-3)
    assert not torch.allclose((plain * x).sum((1, 2)), score, rtol=0.05, atol=0.05)


def test_the_mean_keeps_its_gradient():
    x = activation()
    weights = torch.arange(6.0 * WIDTH).reshape(6, WIDTH)
    score = (F.layer_norm(x, (WIDTH,)) * weights).sum((1, 2))
    with find_rule(score, x).active():
        (held,) = torch.autograd.grad(score.sum(), x)
    expected = (weights - weights.mean(1, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(held, expected.detach())


PLAIN = {
    "linear": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "batch norm": nn.BatchNorm1d(6).eval(),
    "sigmoid gate": lambda x: x * torch.sigmoid(x.mean((1, 2), keepdim=True)),
    "probabilities": lambda x: x.flatten(1).softmax(1).reshape(x.shape),
    "odds": lambda x: torch.sigmoid(x) / (1 - torch.sigmoid(x)),
    "generalised mean": lambda x: x.clamp(min=1e-3).pow(3).mean(1, keepdim=True).pow(1 / 3),
}


@pytest.mark.parametrize("function", PLAIN.values(), ids=list(PLAIN))
def test_without_norm_and_attention_there_is_no_rule(function):
    x = activation()
    assert find_rule(scored(function, x), x) is None


def test_attention_that_only_the_weights_read_keeps_its_plain_gradient():
    x, values = activation(), activation(1).detach()
    assert find_rule(scored(lambda q: F.scaled_dot_product_attention(q, values, values), x), x) is None


def test_a_deep_graph_is_no_recursion():
    x = activation()
    y = x
    for _ in range(3000):
        y = y + 1e-4
    assert find_rule(scored(nn.LayerNorm(WIDTH), y), x) is not None


class Block(nn.Module):
    """A pre-norm transformer block without biases."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(WIDTH, 2, bias=False, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16, bias=False), nn.GELU(), nn.Linear(16, WIDTH, bias=False))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Tokens and a class token, read from the class token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token = nn.Conv2d(1, WIDTH, 4, 4, bias=False), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, 3, bias=False)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def maps(tokens):
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


def captured(model, names, x, **options):
    from lightning_ifa.model.target_layer import TargetLayer

    targets = [TargetLayer(name, model.get_submodule(name), reshape=maps) for name in names]
    captures = [ActivationCapture(model, target, conservative=True) for target in targets]
    for capture in captures:
        capture.__enter__()
    try:
        score = run_captured(captures, x)[:, 0]
        pairs = gradients(captures, score, **options)
        return score.detach(), pairs, [capture.unplaced for capture in captures]
    finally:
        for capture in captures:
            capture.__exit__(None, None, None)


@pytest.mark.parametrize("name", ["blocks.1.norm1", "blocks.0", "blocks.1", "blocks.0.norm1", "norm"])
def test_maps_and_what_has_no_place_in_them_sum_to_the_logit(name):
    model, x = Transformer().eval(), torch.randn(5, 1, 16, 16)
    score, [(A, G)], [unplaced] = captured(model, [name], x)
    torch.testing.assert_close(score, model(x)[:, 0].detach())
    torch.testing.assert_close((A * G).flatten(1).sum(1) + unplaced, score, rtol=1e-3, atol=1e-3)
    assert not x.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_class_token_beside_a_plain_gradient_is_counted_as_without_a_position():
    class ReadsBoth(Transformer):  # as DINOv2 does
        def forward(self, x):
            tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).transpose(1, 2)], 1)
            tokens = self.norm(self.blocks(tokens))
            return self.head(tokens[:, 0] + tokens[:, 1:].mean(1))

    model, x = ReadsBoth().eval(), torch.randn(5, 1, 16, 16)
    score, [(A, G)], [unplaced] = captured(model, ["norm"], x)
    torch.testing.assert_close((A * G).flatten(1).sum(1) + unplaced, score, rtol=1e-4, atol=1e-4)


def test_layers_captured_together_equal_those_captured_alone():
    model, x = Transformer().eval(), torch.randn(5, 1, 16, 16)
    names = ["blocks.0.norm1", "blocks.0", "blocks.1.norm1", "norm"]
    _, pairs, unplaced = captured(model, names, x)
    for name, pair, own in zip(names, pairs, unplaced, strict=True):
        _, [alone], [expected] = captured(model, [name], x)
        torch.testing.assert_close(pair, alone)
        torch.testing.assert_close(own, expected)


def test_a_residual_stream_that_is_changed_in_place_costs_only_what_is_known_of_it():
    class InPlace(Block):
        def forward(self, x):
            h = self.norm1(x)
            x += self.attention(h, h, h, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))

    model, x = Transformer().eval(), torch.randn(5, 1, 16, 16)
    _, [expected], _ = captured(model, ["blocks.1.norm1"], x)
    model.blocks[1].__class__ = InPlace
    _, [found], _ = captured(model, ["blocks.1.norm1"], x)
    torch.testing.assert_close(found, expected)
