"""Look on while a network runs, without a change to what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ifa.features.passes import run_plainly, state_made_in_inference_mode
from lightning_ifa.features.place import Place, as_place


class Past(NamedTuple):
    """What a forward pass had done when the layer returned.

    Attributes:
        output: Of the whole network.
        activation: The layer's output, ``(n, c, *space)``.
        calls: The outermost module calls that had ended, the layer's own among them, and what they returned.
    """

    output: Any
    activation: Tensor
    calls: list[tuple[nn.Module, Any]]


def observe_past(
    model: nn.Module, layer: nn.Module | Place, x: Tensor, state: Mapping[str, Tensor] | None = None
) -> Past:
    """Run a forward pass and note which module calls lie before the layer's end.

    Args:
        model: The network, already in evaluation mode.
        layer: A module, or one of its calls.
        x: Input, ``(n, ...)``.
        state: Parameters and buffers to run with in place of the model's own, by name.
    """
    ended: list[list[tuple[nn.Module, Any]]] = [[]]  # for each call still open, the calls inside it that have ended
    calls: list[tuple[nn.Module, Any]] = []
    activation: list[Tensor] = []
    place, turns = as_place(layer), count()

    def enter(module: nn.Module, args: Any) -> None:
        ended.append([])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        ended.pop()
        ended[-1].append((module, output))
        if module is place.module and place.is_at(next(turns)):
            activation.append(place.read(output).clone())  # what follows may change it in place
            calls.extend(chain.from_iterable(ended))

    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_pre_hook(enter) for module in modules]
    handles += [module.register_forward_hook(leave) for module in modules]
    try:
        output = run_plainly(model, x, state or state_made_in_inference_mode(model))
    finally:
        for handle in handles:
            handle.remove()
    return Past(output, activation[0], calls)


@contextmanager
def watched(
    first: nn.Module, layer: nn.Module, entered: Callable[[Any], None], left: Callable[[Any], None]
) -> Iterator[None]:
    """Look on for the duration of a ``with`` block, whoever runs the network; an error in looking on reaches nobody.

    Args:
        first: The module whose input is told.
        layer: The module whose output is told.
        entered: Takes the positional arguments of ``first``.
        left: Takes the output of ``layer``.
    """

    def before(module: nn.Module, args: Any) -> None:
        with suppress(Exception):
            entered(args)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        with suppress(Exception):
            left(output)

    handles = [first.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
