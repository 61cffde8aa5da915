"""What a network's modules return in a dry forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from lightning_ifa.features.passes import gradients_allowed
from lightning_ifa.features.place import plain_name


class LayerShape(NamedTuple):
    """What one module returned in a dry forward pass."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    memory: StorageWeakRef
    calls: int

    def shares_memory(self, other: Tensor) -> bool:
        """Whether what the module returned lies in the same memory as another tensor.

        An address would not tell: once a tensor is freed, a later one may get its address.
        """
        return bool(self.memory == _memory(other))


def observe_layers(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[LayerShape]]:
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
                seen[name] = LayerShape(name, module, tuple(output.shape), _memory(output), calls)

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in named_layers(model).items()
        if not isinstance(module, torch.jit.ScriptModule)  # takes no hook, or does not run it
    ]
    try:
        with gradients_allowed():
            output = run()
    finally:
        for handle in handles:
            handle.remove()
    return output, list(seen.values())


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module but the root by its plain name; of a compiled module and its original, the original."""
    return {plain_name(name): module for name, module in model.named_modules() if name}


def _memory(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
