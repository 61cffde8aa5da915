"""Watch a forward pass call by call: what every module, and every activation function between modules, returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ifa.model.layer_hooks import FunctionWatch, Removable
from lightning_ifa.model.target_layer import first_output
from lightning_ifa.model.tracing import named_layers


class CallKey(NamedTuple):
    """Which call of a forward pass.

    Attributes:
        name: Dotted name of the module; of a function, of the module whose own forward calls it, "" for the root.
        function: Name of the function, or None for a call of the module itself.
        turn: How many like it ended before.
    """

    name: str
    function: str | None
    turn: int

    @property
    def layer(self) -> str:
        """The name without the turn."""
        return self.name if self.function is None else f"{self.name}.{self.function}()".removeprefix(".")


class EndedCall(NamedTuple):
    """A call that has just ended.

    Attributes:
        key: Which one.
        module: The module, or the one whose forward calls the function.
        output: The tensor that it returned.
        entered: First tensor that went into the module; None of a function.
        is_leaf: Whether no other module ran inside.
    """

    key: CallKey
    module: nn.Module
    output: Tensor
    entered: Tensor | None
    is_leaf: bool


class _Open:
    """A call of a module that has not ended."""

    def __init__(self, name: str, module: nn.Module, args: Any) -> None:
        self.name, self.module, self.is_leaf = name, module, True
        self.entered = next((arg for arg in args if torch.is_tensor(arg)), None) if isinstance(args, tuple) else None


def watch_forward(model: nn.Module, run: Callable[[], Any], see: Callable[[EndedCall], None]) -> Any:
    """Run a forward pass and show every call that returns a tensor, in the order in which they end.

    Args:
        model: The network, already in evaluation mode.
        run: Runs it once.
        see: Takes each call.

    Returns:
        What ``run`` returned.
    """
    stack = [_Open("", model, ())]
    turns: Counter[tuple[str, str | None]] = Counter()

    def key(name: str, function: str | None) -> CallKey:
        turns[name, function] += 1
        return CallKey(name, function, turns[name, function] - 1)

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            stack[-1].is_leaf = False
            stack.append(_Open(name, module, args))

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = stack.pop()
        output = first_output(output)
        if torch.is_tensor(output):
            see(EndedCall(key(call.name, None), module, output, call.entered, call.is_leaf))

    def called(function: str, output: Tensor) -> None:
        see(EndedCall(key(stack[-1].name, function), stack[-1].module, output, None, False))

    handles: list[Removable] = []
    for name, module in named_layers(model).items():
        if not isinstance(module, torch.jit.ScriptModule):  # takes no hook, or does not run it
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        with FunctionWatch(called):
            return run()
    finally:
        for handle in handles:
            handle.remove()
