"""Tell the weights that were analysed from any others: a digest of parameters and persistent buffers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

THREADS = 4
"""Threads that hash; ``hashlib`` lets go of the interpreter meanwhile."""

DIGITS = 32


def digest_weights(state: Mapping[str, Any]) -> str:
    """Digest a state dict: names, dtypes, shapes and bytes of its tensors, wherever they lie.

    The order of the entries, the device and the strides make no difference; one changed bit does, be it in a NaN.
    Entries that are no tensors are left out. SHA-256, FIPS 180-4.

    Args:
        state: Name to tensor, as of ``module.state_dict()`` or a checkpoint's ``"state_dict"``; dense tensors of any
            dtype, shape and device.

    Returns:
        32 hexadecimal digits.

    Raises:
        TypeError: A tensor has no bytes to read: sparse, quantised, on the meta device, or not yet initialised.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> before = digest_weights(net.state_dict())
        >>> _ = net.bias.data.add_(1)
        >>> before == digest_weights(net.state_dict())
        False
    """
    tensors = sorted((name, value) for name, value in state.items() if torch.is_tensor(value))
    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(lambda entry: _digest_tensor(*entry), tensors)
        return hashlib.sha256(b"".join(parts)).hexdigest()[:DIGITS]


def digest_module(module: nn.Module) -> str:
    """Digest a module's state dict; empty where a tensor has no bytes to read, so that it equals no other's.

    Args:
        module: The module, on any device.

    Returns:
        As ``digest_weights``, or an empty string.
    """
    try:
        return digest_weights(module.state_dict())
    except TypeError:
        return ""


def _digest_tensor(name: str, tensor: torch.Tensor) -> bytes:
    found = hashlib.sha256(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
    try:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data if len(flat) else b"")
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        raise TypeError(f"the tensor {name} has no bytes to read: {error}") from error
    return found.digest()
