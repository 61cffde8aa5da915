"""Look on while a network runs, without a change to what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from lightning_ifa.model.forward import allow_gradients, copy_inference_state, run_forward
from lightning_ifa.model.layer_hooks import Removable, hook_output, observable
from lightning_ifa.model.target_layer import TargetLayer, as_target_layer, plain_name


class ForwardTrace(NamedTuple):
    """What a forward pass had done when the layer returned.

    Attributes:
        output: The whole network's output.
        activation: The layer's output, ``(n, c, *space)``.
        calls: The outermost module calls that had ended, the layer's own among them, and what they returned.
    """

    output: Any
    activation: Tensor
    calls: list[tuple[nn.Module, Any]]


def trace_forward(
    model: nn.Module, layer: nn.Module | TargetLayer, x: Tensor, state: Mapping[str, Tensor] | None = None
) -> ForwardTrace:
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
    target, turns = as_target_layer(layer), count()

    def enter(module: nn.Module, args: Any) -> None:
        ended.append([])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        ended.pop()
        ended[-1].append((module, output))
        if module is target.module and target.function is None:
            reach(output)

    def reach(output: Any) -> None:
        if target.is_at(next(turns)):
            activation.append(target.read(output).clone())  # what follows may change it in place
            calls.extend(chain.from_iterable(ended))

    modules = observable(model.modules())
    handles: list[Removable] = [module.register_forward_pre_hook(enter) for module in modules]
    handles += [module.register_forward_hook(leave) for module in modules]
    handles += [hook_output(target, reach)] if target.function else []
    try:
        output = run_forward(model, x, state or copy_inference_state(model))
    finally:
        for handle in handles:
            handle.remove()
    return ForwardTrace(output, activation[0], calls)


@contextmanager
def watch_calls(
    first: nn.Module, layer: nn.Module, entered: Callable[[Any], None], left: Callable[[Any], None]
) -> Iterator[None]:
    """Watch two modules inside a ``with`` block, whoever runs the network; an error in watching reaches nobody.

    Args:
        first: The module whose input is watched.
        layer: The module whose output is watched.
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


@contextmanager
def watch_outputs(modules: Sequence[nn.Module], returned: Callable[[int, Any], None]) -> Iterator[None]:
    """Watch modules inside a ``with`` block, whoever runs the network; an error in watching reaches nobody.

    Args:
        modules: The modules whose outputs are watched.
        returned: Takes the number of a module and its output, at every call.
    """

    def after(number: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            with suppress(Exception):
                returned(number, output)

        return hook

    handles = [module.register_forward_hook(after(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class LayerShape(NamedTuple):
    """What one module returned in a dry forward pass."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    memory: StorageWeakRef
    calls: int


def trace_layers(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[LayerShape]]:
    """Run a forward pass and note every module that returns a tensor, in order of completion.

    Args:
        model: The network, already in evaluation mode.
        run: Runs it once.

    Returns:
        What ``run`` returned, and the modules (the root left out) in the order in which their last call ended.
    """
    seen: dict[str, LayerShape] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if torch.is_tensor(output):
                before = seen.pop(name, None)
                calls = 1 if before is None else before.calls + 1
                seen[name] = LayerShape(name, module, tuple(output.shape), memory_of(output), calls)

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in named_layers(model).items()
        if not isinstance(module, torch.jit.ScriptModule)  # takes no hook, or does not run it
    ]
    try:
        with allow_gradients():
            output = run()
    finally:
        for handle in handles:
            handle.remove()
    return output, list(seen.values())


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module but the root by its plain name; of a compiled module and its original, the original."""
    return {plain_name(name): module for name, module in model.named_modules() if name}


def memory_of(tensor: Tensor) -> StorageWeakRef:
    """Where a tensor lies, as long as it lives: an address would not do, a later tensor may get it."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
