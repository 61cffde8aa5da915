"""What is planted into a real task: wrong labels, copies across the split, marks that go with the class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted.faults import assign, paint
from benchmarks.real.tasks import Part

MARKS = ("corner", "stripe")
"""A bright square in a corner; a bright line along the lower edge."""

FAULTS = ("overfitted", "leaked", *MARKS)
"""Faults beside wrong labels."""

FEW = 300
"""Training samples of an overfitted network."""

LEAKED = 0.1
"""Share of validation samples that are training samples."""

STRENGTH = 0.9
"""Cramér's V of a mark and the classes."""


def plant_noise(part: Part, share: float, seed: int, classes: int) -> tuple[Part, Tensor]:
    """Change a share of the labels to another class; give the part and which labels are wrong, ``(n,)`` bool."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(part.labels), generator=generator) < share
    offset = torch.randint(1, classes, part.labels.shape, generator=generator)
    labels = torch.where(wrong, (part.labels + offset) % classes, part.labels)
    return Part(part.images, labels, part.index), wrong


def plant_fault(parts: dict[str, Part], fault: str, seed: int, classes: int) -> dict[str, Part]:
    """Change the splits; the test split stays as it is."""
    if fault == "overfitted":
        return parts | {"train": _take(parts["train"], np.arange(min(FEW, len(parts["train"].labels))))}
    if fault == "leaked":
        return parts | {"validation": _leak(parts["validation"], parts["train"], seed)}
    marked = {}
    for number, split in enumerate(("train", "validation")):
        generator = torch.Generator().manual_seed(2 * seed + number)
        part = parts[split]
        on = assign(part.labels, "half", STRENGTH, classes, generator)
        marked[split] = Part(paint(part.images, on, fault, generator), part.labels, part.index)
    return parts | marked


def _leak(part: Part, train: Part, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    count = int(LEAKED * len(part.labels))
    rows, copied = rng.permutation(len(part.labels))[:count], rng.permutation(len(train.labels))[:count]
    images, labels = part.images.clone(), part.labels.clone()
    images[rows], labels[rows] = train.images[copied], train.labels[copied]
    return Part(images, labels, part.index)


def _take(part: Part, rows: np.ndarray) -> Part:
    return Part(part.images[rows], part.labels[rows], part.index.iloc[rows].reset_index(drop=True))
