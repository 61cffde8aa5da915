"""Exchange: give inputs something of random other samples' inputs, and see where the evidence goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.passes import gradients_allowed
from lightning_ifa.features.sampling import Indices, reference_loader
from lightning_ifa.features.targets import UNLABELLED, Readout, read_output

DONORS = 32  # images held in memory, from which donors are drawn

Changes = Callable[[Tensor, Tensor, Tensor], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Transplants:
    """Logits before and after a part of each input was replaced by that of another sample, the donor.

    Attributes:
        labels: Of each recipient: its class, ``(n,)`` int64; its labels, ``(n, k)`` of 0 and 1, for multilabel; its
            target, ``(n,)`` float32, for regression.
        donor_labels: The same of its donor.
        logits: ``(n, k)`` of the recipients as they are.
        donor_logits: ``(n, k)`` of the donors as they are: what a transplant of the whole image would give.
        moved: What was transplanted, to the logits after it, ``(n, k)``.
        donors: ``(n,)`` data-set index of each donor, where it is known.
    """

    labels: NDArray[Any]
    donor_labels: NDArray[Any]
    logits: NDArray[np.float32]
    donor_logits: NDArray[np.float32]
    moved: Mapping[str, NDArray[np.float32]]
    donors: Indices | None = None


def exchanged(
    extraction: Extraction,
    loader: DataLoader[Any],
    drawn: Indices,
    task: str,
    changes: Changes,
    rng: np.random.Generator,
) -> Transplants | None:
    """Run a model on samples that got something of random others; nothing is disturbed.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        drawn: ``(n,)`` data-set indices.
        task: As the table's.
        changes: Takes a group of inputs, the positions of their donors in it and their data-set indices; gives
            each change's name and the changed inputs.
        rng: Draws the donors.

    Returns:
        None if there are fewer than two labelled pairs.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    with undisturbed(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for x, y, rows in _groups(extraction, loader, drawn):
            parts.append(_group(extraction, x, y, rows, task, changes, rng))
    if not parts:
        return None
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = _labelled(joined["labels"]) & _labelled(joined["donor_labels"])
    if known.sum() < 2:
        return None
    columns = {name: values[known] for name, values in joined.items()}
    labels, donor_labels, logits, donor_logits, donors = (columns.pop(name) for name in _PLAIN)
    return Transplants(labels, donor_labels, logits, donor_logits, columns, donors)


_PLAIN = ("labels", "donor_labels", "logits", "donor_logits", "donors")


def _labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    if labels.dtype.kind == "f":
        return np.asarray(~np.isnan(labels))
    return np.ones(len(labels), dtype=bool) if labels.ndim > 1 else np.asarray(labels != UNLABELLED)


def _group(
    extraction: Extraction,
    x: Tensor,
    y: Any,
    rows: Tensor,
    task: str,
    changes: Changes,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    def read(inputs: Tensor) -> Readout:
        with extraction.forward_context(), gradients_allowed():
            return read_output(extraction.model(inputs), y, task, rows)

    donors = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    before = read(x)
    labels = y.long() if task == "multilabel" else before.targets
    given = rows[donors.to(rows.device)]
    plain = (labels, labels[donors], before.logits, before.logits[donors], given)
    found = dict(zip(_PLAIN, plain, strict=True))
    found |= {name: read(changed).logits for name, changed in changes(x, donors, rows)}
    return {name: values.numpy(force=True) for name, values in found.items()}


def _groups(extraction: Extraction, loader: DataLoader[Any], indices: Indices) -> Iterator[tuple[Tensor, Any, Tensor]]:
    """Samples in groups of ``DONORS``, whatever the user's batch size, so that it does not choose the donors."""
    held: list[tuple[Tensor, Any, Tensor]] = []
    for rows, _, x, y in extraction.batches(reference_loader(loader, indices, extraction.seed)):
        held.append((x, y, torch.tensor(rows)))
        while sum(len(part[2]) for part in held) >= DONORS:
            x, y, numbers = _joined(held)
            yield x[:DONORS], y[:DONORS], numbers[:DONORS]
            held = [(x[DONORS:], y[DONORS:], numbers[DONORS:])]
    if sum(len(part[2]) for part in held) > 1:
        yield _joined(held)


def _joined(held: list[tuple[Tensor, Any, Tensor]]) -> tuple[Tensor, Any, Tensor]:
    xs, ys, rows = zip(*held, strict=True)
    return torch.cat(xs), torch.cat(ys), torch.cat(rows)
