"""Copies and leakage on real sets: near copies that are planted, and patients that are on both sides as found."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.planted.tables import to_markdown
from benchmarks.real.data import read_set
from benchmarks.real.judge import MOST_ROWS
from benchmarks.real.tasks import TASKS, Part
from benchmarks.real.train import CHECKPOINTS, Net, Training, load_net, load_training
from lightning_ifa.analysis import analyze
from lightning_ifa.report.feature_report import FeatureReport

EACH = 20
"""Copies of each kind."""


def crop(x: Tensor) -> Tensor:
    """Cut 6 % off two edges and resize what is left."""
    high, wide = (round(0.06 * edge) for edge in x.shape[-2:])
    return _resize(x[..., high:, wide:], x.shape[-2:])


def rescale(x: Tensor) -> Tensor:
    """Shrink to 60 % and enlarge again."""
    return _resize(_resize(x, [round(0.6 * edge) for edge in x.shape[-2:]]), x.shape[-2:])


def brighten(x: Tensor) -> Tensor:
    """Raise brightness and lower contrast."""
    return (0.8 * x + 0.15).clamp(0, 1)


def recode(x: Tensor) -> Tensor:
    """Write as JPEG of quality 40 and read again."""
    pixels = (x * 255).round().byte().movedim(0, -1).numpy()
    image, content = Image.fromarray(pixels.squeeze()), io.BytesIO()
    image.save(content, "JPEG", quality=40)
    found = torch.from_numpy(np.array(Image.open(content))).float() / 255
    return found.reshape(pixels.shape).movedim(-1, 0)


def mixed(x: Tensor) -> Tensor:
    """Crop, brighten and write as JPEG."""
    return recode(brighten(crop(x)))


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (crop, rescale, brighten, recode, mixed)
SETS = ("nodules", "skin-3", "ultrasound", "xray", "digits", "melanoma")
SPLITS = {"validation": "val", "train": "train"}


def copies(root: Path, folder: Path) -> str:
    """Write the table of planted copies and a line on the patients, as Markdown."""
    table = pd.DataFrame(row for name in SETS for row in _planted(Training(TASKS[name], 0), root, folder))
    return f"{to_markdown(table)}\n\n{patients(root)}"


def patients(root: Path) -> str:
    """Count the validation samples of the X-rays' own split that are reported to share a patient with training."""
    data = read_set(root, "chestxray_pneumonia")
    rows = {split: np.flatnonzero(data.index["split"] == name) for split, name in SPLITS.items()}
    torch.manual_seed(0)
    net = Net(1, (64, 64), 2, "pool").eval()
    parts = {split: _part(data.images[chosen], data.index.iloc[chosen]) for split, chosen in rows.items()}
    loaders = [DataLoader(TensorDataset(parts[split].images, parts[split].labels), 128) for split in SPLITS]
    metadata = {split: part.index[["group"]].reset_index(drop=True) for split, part in parts.items()}
    told = analyze(net, *loaders, metadata=metadata, max_samples=len(data.index)).findings["outliers"].details
    shared = parts["validation"].index["group"].isin(parts["train"].index["group"]).sum()
    return (
        f"X-rays, split as found: {told['shared_group_rows']:.0f} of {len(rows['validation'])} validation samples "
        f"reported as sharing a patient with training samples; {shared} do."
    )


def _part(images: np.ndarray, index: pd.DataFrame) -> Part:
    small = _resize(torch.tensor(images).float()[:, None] / 255, (64, 64))
    return Part(small, torch.tensor(index["label"].to_numpy(int)), index)


def _planted(training: Training, root: Path, folder: Path) -> Iterator[dict[str, object]]:
    parts, _ = load_training(training, root)
    net, train, part = load_net(training, parts, folder, CHECKPOINTS - 1), parts["train"], parts["validation"]
    rng = np.random.default_rng(0)
    count = EACH * len(KINDS)
    source, target = rng.permutation(len(train.labels[:MOST_ROWS]))[:count], rng.permutation(len(part.labels))[:count]
    images, labels = part.images.clone(), part.labels.clone()
    for number, (a, b) in enumerate(zip(source, target, strict=True)):
        images[b], labels[b] = KINDS[number // EACH](train.images[a]), train.labels[a]
    planted = pd.Series(source, index=target)
    matches = _matches(analyze(net, *(_loader(p) for p in (Part(images, labels, part.index), train))))
    others = int((matches[matches.index.difference(planted.index)] >= 0).sum())
    for number, kind in enumerate(KINDS):
        of_kind = planted.iloc[number * EACH : (number + 1) * EACH]
        found, right = matches[of_kind.index] >= 0, matches[of_kind.index] == of_kind
        yield {
            "set": training.task.name, "purpose": training.task.purpose, "copies": kind.__name__,
            "recall": float(right.mean()), "called a copy of another": int((found & ~right).sum()),
            "others called copies": others, "samples": len(matches),
        }  # fmt: skip


def _matches(report: FeatureReport) -> pd.Series:
    """Give the row of the training sample that each validation row is called a copy of, -1 for none."""
    rows = report.samples
    ids = {name: row for row, name in enumerate(rows.loc[rows["split"] == "train", "sample_id"])}
    named = rows.loc[rows["split"] == "validation", "duplicate_of"]
    return pd.Series([ids.get(name, -1) for name in named], index=report.tables["validation"].indices)


def _loader(part: Part) -> DataLoader[Any]:
    data = TensorDataset(part.images[:MOST_ROWS], part.labels[:MOST_ROWS])
    return DataLoader(data, batch_size=128)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    whole = x if x.dim() == 4 else x[None]
    found = interpolate(whole, size=tuple(size), mode="bilinear", antialias=True)
    return found if x.dim() == 4 else found[0]
