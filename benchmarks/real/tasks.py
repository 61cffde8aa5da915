"""The tasks: real sets, hard digits, each with the split and the labels that it is trained on.

``purpose`` says what a task is for. Limits are chosen on ``"choose"`` only, and figures are reported on ``"report"``;
``"untouched"`` is looked at once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.planted.data import letters, scenes
from benchmarks.real.data import RealSet, read_set

SAME_PICTURE = 0.97
"""Correlation of two pictures of 16 x 16 pixels from which on they go to the same side of a split."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: Told apart by it.
        source: Name of the real set, or empty where the images are made.
        purpose: ``"choose"``, ``"report"`` or ``"untouched"``.
        select: From a set to rows, labels and groups (patients, lesions; None where unknown).
        size: Edge lengths of the images.
        n_train: Most training samples.
        n_val: Most validation samples.
        epochs: Over the training set.
    """

    name: str
    source: str
    purpose: str
    select: Callable[[RealSet], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    size: tuple[int, ...] = (64, 64)
    n_train: int = 1500
    n_val: int = 700
    epochs: int = 6


@dataclass(frozen=True)
class Part:
    """One split: images ``(n, c, *size)`` in [0, 1], labels ``(n,)``, the index's rows."""

    images: Tensor
    labels: Tensor
    index: pd.DataFrame


def _by_label(data: RealSet) -> tuple[np.ndarray, np.ndarray, None]:
    return np.arange(len(data.index)), data.index["label"].to_numpy(int), None


def _ultrasound(data: RealSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups are pictures that are nearly one: the published set holds scans twice."""
    small = interpolate(torch.as_tensor(data.images).float()[:, None], size=(16, 16), mode="area").flatten(1).numpy()
    groups = connected_components(csr_array(np.corrcoef(small) > SAME_PICTURE))[1]
    return np.arange(len(data.index)), data.index["label"].to_numpy(int), groups


def _nodules(data: RealSet) -> tuple[np.ndarray, np.ndarray, None]:
    rows = np.flatnonzero(data.index["file"].str.extract(r"(\d+)")[0].astype(int) < 1_000_000)  # no rotated copies
    return rows, data.index["label"].to_numpy(int)[rows], None


def _xray(data: RealSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.arange(len(data.index)), data.index["label"].to_numpy(int), data.index["group"].to_numpy()


def _digits(wanted: dict[int, int], share: float) -> Callable[[RealSet], tuple[np.ndarray, np.ndarray, None]]:
    """Digits to classes; class 1 makes up the share."""

    def select(data: RealSet) -> tuple[np.ndarray, np.ndarray, None]:
        digits = data.index["label"].to_numpy(int)
        labels = np.array([wanted.get(digit, -1) for digit in digits])
        rng = np.random.default_rng(0)
        positives = rng.permutation(np.flatnonzero(labels == 1))
        others = rng.permutation(np.flatnonzero(labels == 0))[:12000]
        positives = positives[: int(len(others) * share / (1 - share))]
        rows = np.sort(np.concatenate([positives, others]))
        return rows, labels[rows], None

    return select


def _skin(diagnoses: tuple[str, ...], histology: bool, balanced: bool = True) -> Callable[[RealSet], tuple]:
    def select(data: RealSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index = data.index
        keep = index["dx"].isin(diagnoses)
        if histology:
            keep &= index["dx_type"] == "histo"
        rows = np.flatnonzero(keep)
        labels = np.array([diagnoses.index(d) for d in index["dx"].to_numpy()[rows]])
        if balanced:
            rng, least = np.random.default_rng(0), np.bincount(labels).min()
            chosen = [rng.permutation(np.flatnonzero(labels == k))[: int(1.3 * least)] for k in range(len(diagnoses))]
            kept = np.sort(np.concatenate(chosen))
            rows, labels = rows[kept], labels[kept]
        return rows, labels, index["group"].to_numpy()[rows]

    return select


def _melanoma(data: RealSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.flatnonzero(data.index["dx_type"] == "histo")
    return rows, (data.index["dx"].to_numpy()[rows] == "mel").astype(int), data.index["group"].to_numpy()[rows]


TASKS = {
    task.name: task
    for task in (
        Task("ultrasound", "busi", "choose", _ultrasound, epochs=30),
        Task("nodules", "luna16_2d", "choose", _nodules, (50, 50)),
        Task("digits-8", "mnist", "choose", _digits({8: 1, 3: 0, 5: 0, 9: 0}, 0.10), (28, 28)),
        Task("digits-few", "mnist", "choose", _by_label, (28, 28), n_train=150, epochs=60),
        Task("skin-3", "ham10000", "choose", _skin(("nv", "mel", "bkl"), False), (48, 64)),
        Task("digits", "mnist", "report", _by_label, (28, 28)),
        Task("xray", "chestxray_pneumonia", "report", _xray),
        Task("skin-histology", "ham10000", "report", _skin(("nv", "mel", "bkl"), True), (48, 64)),
        Task("digits-4", "mnist", "report", _digits({4: 1, 9: 0, 7: 0}, 0.25), (28, 28)),
        Task("letters", "", "report", _by_label, (32, 32)),
        Task("hippocampus", "hippocampus_mri_3d", "untouched", _by_label, (24, 32, 24), epochs=18),
        Task("melanoma", "ham10000", "untouched", _melanoma, (48, 64)),
        Task("skin-7", "ham10000", "untouched",
             _skin(("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"), False, balanced=False), (48, 64)),
        Task("digits-2", "mnist", "untouched", _digits({2: 1, 3: 0, 7: 0, 1: 0}, 0.02), (28, 28)),
        Task("scenes", "", "untouched", _by_label, (32, 32)),
    )
}  # fmt: skip

MADE = {"letters": letters, "scenes": scenes}


def load_task(task: Task, root: Path, seed: int) -> dict[str, Part]:
    """Draw disjoint training, validation and test splits; no group (patient, lesion) is on two sides."""
    if task.source:
        data = read_set(root, task.source)
        rows, labels, groups = task.select(data)
        index = data.index.iloc[rows].reset_index(drop=True)
    else:
        images, targets = MADE[task.name]()
        rows, labels, groups = np.arange(len(images)), targets.numpy(), None
        index = pd.DataFrame({"label": labels})
    rng = np.random.default_rng(1000 + seed)
    names = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
    turn = rng.permutation(names.max() + 1)[names]  # random order of the groups
    order = np.argsort(turn, kind="stable")
    share = task.n_val / (2 * task.n_val + task.n_train)
    n_val = min(task.n_val, int(share * len(order)))
    cuts = {"validation": order[:n_val], "test": order[n_val : 2 * n_val], "train": order[2 * n_val :][: task.n_train]}
    held = set(names[cuts["validation"]]) | set(names[cuts["test"]])
    cuts["train"] = np.array([row for row in cuts["train"] if names[row] not in held])
    cuts["test"] = np.array([row for row in cuts["test"] if names[row] not in set(names[cuts["validation"]])])
    return {split: _part(task, data.images if task.source else images, rows, labels, index, cut)
            for split, cut in cuts.items()}  # fmt: skip


def _part(
    task: Task, images: object, rows: np.ndarray, labels: np.ndarray, index: pd.DataFrame, cut: np.ndarray
) -> Part:
    if isinstance(images, Tensor):
        x = images[torch.as_tensor(rows[cut])].float()
    else:
        chosen = np.asarray(images)[rows[cut]]
        x = torch.as_tensor(chosen).float() / 255
        colour = x.dim() == len(task.size) + 2
        x = x.movedim(-1, 1) if colour else x[:, None]
    if tuple(x.shape[2:]) != task.size:
        mode = "trilinear" if len(task.size) == 3 else "bilinear"
        x = interpolate(x, size=task.size, mode=mode, antialias=mode == "bilinear")
    return Part(x, torch.as_tensor(labels[cut]).long(), index.iloc[cut].reset_index(drop=True))
