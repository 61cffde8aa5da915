"""Find the layer whose features are analysed, and say which layers would do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError
from lightning_ifa.features.tap import LayerShape, named_layers, normal, observe_layers, plain_name
from lightning_ifa.features.targets import output_tensor


class TargetLayer(NamedTuple):
    """The layer to analyse, and what the model returned in the dry forward pass that found it."""

    name: str
    module: nn.Module
    output: Any


def find_layer(model: nn.Module, x: Tensor, name: str | None = None) -> TargetLayer:
    """Find the target layer by a dry forward pass.

    Without a name it is the last layer with spatial output: a tensor ``(n, c, *space)`` with more than one
    position and as many spatial axes as the input, which is neither the model's output nor its class planes.

    Args:
        model: The network, already in evaluation mode.
        x: One batch of inputs, shape ``(n, ...)``; two samples of it are used.
        name: A dotted module name as in ``model.named_modules()``; parts that ``torch.compile`` adds may be
            left out.

    Raises:
        LayerError: The name is misspelt, the layer has no spatial output, did not run, or there is none.
    """
    few = x[:2]
    output, layers = observe_layers(model, lambda: model(normal(few)))
    usable = [layer for layer in layers if _is_usable(layer, few, output)]
    if name is None:
        if not usable:
            raise LayerError(
                "no layer with spatial output: a map needs a layer that returns (batch, channels, *space) with "
                f"more than one position, run once, before the output. Layers seen: {_listed(layers)}"
            )
        return TargetLayer(usable[-1].name, usable[-1].module, output)
    layer = _named_layer(model, plain_name(name), layers, usable)
    return TargetLayer(layer.name, layer.module, output)


def _is_usable(layer: LayerShape, x: Tensor, output: Any) -> bool:
    space = layer.shape[2:]
    same_rank = x.dim() < 3 or len(layer.shape) == x.dim()
    if layer.calls > 1 or not space or not same_rank or torch.Size(space).numel() < 2:
        return False
    result = output_tensor(output)
    is_output = layer.storage == result.data_ptr()
    is_class_plane = result.dim() == len(layer.shape) and layer.shape[1] == result.shape[1]
    return not is_output and not is_class_plane


def _named_layer(model: nn.Module, name: str, layers: list[LayerShape], usable: list[LayerShape]) -> LayerShape:
    modules = named_layers(model)
    if name not in modules:
        near = get_close_matches(name, modules, n=1, cutoff=0.4)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LayerError(f'the model has no layer "{name}"{hint} Layers that would do: {_listed(usable)}')
    ran = {layer.name: layer for layer in layers}
    if name not in ran:
        raise LayerError(
            f'layer "{name}" did not run, or returned no tensor, in a forward pass. '
            f"Layers that would do: {_listed(usable)}"
        )
    layer = ran[name]
    if len(layer.shape) < 3 or torch.Size(layer.shape[2:]).numel() < 2:
        raise LayerError(
            f'layer "{name}" returns {layer.shape}; a map needs (batch, channels, *space) with more than one '
            f"position. Layers that would do: {_listed(usable)}"
        )
    return layer


def _listed(layers: list[LayerShape], most: int = 8) -> str:
    shown = [f'"{layer.name}" {layer.shape}' for layer in layers[-most:]]
    left = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {left} before them" if left else "") if shown else "none"
