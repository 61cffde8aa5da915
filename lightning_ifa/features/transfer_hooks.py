"""The hooks by which a LightningModule makes a batch ready, run where there is no trainer to run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_ifa.errors import BatchError

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def own_preparation(model: nn.Module, device: torch.device) -> Callable[[Any], Any] | None:
    """Give the way of a batch through the module's own transfer hooks; None where it has none.

    A module that keeps Lightning's own hooks is given nothing, since these change nothing but the device.

    Args:
        model: The network; a LightningModule of either package, or any module.
        device: The model's device.
    """
    if not all(callable(getattr(model, name, None)) for name in HOOKS) or not _overrides(model):
        return None

    def prepare(batch: Any) -> Any:
        module: Any = model
        try:
            batch = module.on_before_batch_transfer(batch, 0)
            batch = module.transfer_batch_to_device(batch, device, 0)
            return module.on_after_batch_transfer(batch, 0)
        except RuntimeError as error:
            if "attached to a" not in str(error):
                raise
            raise BatchError(
                f"a transfer hook of {type(model).__name__} asks for its trainer, and there is none here; analyse by "
                "the callback, as Trainer.validate does, or give the network inside the module, ready inputs and "
                "batch_fn="
            ) from error

    return prepare


def _overrides(model: nn.Module) -> bool:
    """Whether any hook is the user's own rather than Lightning's."""
    modules = {getattr(getattr(type(model), name, None), "__module__", "") for name in HOOKS}
    own = any(name in vars(model) for name in HOOKS)
    return own or any(not module.startswith(("pytorch_lightning.", "lightning.")) for module in modules)
