"""Take hold of what a target layer returns, whether a module or an activation function called in one makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_ifa.model.target_layer import TargetLayer

ACTIVATION_FUNCTIONS = frozenset(
    ("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish")
)
"""Functions of torch whose results are features; gates, as the sigmoid, are not among them."""


class Removable(Protocol):
    """What can be taken off again."""

    def remove(self) -> None:
        """Take it off."""


def hook_output(target: TargetLayer, change: Callable[[Any], Any]) -> Removable:
    """Call a function with every output of the layer's module, or of its activation function.

    Args:
        target: The layer; which of its calls is meant is left to ``change``.
        change: Takes an output, and gives what goes on in its place, or None to leave it.
    """
    if target.function is None:
        return target.module.register_forward_hook(lambda module, args, output: change(output))
    return _FunctionHook(target.module, target.function, change)


class FunctionWatch(TorchFunctionMode):
    """Shows every result of an activation function while it is active."""

    def __init__(self, change: Callable[[str, Any], Any]) -> None:
        super().__init__()
        self._change = change

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "").rstrip("_")
        if name not in ACTIVATION_FUNCTIONS or not torch.is_tensor(output):
            return output
        changed = self._change(name, output)
        return output if changed is None else changed


class _FunctionHook:
    """Sees the calls of one function that a module's own forward makes; those of modules inside it are theirs."""

    def __init__(self, module: nn.Module, function: str, change: Callable[[Any], Any]) -> None:
        self._function, self._change, self._inside, self._depth = function, change, 0, 0
        self._watch = FunctionWatch(self._see)
        inner = observable(part for part in module.modules() if part is not module)
        self._handles = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
            *(part.register_forward_pre_hook(self._go_in) for part in inner),
            *(part.register_forward_hook(self._come_out, always_call=True) for part in inner),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._inside = 0
        self._depth += 1
        if self._depth == 1:  # a network that forward_fn calls is entered twice
            self._watch.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self._watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _go_in(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _come_out(self, module: nn.Module, args: Any, output: Any) -> None:
        self._inside -= 1

    def _see(self, name: str, output: Any) -> Any:
        return self._change(output) if name == self._function and not self._inside else None


def observable(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules whose hooks run: those made by ``torch.jit`` take none, or do not run them."""
    return [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
