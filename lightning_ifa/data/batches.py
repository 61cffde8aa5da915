"""Read input and target from whatever a loader yields."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.errors import BatchError

BatchFunction = Callable[[Any], tuple[Tensor, Any]]
INPUT_KEYS = (
    *("image", "images", "x", "input", "inputs", "pixel_values", "img", "data"),
    *("input_values", "input_features", "audio", "waveform", "waveforms", "signal", "signals", "spectrogram", "video"),
)
TARGET_KEYS = ("label", "labels", "y", "target", "targets", "mask", "masks")


def read_batch(batch: Any, raw: bool = False) -> tuple[Tensor, Tensor | None]:
    """Take input and target from a batch.

    Understood are a tensor ``x``, sequences ``(x, y)`` and ``(x, y, ...)``, and mappings with one of the usual
    names (``image``, ``x``, ``pixel_values``, ...; ``label``, ``y``, ``target``, ...).

    Args:
        batch: The batch.
        raw: Whether the batch is still to be made ready for the model, so that its numbers may be whole.

    Returns:
        Input of shape ``(n, ...)``, and the target, or None where there is none.

    Raises:
        BatchError: The batch has another form; the message names what was found.
    """
    if torch.is_tensor(batch):
        return _check(batch, None, raw)
    if isinstance(batch, Mapping):
        keys = {str(key).lower(): key for key in batch}
        found = [keys[name] for name in INPUT_KEYS if name in keys]
        target = [keys[name] for name in TARGET_KEYS if name in keys]
        if found:
            return _check(batch[found[0]], batch[target[0]] if target else None, raw)
        raise BatchError(
            f"a batch with keys {sorted(map(str, batch))}: none of them is a usual name of an input "
            f"({', '.join(INPUT_KEYS)}); pass batch_fn=lambda batch: (x, y)"
        )
    if isinstance(batch, (tuple, list)) and batch:
        return _check(batch[0], batch[1] if len(batch) > 1 else None, raw)
    raise BatchError(f"a batch of type {type(batch).__name__} cannot be read; pass batch_fn=lambda batch: (x, y)")


def read_with(batch_fn: BatchFunction | None, batch: Any, raw: bool = False) -> tuple[Tensor, Any]:
    """Take input and target with the user's function, or by the usual forms if there is none.

    Raises:
        BatchError: The function did not return a pair that starts with a tensor, or the form is unknown.
    """
    if batch_fn is None:
        return read_batch(batch, raw)
    pair = batch_fn(batch)
    if not isinstance(pair, tuple) or len(pair) != 2 or not torch.is_tensor(pair[0]):
        raise BatchError(f"batch_fn returned {type(pair).__name__}; expected a tuple (x, y) with a tensor x")
    return pair


def is_wrapped(value: Any) -> bool:
    """Whether a tensor is of a class of its own that holds plain numbers, as MONAI's ``MetaTensor``."""
    kind = type(value)
    is_subclass = isinstance(value, Tensor) and kind not in (Tensor, torch.nn.Parameter)
    return is_subclass and kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def unwrap(value: Any) -> Any:
    """Give the plain tensor in one of a class of its own; anything else as it is.

    Such a class may put its results into other memory than torch does, so that layers cannot be told from one another.
    """
    return value.as_subclass(Tensor) if is_wrapped(value) else value


def replace_input(batch: Any, x: Tensor, other: Any) -> Any:
    """Give a batch in which another value stands wherever ``x`` itself stood; the batch stays as it is.

    Understood are tuples, lists, mappings, and objects with attributes; of anything else, the very same is returned.
    """
    if batch is x:
        return other
    if isinstance(batch, Mapping):
        changed = {key: replace_input(value, x, other) for key, value in batch.items()}
        return _copy_with(batch, changed) if any(changed[key] is not batch[key] for key in changed) else batch
    if isinstance(batch, (tuple, list)):
        items = [replace_input(value, x, other) for value in batch]
        if all(new is old for new, old in zip(items, batch, strict=True)):
            return batch
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    if torch.is_tensor(batch) or not hasattr(batch, "__dict__"):
        return batch
    held = {name: other for name, value in vars(batch).items() if value is x}
    if not held:
        return batch
    changed = copy.copy(batch)
    vars(changed).update(held)
    return changed


def _copy_with(batch: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    """A mapping of the same class where it can be copied, since models may ask for attributes of it."""
    if type(batch) is dict:
        return changed
    copied: Any = copy.copy(batch)
    for key, value in changed.items():
        copied[key] = value
    return copied


def _check(x: Any, y: Any, raw: bool) -> tuple[Tensor, Tensor | None]:
    if not torch.is_tensor(x) or x.dim() < 2 or not (raw or x.is_floating_point()):
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
