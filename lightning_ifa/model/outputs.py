"""Read class scores from a model's output, and choose which score is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_ifa.errors import OutputError

Task = Literal["multiclass", "binary", "multilabel", "regression", "segmentation", "custom"]
TASKS: tuple[str, ...] = get_args(Task)
ScoreFunction = Callable[[Any, Any], Tensor]
UNLABELLED = -1


@dataclass(frozen=True)
class Readout:
    """A batch's scores and labels in the one form every task shares.

    Attributes:
        logits: Shape ``(n, k)``, with a graph. Binary: ``(-z / 2, z / 2)``, whose softmax is the sigmoid of the
            model's ``z``. Segmentation: the mean of each class plane.
        targets: Shape ``(n,)``. int64 class, ``-1`` where there is no label; float32 for regression.
        predictions: Shape ``(n,)``, of the same kind.
    """

    logits: Tensor
    targets: Tensor
    predictions: Tensor


def output_tensor(output: Any) -> Tensor:
    """Find the score tensor in what a model returns.

    Accepts a tensor, an object or mapping with ``logits`` or ``out``, or a tuple whose first item is a tensor.

    Raises:
        OutputError: None of these.
    """
    if torch.is_tensor(output):
        return output
    for key in ("logits", "out"):
        value = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if torch.is_tensor(value):
            return value
    if isinstance(output, (tuple, list)) and output and torch.is_tensor(output[0]):
        return output[0]
    keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
    raise OutputError(
        f"the model returns a {type(output).__name__}{keys}; expected a tensor, a tuple that starts with one, "
        'or a mapping with "logits" or "out". A callable `task` may compute the score from anything'
    )


def infer_task(output: Any, target: Tensor | None) -> Task:
    """Tell the task from the shapes and dtypes of one batch.

    Args:
        output: The model's output for a few samples.
        target: The target of a whole batch, or None.

    Raises:
        OutputError: The shapes fit no task; the message names them.
    """
    scores = output_tensor(output)
    if scores.dim() > 2:
        return "segmentation"
    width = 1 if scores.dim() == 1 else scores.shape[1]
    if target is None:
        return "multiclass" if width > 1 else "binary"
    labels = _squeezed(target)
    if width == 1 and labels.dim() == 1:
        return "binary" if _all_in(labels, (0, 1)) else "regression"
    if labels.dim() == 1 and _is_integral(labels):
        return "multiclass"
    if labels.shape[1:] == scores.shape[1:] and _all_in(labels, (0, 1)):
        return "multiclass" if bool((labels.sum(1) == 1).all()) else "multilabel"
    raise OutputError(
        f"cannot tell the task from output {tuple(scores.shape)} and target {tuple(target.shape)} "
        f"({target.dtype}); pass task={', '.join(map(repr, TASKS[:-1]))} or a callable(output, target) -> (n,)"
    )


def read_output(output: Any, target: Any, task: str | ScoreFunction, positions: Tensor) -> Readout:
    """Bring a batch's output and target into the common form.

    Args:
        output: The model's output.
        target: The batch's target, or None.
        task: The task, or a function that computes the explained score from output and target.
        positions: Data-set index of each sample, shape ``(n,)``; for multilabel it decides, the same way in
            every run, which of several labels is explained.

    Raises:
        OutputError: Output or target have a shape or values that the task does not allow.
    """
    n = len(positions)
    if callable(task):
        readout = _custom(task(output, target), n)
    else:
        readout = _read_task(output_tensor(output), target, task, positions)
    if not bool(torch.isfinite(readout.logits).all()):
        raise OutputError("the model's output has NaN or infinite values; has the training diverged?")
    return readout


def _read_task(scores: Tensor, target: Tensor | None, task: str, positions: Tensor) -> Readout:
    n = len(positions)
    if scores.dim() == 0 or scores.shape[0] != n:
        raise OutputError(f"the model returns {tuple(scores.shape)} for {n} samples; expected one row a sample")
    readers = {
        "multiclass": _multiclass,
        "binary": _binary,
        "multilabel": _multilabel,
        "regression": _regression,
        "segmentation": _segmentation,
    }
    if task not in readers:
        raise OutputError(f"unknown task {task!r}; choose one of {', '.join(map(repr, readers))} or a callable")
    return readers[task](scores.float(), target, positions)


def explained_class(readout: Readout, explain: str | int) -> Tensor:
    """Choose the explained class of each sample.

    Args:
        readout: The batch.
        explain: ``"target"`` (the label where there is one, else the prediction), ``"prediction"``, or a class.

    Returns:
        Class index, shape ``(n,)``, int64.

    Raises:
        OutputError: The class does not exist.
    """
    n, k = readout.logits.shape
    if isinstance(explain, int):
        if not 0 <= explain < k:
            raise OutputError(f"explain={explain}, but the model has classes 0 to {k - 1}")
        return torch.full((n,), explain, device=readout.logits.device)
    if k == 1:
        return torch.zeros(n, dtype=torch.int64, device=readout.logits.device)
    if explain == "prediction":
        return readout.predictions
    return torch.where(readout.targets == UNLABELLED, readout.predictions, readout.targets)


def _custom(score: Any, n: int) -> Readout:
    if not torch.is_tensor(score) or score.shape != (n,):
        given = tuple(score.shape) if torch.is_tensor(score) else type(score).__name__
        raise OutputError(f"the task function returned {given}; expected one score for each of {n} samples, ({n},)")
    values = score.detach().float()
    return Readout(score.float()[:, None], torch.full_like(values, torch.nan), values)


def _multiclass(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise _unlike("multiclass", scores, target, "output (n, k) with k >= 2")
    if target is not None and target.shape == scores.shape:
        target = target.argmax(1)
    return Readout(scores, _class_labels(target, scores), scores.argmax(1))


def _binary(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() == 2 and scores.shape[1] == 2:
        return _multiclass(scores, target, positions)
    if scores.numel() != len(scores):
        raise _unlike("binary", scores, target, "output (n,) or (n, 1)")
    half = scores.reshape(-1) / 2
    logits = torch.stack((-half, half), dim=1)
    return Readout(logits, _class_labels(target, logits), (half > 0).long())


def _multilabel(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() != 2 or target is None or target.shape != scores.shape or not _all_in(target, (0, 1)):
        raise _unlike("multilabel", scores, target, "output and 0/1 target (n, k)")
    count = target.sum(1).long()
    wanted = positions.to(count.device) % count.clamp(min=1)
    rank = target.long().cumsum(1) - 1
    chosen = ((rank == wanted[:, None]) & (target > 0)).float().argmax(1)
    return Readout(scores, chosen.where(count > 0, UNLABELLED), scores.argmax(1))


def _regression(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.numel() != len(scores):
        raise _unlike("regression", scores, target, "output (n,) or (n, 1)")
    logits = scores.reshape(-1, 1)
    values = logits.detach()[:, 0]
    if target is None:
        return Readout(logits, torch.full_like(values, torch.nan), values)
    if target.numel() != len(scores):
        raise _unlike("regression", scores, target, "target (n,) or (n, 1)")
    return Readout(logits, target.reshape(-1).float().to(values.device), values)


def _segmentation(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() < 3:
        raise _unlike("segmentation", scores, target, "output (n, k, *space)")
    if scores.shape[1] == 1:
        scores = torch.cat((-scores / 2, scores / 2), dim=1)
    classes = scores.shape[1]
    predictions = _foreground(scores.argmax(1), classes)
    if target is None:
        return Readout(scores.flatten(2).mean(2), torch.full_like(predictions, UNLABELLED), predictions)
    mask = target[:, 0] if target.dim() == scores.dim() and target.shape[1] == 1 else target
    if mask.shape != scores.shape[:1] + scores.shape[2:]:
        raise _unlike("segmentation", scores, target, "mask (n, *space) of the output's size")
    return Readout(scores.flatten(2).mean(2), _foreground(mask.long().to(scores.device), classes), predictions)


def _foreground(mask: Tensor, classes: int) -> Tensor:
    """The most frequent class but background (0) of each mask; background if there is nothing else."""
    counts = torch.stack([(mask == c).flatten(1).sum(1) for c in range(classes)], dim=1)
    counts[:, 0] = 0
    return counts.argmax(1)


def _class_labels(target: Tensor | None, logits: Tensor) -> Tensor:
    n, k = logits.shape
    if target is None:
        return torch.full((n,), UNLABELLED, device=logits.device)
    labels = _squeezed(target).to(logits.device)
    if labels.shape != (n,) or not _is_integral(labels):
        raise OutputError(
            f"target has shape {tuple(target.shape)} ({target.dtype}); expected one class index for each of {n} samples"
        )
    labels = labels.long()
    if int(labels.max()) >= k:
        raise OutputError(f"label {int(labels.max())} found, but the model tells {k} classes apart (0 to {k - 1})")
    return labels.clamp(min=UNLABELLED)


def _squeezed(target: Tensor) -> Tensor:
    return target[:, 0] if target.dim() == 2 and target.shape[1] == 1 else target


def _is_integral(values: Tensor) -> bool:
    return not values.is_floating_point() or bool((values == values.round()).all())


def _all_in(values: Tensor, allowed: tuple[int, ...]) -> bool:
    return bool(sum((values == value) for value in allowed).all())  # type: ignore[union-attr]


def _unlike(task: str, scores: Tensor, target: Tensor | None, right: str) -> OutputError:
    given = "no target" if target is None else f"target {tuple(target.shape)} ({target.dtype})"
    return OutputError(f'task "{task}" needs {right}; got output {tuple(scores.shape)} and {given}')
