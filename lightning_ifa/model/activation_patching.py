"""Put another activation in place of what a layer returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch import Tensor, nn

from lightning_ifa.model.forward import copy_inference_state, run_forward
from lightning_ifa.model.layer_hooks import hook_output
from lightning_ifa.model.target_layer import TargetLayer, as_target_layer


class ActivationPatch:
    """The network run from any activation of one layer.

    Args:
        model: The network, already in evaluation mode.
        layer: The module whose output is replaced, or one of its calls.
        state: Parameters and buffers to run with in place of the model's own, by name.

    Example::

        logits = ActivationPatch(model, model.layer4).run(images, A * mask)
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module | TargetLayer, state: Mapping[str, Tensor] | None = None
    ) -> None:
        self._model, self._layer = model, layer
        self._state = state or copy_inference_state(model)

    def run(self, x: Tensor, activation: Tensor) -> Any:
        """Run the network on ``x``, ``(n, ...)``, with the layer's output replaced by ``activation``, ``(n, c, ...)``.

        What follows the layer may change ``activation`` in place. Returns the network's own output, without a graph.
        """
        with patch_output(self._layer, lambda maps: activation):
            return run_forward(self._model, x, self._state)


@contextmanager
def patch_output(layer: nn.Module | TargetLayer, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a function replace a layer's maps for the duration of a ``with`` block.

    Where one of several calls is meant, the block is for one forward pass.

    Args:
        layer: The module, or one of its calls.
        change: Takes its maps, shape ``(n, c, *space)``, and gives what later layers see.
    """
    target, turns = as_target_layer(layer), count()

    def hook(output: Any) -> Any:
        if target.call is None or target.is_at(next(turns)):
            return target.write(output, change(target.read(output)))
        return None

    handle = hook_output(target, hook)
    try:
        yield
    finally:
        handle.remove()
