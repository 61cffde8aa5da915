"""Tell the weights that were analysed from any others: a digest of parameters and persistent buffers.

The same for the tensors of a module and for those in a file, which need no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

THREADS = 4
"""Threads that hash; ``hashlib`` lets go of the interpreter meanwhile."""

DIGITS = 32

Tensor = TypeVar("Tensor")


class RawTensor(NamedTuple):
    """A tensor as its bytes.

    Attributes:
        dtype: Name of torch's dtype, as ``"float32"``.
        shape: Its shape.
        values: Its entries in order, an array of any shape, strides and dtype whose items have the same bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    values: NDArray[Any]


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
    import torch

    return _digest(((name, value) for name, value in state.items() if torch.is_tensor(value)), raw_tensor)


def digest_raw(tensors: Mapping[str, RawTensor]) -> str:
    """Digest tensors of which only the bytes are there, as ``digest_weights`` does.

    Args:
        tensors: Name to tensor.

    Returns:
        32 hexadecimal digits.
    """
    return _digest(tensors.items(), lambda name, tensor: tensor)


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


def _digest(tensors: Iterable[tuple[str, Tensor]], read: Callable[[str, Tensor], RawTensor]) -> str:
    def part(entry: tuple[str, Tensor]) -> bytes:
        tensor = read(*entry)
        found = hashlib.sha256(repr((entry[0], f"torch.{tensor.dtype}", tensor.shape)).encode())
        if tensor.values.size:
            found.update(np.ascontiguousarray(tensor.values).reshape(-1).view(np.uint8).data)
        return found.digest()

    ordered = sorted(tensors, key=lambda entry: entry[0])
    with ThreadPoolExecutor(THREADS) as pool:
        return hashlib.sha256(b"".join(pool.map(part, ordered))).hexdigest()[:DIGITS]


def raw_tensor(name: str, tensor: torch.Tensor) -> RawTensor:
    """Give the bytes of a tensor.

    Args:
        name: Its name, for the error.
        tensor: The tensor, of any dtype, shape and device.

    Raises:
        TypeError: It has no bytes to read.
    """
    import torch

    if tensor.is_quantized:
        raise TypeError(f"the tensor {name} has no bytes to read: its scale is beside them")
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    try:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        return RawTensor(dtype, shape, flat.view(torch.uint8).numpy() if len(flat) else np.empty(0, np.uint8))
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        raise TypeError(f"the tensor {name} has no bytes to read: {error}") from error
