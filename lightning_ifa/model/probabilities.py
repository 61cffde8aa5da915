"""Find the logits behind probabilities that a network makes inside its own ``forward``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

ROUNDING = 1e-3
"""Largest difference of a softmax's sum from 1 in half precision."""

_SQUASHING = {
    torch.sigmoid,
    Tensor.sigmoid,
    torch.special.expit,
    functional.sigmoid,
    torch.softmax,
    Tensor.softmax,
    functional.softmax,
    torch.exp,
    Tensor.exp,
}
_SQUASHING_IN_PLACE = {torch.sigmoid_, Tensor.sigmoid_, torch.exp_, Tensor.exp_}
_CLIPPING = {functional.hardsigmoid, functional.hardtanh, torch.clamp, Tensor.clamp, torch.clip, Tensor.clip}
_MOVING = {
    *(getattr(Tensor, name) for name in ("squeeze", "unsqueeze", "view", "reshape", "flatten", "permute", "transpose")),
    *(getattr(torch, name) for name in ("squeeze", "unsqueeze", "reshape", "flatten", "permute", "transpose")),
    *(getattr(Tensor, name) for name in ("contiguous", "clone", "float", "double", "to", "__getitem__", "movedim")),
    *(torch.clone, torch.movedim, torch.select, Tensor.select, torch.narrow, Tensor.narrow),
}
_MIXING = {
    *(getattr(torch, name) for name in ("add", "sub", "mul", "div", "mean", "sum", "stack", "cat", "clamp")),
    *(getattr(Tensor, name) for name in ("add", "sub", "mul", "div", "mean", "sum", "clamp")),
    *(getattr(Tensor, f"__{name}__") for name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")),
    *(torch.reciprocal, Tensor.reciprocal, torch.max, torch.amax, Tensor.amax, torch.rsub),
    *(
        functional.adaptive_avg_pool1d,
        functional.adaptive_avg_pool2d,
        functional.avg_pool1d,
        functional.avg_pool2d,
        functional.interpolate,
    ),
}

_logits = WeakIdKeyDictionary()
"""Probabilities, as tensors that still exist, to the logits they were made from, or to None where these are mixed."""


@contextmanager
def record_logits() -> Iterator[None]:
    """Note, of every probability that is made in the ``with`` block, which logits it was made from."""
    with _Recorder():
        yield


class _Recorder(TorchFunctionMode):
    """Follows probabilities from the function that makes them through views and averages."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in _SQUASHING_IN_PLACE:
            before = args[0].clone()
            result = func(*args, **options)
            _logits[result] = before
            return result
        result = func(*args, **options)
        if not torch.is_tensor(result) or not result.is_floating_point():
            return result
        if func in _CLIPPING and is_within_unit(result):
            _logits[result] = None
        elif func in _SQUASHING:
            _logits[result] = args[0] if args else options.get("input")
        elif func in _MOVING and args and args[0] in _logits:
            source = _logits[args[0]]
            _logits[result] = None if source is None else func(source, *args[1:], **options)
        elif func in _MIXING:
            tensors = [leaf for leaf in tree_leaves((args, options)) if torch.is_tensor(leaf) and leaf.dim()]
            if tensors and all(leaf in _logits for leaf in tensors):
                _logits[result] = None
        return result


def is_squashed(scores: Tensor) -> bool:
    """Whether a tensor was seen to be made from sigmoids, softmaxes or exponentials, and holds probabilities."""
    return scores in _logits and is_within_unit(scores)


def is_within_unit(scores: Tensor) -> bool:
    """Whether all values lie in [0, 1], as those of probabilities do."""
    low, high = torch.aminmax(scores.detach()) if scores.numel() else (torch.zeros(()), torch.ones(()))
    return bool(low >= 0) and bool(high <= 1 + ROUNDING)


def floating_leaves(output: Any) -> list[Tensor]:
    """All floating-point tensors in what a network returns, mappings with attributes included."""
    held = output if isinstance(output, (Tensor, dict, list, tuple)) else getattr(output, "__dict__", output)
    leaves = tree_leaves(dict(held) if isinstance(held, dict) else held)
    return [leaf for leaf in leaves if torch.is_tensor(leaf) and leaf.is_floating_point()]


def logits_behind(scores: Tensor) -> Tensor | None:
    """Give the logits of probabilities, in their shape.

    The very tensor that sigmoid or softmax was applied to, where it was seen; else log p where the classes' values sum
    to 1, and log p - log (1 - p) where they do not.

    Args:
        scores: Output of the network, ``(n, ...)``, classes in axis 1.

    Returns:
        None where the scores are no probabilities.
    """
    if not is_squashed(scores):
        return None
    logits: Tensor | None = _logits[scores]
    if logits is not None and logits.shape == scores.shape:
        return logits
    if scores.dim() > 1 and scores.shape[1] > 1 and bool(((scores.sum(1) - 1).abs() < ROUNDING).all()):
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
    return torch.logit(scores, eps=torch.finfo(scores.dtype).eps)
