"""Real images for the rows, from the folder that the benchmark on real sets reads as well: one ``data.npz`` a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from benchmarks.real.data import read_masks, read_set
from benchmarks.real.tasks import group_alike

from .base import PaperData

SKIN = ("nv", "mel", "bkl")
SKIN_COLUMNS = {"dx_type": "confirmed_by", "age": "age", "sex": "sex", "localization": "site"}
ROTATED = 1_000_000
"""File number from which on a crop is a rotated copy of another one."""

STACKS, SLICES, APART = 3, 5, 3
"""Stacks of slices taken from a volume, one along each axis; slices of each, and voxels between them."""


class RealImages(PaperData):
    """One set of the folder, images in [0, 1].

    Args:
        root: Folder of the sets.
        size: Edge lengths of the images; None leaves them as they are stored.
        imagenet: Three channels in the range that the ImageNet weights were trained on.
        most: Training and validation samples at most; of more, a fixed random part.
        more: As for every row.
    """

    source: ClassVar[str]

    def __init__(self, root: str, size: tuple[int, ...] | None = None, imagenet: bool = False,
                 most: tuple[int, int] | None = None, **more: Any) -> None:  # fmt: skip
        super().__init__(root, 0, **more)
        self.edges, self.imagenet, self.most = size, imagenet, most

    def setup(self, stage: str) -> None:
        """List, split, and leave out what is too many."""
        super().setup(stage)
        for part, most in zip((self.train, self.validation), self.most or (len(self.train),) * 2, strict=True):
            rows = np.random.default_rng(self.seed).permutation(len(part))[:most]
            part.take(np.sort(rows))

    def samples(self) -> pd.DataFrame:
        """One row an image, in the set's order."""
        found = read_set(Path(self.root), self.source)
        self.pixels = found.images
        number = np.arange(len(found.images))
        frame = found.index.drop(columns=["split", "label"]).assign(
            id=[f"{self.source}-{i}" for i in number], files=[()] * len(number), number=number,
            target=found.index["label"].astype("int64"), patient=number,
        )  # fmt: skip
        return self.choose(frame, found.index)

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Choose samples, and say what is known of them; ``index`` is the set's own."""
        return frame

    def check(self, path: Path) -> None:
        """Nothing to see: a set is one file."""

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(channels, *size)``."""
        image = self.pixels[row["number"]].astype(np.float32) / 255
        image = np.moveaxis(image, -1, 0) if image.shape[-1] == 3 else image[None]
        image = self._resized(image)
        return (np.broadcast_to(image, (3, *image.shape[1:])) - 127 / 255) / (128 / 255) if self.imagenet else image

    def region(self, row: pd.Series) -> NDArray[np.bool_] | None:
        """The mask of the finding, if the set has one."""
        return self._resized(self.masks[row["number"]][None].astype(np.float32))[0] >= 0.5

    def _resized(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.edges is None or image.shape[1:] == tuple(self.edges):
            return image
        flat = len(self.edges) == 2
        mode = "bilinear" if flat else "trilinear"
        return interpolate(torch.from_numpy(image)[None], tuple(self.edges), mode=mode, antialias=flat)[0].numpy()


class Digits(RealImages):
    """All of MNIST, 60,000 and 10,000 as published."""

    source = "mnist"

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Everything."""
        return frame.assign(split=np.where(index["split"] == "train", "train", "validation"))


class Xray(RealImages):
    """Chest X-rays of children, normal or pneumonia, split by patient as far as the file name tells."""

    source = "chestxray_pneumonia"

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Everything."""
        return frame.drop(columns="group").assign(patient=index["group"])


class BreastUltrasound(RealImages):
    """Ultrasound of the breast: benign, malignant, normal; scans that are published twice stay on one side."""

    source = "busi"

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Everything."""
        return frame.assign(patient=group_alike(self.pixels))


class NoduleCrops(RealImages):
    """Crops of chest CT around LUNA16's candidates, nodule or none; rotated copies are left out."""

    source = "luna16_2d"

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """No rotated copies."""
        return frame[index["file"].str.extract(r"(\d+)")[0].astype(int) < ROTATED].reset_index(drop=True)


class Skin(RealImages):
    """Dermatoscopy: nevus, melanoma or benign keratosis, about equally many; lesions stay on one side."""

    source = "ham10000"
    metadata_columns: ClassVar[tuple[str, ...]] = tuple(SKIN_COLUMNS.values())

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """At most 1.3 times as many of a diagnosis as of the rarest."""
        self.masks = read_masks(Path(self.root), self.source)
        rng, found = np.random.default_rng(0), index["dx"].to_numpy()
        most = int(1.3 * min((found == name).sum() for name in SKIN))
        rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(found == name))[:most] for name in SKIN]))
        own = frame.drop(columns="group").rename(columns=SKIN_COLUMNS).iloc[rows]
        own = own.assign(target=[SKIN.index(name) for name in found[rows]], patient=index["group"].to_numpy()[rows])
        age = pd.to_numeric(own["age"], errors="coerce")
        return own.assign(located=True, age=age).reset_index(drop=True)


class Hippocampus(RealImages):
    """MRI of the hippocampus: larger than the median or not, a task made from its masks."""

    source = "hippocampus_mri_3d"
    metadata_columns: ClassVar[tuple[str, ...]] = ("raw_p99",)

    def choose(self, frame: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Everything."""
        self.masks = read_masks(Path(self.root), self.source) > 0
        return frame.assign(located=True)


class HippocampusStacks(Hippocampus):
    """The same as three stacks of slices, one along each axis, beside each other as channels."""

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(stacks * slices, *size)``."""
        volume = self.pixels[row["number"]].astype(np.float32) / 255
        return np.concatenate([self._resized(_slices(volume, axis)) for axis in range(STACKS)])

    def region(self, row: pd.Series) -> NDArray[np.bool_]:
        """Union over slices and stacks."""
        mask = self.masks[row["number"]].astype(np.float32)
        planes = [self._resized(_slices(mask, axis).max(0)[None])[0] for axis in range(STACKS)]
        return np.logical_or.reduce([plane >= 0.5 for plane in planes])


def _slices(volume: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    middle = volume.shape[axis] // 2
    chosen = middle + APART * (np.arange(SLICES) - SLICES // 2)
    return np.ascontiguousarray(np.moveaxis(volume, axis, 0)[chosen])
