"""Read class scores from a model's output, and choose which score is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.errors import OutputError
from lightning_ifa.model.output_form import IGNORED, all_in, class_mask, is_integral, output_tensor, squeeze_column
from lightning_ifa.model.probabilities import logits_behind

ScoreFunction = Callable[[Any, Any], Tensor]
UNLABELLED = -1


@dataclass(frozen=True)
class Readout:
    """A batch's scores and labels in the one form every task shares.

    Attributes:
        logits: Shape ``(n, k)``, with a graph. Binary: ``(-z / 2, z / 2)``, whose softmax is the sigmoid of the
            model's ``z``. Segmentation: the mean of each class plane.
        targets: Shape ``(n,)``. int64 class, ``-1`` where there is no label; float32 for regression.
        predictions: Shape ``(n,)``, classes or values as ``targets``.
        object_size: Shape ``(n,)``, segmentation only: share of the labelled positions that the target class takes.
        dice: Shape ``(n,)``, segmentation only: overlap of predicted and labelled objects; NaN where there is neither.
        from_probabilities: Whether the model returns probabilities, and the logits were found behind them.
    """

    logits: Tensor
    targets: Tensor
    predictions: Tensor
    object_size: Tensor | None = None
    dice: Tensor | None = None
    from_probabilities: bool = False


def read_output(output: Any, target: Any, task: str | ScoreFunction, positions: Tensor) -> Readout:
    """Bring a batch's output and target into the common form.

    Args:
        output: Output of the model.
        target: Target of the batch, or None.
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
        readout = _read_task(output_tensor(output, target, task), target, task, positions)
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
    logits = None if task == "regression" else logits_behind(scores)
    readout = readers[task]((scores if logits is None else logits).float(), target, positions)
    return replace(readout, from_probabilities=logits is not None)


def explained_class(readout: Readout, explain: str | int) -> Tensor:
    """Choose the explained class of each sample.

    Args:
        readout: Scores and labels of the batch.
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
    if _has_unit_rows(scores):
        raise OutputError(
            f"the model returns {tuple(scores.shape)} with every row of length 1: features that were normalised, not "
            "scores of classes; add the classifier, or score them by forward_fn= or a callable `task`, as by their "
            "similarity to each class's mean"
        )
    if target is not None and target.shape == scores.shape:
        target = target.argmax(1)  # one-hot, or soft as from mixup
    return Readout(scores, _class_labels(target, scores), scores.argmax(1))


def _has_unit_rows(scores: Tensor) -> bool:
    """Whether rows have length 1 without being all of one class, as certain probabilities are."""
    if len(scores) < 2 or scores.shape[1] < 3:
        return False
    found = scores.detach().float()
    rounding = 1e-3 if scores.dtype in (torch.float16, torch.bfloat16) else 1e-5
    is_mixed = (found.abs().amax(1) < 1 - 1e-3).any()
    return bool(((found.norm(dim=1) - 1).abs() < rounding).all() and is_mixed)


def _binary(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() == 2 and scores.shape[1] == 2:
        return _multiclass(scores, target, positions)
    if scores.numel() != len(scores):
        raise _unlike("binary", scores, target, "output (n,) or (n, 1)")
    half = scores.reshape(-1) / 2
    logits = torch.stack((-half, half), dim=1)
    return Readout(logits, _class_labels(target, logits), (half > 0).long())


def _multilabel(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() != 2 or target is None or target.shape != scores.shape or not all_in(target, (0, 1)):
        raise _unlike("multilabel", scores, target, "output and 0/1 target (n, k)")
    count = target.sum(1).long()
    wanted = positions.to(count.device) % count.clamp(min=1)
    rank = target.long().cumsum(1) - 1
    chosen = ((rank == wanted[:, None]) & (target > 0)).float().argmax(1)
    return Readout(scores, chosen.where(count > 0, UNLABELLED), scores.argmax(1))


def _regression(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    """Several outputs are explained together, by their mean."""
    several = scores.dim() == 2 and scores.shape[1] > 1
    if scores.dim() > 2 or (several and target is not None and target.shape != scores.shape):
        raise _unlike("regression", scores, target, "output (n,) or (n, 1), or output and target (n, k)")
    logits = scores.reshape(len(scores), -1).mean(1, keepdim=True) if several else scores.reshape(-1, 1)
    values = logits.detach()[:, 0]
    if target is None:
        return Readout(logits, torch.full_like(values, torch.nan), values)
    if not several and target.numel() != len(scores):
        raise _unlike("regression", scores, target, "target (n,) or (n, 1)")
    truth = target.float().reshape(len(scores), -1).mean(1)
    return Readout(logits, truth.to(values.device), values)


def _segmentation(scores: Tensor, target: Tensor | None, positions: Tensor) -> Readout:
    if scores.dim() < 3:
        raise _unlike("segmentation", scores, target, "output (n, k, *space)")
    if scores.shape[1] == 1:
        scores = torch.cat((-scores / 2, scores / 2), dim=1)
    classes, pooled, planes = scores.shape[1], scores.flatten(2).mean(2), scores.argmax(1)
    if target is None:
        predictions = _foreground(planes, classes)
        return Readout(pooled, torch.full_like(predictions, UNLABELLED), predictions)
    mask = class_mask(scores, target)
    if mask.shape != scores.shape[:1] + scores.shape[2:]:
        raise _unlike("segmentation", scores, target, "mask (n, *space) of the output's size")
    mask = mask.long().to(scores.device)
    judged = (mask >= 0) & ((mask != IGNORED) | (classes > IGNORED))
    found = int(mask[judged].max()) if bool(judged.any()) else 0
    if found >= classes:
        raise OutputError(f"label {found} found in a mask, but the model tells {classes} classes apart")
    targets = _foreground(mask.where(judged, UNLABELLED), classes)
    area = judged.flatten(1).sum(1)
    size = (mask == targets.reshape(-1, *[1] * (mask.dim() - 1))).flatten(1).sum(1) / area
    size = size.where(targets > 0, 0.0).where(area > 0, torch.nan)
    return Readout(
        pooled,
        targets.where(area > 0, UNLABELLED),
        _foreground(planes.where(judged | (area == 0).reshape(-1, *[1] * (mask.dim() - 1)), UNLABELLED), classes),
        size,
        _dice(planes.where(judged, UNLABELLED), mask.where(judged, UNLABELLED), classes),
    )


def _dice(found: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Mean Dice coefficient of each sample's foreground classes, of those that are predicted or labelled."""
    pairs = [((found == c).flatten(1), (truth == c).flatten(1)) for c in range(1, classes)]
    both = torch.stack([(a & b).sum(1) for a, b in pairs], dim=1)
    sizes = torch.stack([a.sum(1) + b.sum(1) for a, b in pairs], dim=1)
    return (2 * both / sizes).nanmean(1)  # 0 / 0 is NaN


def _foreground(mask: Tensor, classes: int) -> Tensor:
    """The most frequent class but background (0) of each mask; background if there is nothing else."""
    counts = torch.stack([(mask == c).flatten(1).sum(1) for c in range(classes)], dim=1)
    counts[:, 0] = 0
    return counts.argmax(1)


def _class_labels(target: Tensor | None, logits: Tensor) -> Tensor:
    n, k = logits.shape
    if target is None:
        return torch.full((n,), UNLABELLED, device=logits.device)
    labels = squeeze_column(target).to(logits.device)
    if labels.shape != (n,) or not is_integral(labels):
        raise OutputError(
            f"target has shape {tuple(target.shape)} ({target.dtype}); expected one class index for each of {n} samples"
        )
    labels = labels.long()
    if k <= IGNORED:
        labels = labels.where(labels != IGNORED, UNLABELLED)
    if int(labels.max()) >= k:
        raise OutputError(f"label {int(labels.max())} found, but the model tells {k} classes apart (0 to {k - 1})")
    return labels.clamp(min=UNLABELLED)


def _unlike(task: str, scores: Tensor, target: Tensor | None, right: str) -> OutputError:
    given = "no target" if target is None else f"target {tuple(target.shape)} ({target.dtype})"
    return OutputError(f'task "{task}" needs {right}; got output {tuple(scores.shape)} and {given}')
