"""Read input and target from whatever a loader yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.errors import BatchError

BatchFunction = Callable[[Any], tuple[Tensor, Any]]
INPUT_KEYS = ("image", "images", "x", "input", "inputs", "pixel_values", "img", "data")
TARGET_KEYS = ("label", "labels", "y", "target", "targets", "mask")


def read_batch(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Take input and target from a batch.

    Understood are a tensor ``x``, sequences ``(x, y)`` and ``(x, y, ...)``, and mappings with one of the usual
    names (``image``, ``x``, ``pixel_values``, ...; ``label``, ``y``, ``target``, ...).

    Returns:
        Input of shape ``(n, ...)``, and the target, or None where there is none.

    Raises:
        BatchError: The batch has another form; the message names what was found.
    """
    if torch.is_tensor(batch):
        return _check(batch, None)
    if isinstance(batch, Mapping):
        keys = {str(key).lower(): key for key in batch}
        found = [keys[name] for name in INPUT_KEYS if name in keys]
        target = [keys[name] for name in TARGET_KEYS if name in keys]
        if found:
            return _check(batch[found[0]], batch[target[0]] if target else None)
        raise BatchError(
            f"a batch with keys {sorted(map(str, batch))}: none of them is a usual name of an input "
            f"({', '.join(INPUT_KEYS)}); pass batch_fn=lambda batch: (x, y)"
        )
    if isinstance(batch, (tuple, list)) and batch:
        return _check(batch[0], batch[1] if len(batch) > 1 else None)
    raise BatchError(f"a batch of type {type(batch).__name__} cannot be read; pass batch_fn=lambda batch: (x, y)")


def read_with(batch_fn: BatchFunction | None, batch: Any) -> tuple[Tensor, Any]:
    """Take input and target with the user's function, or by the usual forms if there is none.

    Raises:
        BatchError: The function did not return a pair that starts with a tensor, or the form is unknown.
    """
    if batch_fn is None:
        return read_batch(batch)
    pair = batch_fn(batch)
    if not isinstance(pair, tuple) or len(pair) != 2 or not torch.is_tensor(pair[0]):
        raise BatchError(f"batch_fn returned {type(pair).__name__}; expected a tuple (x, y) with a tensor x")
    return pair


def _check(x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    if not torch.is_tensor(x) or x.dim() < 2 or not x.is_floating_point():
        given = f"tensor {tuple(x.shape)} {x.dtype}" if torch.is_tensor(x) else type(x).__name__
        raise BatchError(
            f"the input is a {given}; expected a floating-point tensor (batch, ...); "
            "pass batch_fn=lambda batch: (x, y) to say where it is"
        )
    if y is not None and not torch.is_tensor(y):
        raise BatchError(
            f"the target is a {type(y).__name__}; expected a tensor with one entry a sample; "
            "pass batch_fn=lambda batch: (x, y) to say where it is"
        )
    return x, y
