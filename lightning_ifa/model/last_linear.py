"""The last linear layer of a network: which one makes the scores, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_ifa.errors import LayerError

TOLERANCE = 2e-3
"""Largest difference between scores and the layer's output taken for rounding, as a share of the largest score."""

INSTEAD = (
    "a repair refits that layer; let the network end in one (pooling and nn.Linear in place of the last convolution do "
    "the same), or train again with report.sample_weights()"
)


class LinearCall(NamedTuple):
    """One call of a linear layer.

    Attributes:
        name: The layer's name, as in ``model.named_modules()``.
        given: Its input.
        output: Its output.
    """

    name: str
    given: Tensor
    output: Tensor


@contextmanager
def watch_linear(model: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[list[LinearCall]]:
    """Note the calls of linear layers inside the block; the list may be cleared at any time.

    Args:
        model: The network.
        wanted: Whether the layer of a name is watched.
    """
    calls: list[LinearCall] = []
    handles = [
        module.register_forward_hook(_noter(calls, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and wanted(name)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _noter(calls: list[LinearCall], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        if given and torch.is_tensor(given[0]) and torch.is_tensor(output):
            calls.append(LinearCall(name, given[0].detach(), output.detach()))

    return note


def find_last_linear(model: nn.Module, calls: list[LinearCall], logits: Tensor) -> str:
    """Name the linear layer whose output is the scores, and which can be given other weights.

    Args:
        model: The network.
        calls: The calls of its linear layers in a forward pass.
        logits: The scores of that pass, ``(n, k)``; of one logit z, ``(-z / 2, z / 2)``.

    Raises:
        LayerError: The scores come from something else, or the layer's weights are not its own.
    """
    found = [call for call in calls if makes(call.output, logits)]
    if not found:
        raise LayerError(f"no nn.Linear gives the network's scores as its output; {INSTEAD}")
    call = found[-1]
    layer = model.get_submodule(call.name)
    assert isinstance(layer, nn.Linear)
    if parametrize.is_parametrized(layer) or not isinstance(dict(layer.named_parameters()).get("weight"), nn.Parameter):
        raise LayerError(
            f'the weights of the last linear layer "{call.name}" are computed from others (weight norm, an adapter); '
            "remove the parametrisation or merge the adapter, and repair then"
        )
    sharers = [name for name, value in model.named_parameters(remove_duplicate=False) if value is layer.weight]
    if len(sharers) > 1:
        raise LayerError(
            f'the weights of the last linear layer "{call.name}" are shared ({", ".join(sharers)}); untie them'
        )
    own = torch.nn.functional.linear(call.given, layer.weight, layer.bias).detach()
    if call.given.dim() != 2 or not makes(own, logits):
        raise LayerError(
            f'the layer "{call.name}" is given {tuple(call.given.shape)} and is not linear in it; {INSTEAD}'
        )
    return call.name


def makes(output: Tensor, logits: Tensor) -> bool:
    """Whether a layer's output is the scores, up to one number a sample."""
    if output.dim() != 2 or len(output) != len(logits):
        return False
    if output.shape[1] == 1 and logits.shape[1] == 2:
        output = torch.cat([-output / 2, output / 2], dim=1)
    if output.shape != logits.shape:
        return False
    a, b = (scores.float() - scores.float().mean(1, keepdim=True) for scores in (output, logits.detach()))
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())
