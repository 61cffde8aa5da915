"""The hooks by which a LightningModule or its data make a batch ready, run where there is no trainer to run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_ifa.errors import BatchError

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def own_preparation(model: nn.Module, device: torch.device, data: Any = None) -> Callable[[Any], Any] | None:
    """Give the way of a batch through the user's own transfer hooks; None where there are none.

    As in a training, a hook that the data module overrides is taken before the module's. Lightning's own hooks change
    nothing but the device.

    Args:
        model: The network; a LightningModule of either package, or any module.
        device: The model's device.
        data: The data module that the loaders are of, or None.
    """
    owners = [owner for owner in (data, model) if all(callable(getattr(owner, name, None)) for name in HOOKS)]
    if not any(_overrides(owner, name) for owner in owners for name in HOOKS):
        return None
    names = " or ".join(type(owner).__name__ for owner in owners)
    before, transfer, after = (
        getattr(next((owner for owner in owners if _overrides(owner, name)), owners[-1]), name) for name in HOOKS
    )

    def prepare(batch: Any) -> Any:
        try:
            return after(transfer(before(batch, 0), device, 0), 0)
        except RuntimeError as error:
            if "attached to a" not in str(error):
                raise
            raise BatchError(
                f"a transfer hook of {names} asks for its trainer, and there is none here; analyse by "
                "the callback, as Trainer.validate does, or give the network inside the module, ready inputs and "
                "batch_fn="
            ) from error

    return prepare


def _overrides(owner: Any, name: str) -> bool:
    """Whether a hook is the user's own rather than Lightning's."""
    module = getattr(getattr(type(owner), name, None), "__module__", "")
    return name in vars(owner) or not module.startswith(("pytorch_lightning.", "lightning."))
