"""Find the scores in whatever a model returns, and tell the task from their shape and the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.errors import OutputError
from lightning_ifa.options import TASKS, Task

NAMES = ("logits", "out")
"""Names under which models return their scores beside other things."""

IGNORED = 255
"""Label of what is not to be judged, by convention where labels have 8 bits; any negative one is another."""

NAMED = "name the scores by forward_fn=lambda model, batch: model(batch[0])[...], or by a callable `task`"


def output_tensor(output: Any, target: Any = None, task: str = "auto") -> Tensor:
    """Find the score tensor in what a model returns.

    A tensor; ``logits`` or ``out`` of an object or mapping; else the only floating-point tensor, however nested; else
    the only one that fits the targets.

    Args:
        output: Output of the model.
        target: Target of the same samples, or None.
        task: The task, if it is known.

    Raises:
        OutputError: There is none, or there are several that it may be; the message gives their shapes.
    """
    if torch.is_tensor(output):
        return output
    for key in NAMES:
        value = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if torch.is_tensor(value):
            return value
    found = dict(_candidates(output))
    if not found:
        keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
        raise OutputError(
            f"the model returns a {type(output).__name__}{keys} without a floating-point tensor; expected scores, one "
            "row a sample. A callable `task` may compute the score from anything"
        )
    fitting = {name: scores for name, scores in found.items() if _fits(scores, target, task)}
    for choice in (found, fitting):
        if len(choice) == 1:
            return next(iter(choice.values()))
    shapes = ", ".join(f"{name} {tuple(scores.shape)}" for name, scores in found.items())
    given = f" for targets {tuple(target.shape)}" if torch.is_tensor(target) else ""
    raise OutputError(
        f"the model returns several tensors, and more than one of them, or none, may be the scores{given}: {shapes}; "
        + NAMED
    )


def _candidates(output: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors with one row a sample, by their place in the output."""
    if torch.is_tensor(output):
        if output.is_floating_point() and output.dim():
            yield place, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _candidates(value, f"{place}[{key!r}]")
    elif isinstance(output, (tuple, list)):
        for number, value in enumerate(output):
            yield from _candidates(value, f"{place}[{number}]")
    elif hasattr(output, "__dict__"):
        for name, value in vars(output).items():
            if torch.is_tensor(value) or isinstance(value, (tuple, list, Mapping)):
                yield from _candidates(value, f"{place}.{name}")


def _fits(scores: Tensor, target: Any, task: str) -> bool:
    """Whether scores may be those that the targets are for, by their shapes and classes."""
    if not torch.is_tensor(target) or len(target) != len(scores):
        return False
    if scores.dim() > 2:
        mask = class_mask(scores, target)
        is_mask = mask.shape == scores.shape[:1] + scores.shape[2:]
        return is_mask and task in ("auto", "segmentation") and _knows_labels(scores, mask)
    try:
        told = infer_task(scores, target)
    except OutputError:
        return False
    is_right = task in ("auto", told) or (task == "regression" and told == "binary") or {task, told} <= _ROWS
    return is_right and (told != "multiclass" or target.shape == scores.shape or _knows_labels(scores, target))


_ROWS = {"multiclass", "multilabel", "binary"}


def _knows_labels(scores: Tensor, target: Tensor) -> bool:
    labels = target[(target >= 0) & (target != IGNORED)]
    return not len(labels) or int(labels.max()) < max(scores.shape[1], 2)


def infer_task(output: Any, target: Tensor | None) -> Task:
    """Infer the task from the shapes and dtypes of one batch.

    Args:
        output: Output of the model for a few samples.
        target: Target of a whole batch, or None.

    Raises:
        OutputError: The shapes fit no task; the message names them.
    """
    scores = output_tensor(output, target)
    if scores.dim() > 2:
        return "segmentation"
    width = 1 if scores.dim() == 1 else scores.shape[1]
    if target is None:
        return "multiclass" if width > 1 else "binary"
    if not torch.is_tensor(target):
        raise OutputError(f"the target is a {type(target).__name__}; a callable `task` can read it")
    labels = squeeze_column(target)
    if width == 1 and labels.dim() == 1:
        return "binary" if all_in(known_labels(labels), (0, 1)) else "regression"
    if labels.dim() == 1 and is_integral(labels):
        return "multiclass"
    if labels.shape[1:] == scores.shape[1:]:
        if labels.is_floating_point() and _are_shares(labels):
            return "multiclass"
        if not all_in(known_labels(labels), (0, 1)):
            return "regression"
        return "multiclass" if bool((labels.sum(1) == 1).all()) else "multilabel"
    raise OutputError(
        f"cannot tell the task from output {tuple(scores.shape)} and target {tuple(target.shape)} "
        f"({target.dtype}); pass task={', '.join(map(repr, TASKS[:-1]))} or a callable(output, target) -> (n,)"
    )


def _are_shares(labels: Tensor) -> bool:
    """Whether every row holds shares of classes, as mixup and label smoothing make them."""
    return bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < ROUNDING).all())


ROUNDING = 1e-3
"""Largest difference of a sum of shares from 1."""


def widen_task(one: str, other: str) -> str:
    """Give the task of samples of which some look like one and some like another: the one that both may be.

    >>> widen_task("binary", "regression")
    'regression'
    """
    order = ("binary", "multiclass", "multilabel", "regression")
    if one == other or not {one, other} <= set(order):
        return one
    return max(one, other, key=order.index)


def known_labels(labels: Tensor) -> Tensor:
    """Drop the labels that say "not labelled": of whole numbers the negative ones and 255, of others NaN."""
    if labels.is_floating_point():
        return labels[~labels.isnan()]
    return labels[(labels >= 0) & (labels != IGNORED)]


def class_mask(scores: Tensor, target: Tensor) -> Tensor:
    """Turn masks of one channel, or one channel a class as the scores ``(n, k, *space)``, into ``(n, *space)``."""
    if target.dim() == scores.dim():
        if target.shape[1] == 1:
            return target[:, 0]
        if target.shape == scores.shape:
            return target.argmax(1)
    return target


def squeeze_column(target: Tensor) -> Tensor:
    """Turn a column ``(n, 1)`` into ``(n,)``; leave any other shape."""
    return target[:, 0] if target.dim() == 2 and target.shape[1] == 1 else target


def is_integral(values: Tensor) -> bool:
    """Whether all values are whole numbers."""
    return not values.is_floating_point() or bool((values == values.round()).all())


def all_in(values: Tensor, allowed: tuple[int, ...]) -> bool:
    """Whether all values are among the allowed ones."""
    return bool(torch.isin(values, torch.tensor(allowed, device=values.device, dtype=values.dtype)).all())
