"""MRI as in ESMIRA: several stacks of slices a patient (NIfTI or MetaImage), and a CSV file with class and score."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError

from ..formats import metaimage
from ..formats.nifti import check_nifti, read_nifti
from .base import PaperData
from .files import read_table
from .square import mask_to_square, to_square

SUFFIXES = (".nii.gz", ".nii", ".mhd")


class Esmira(PaperData):
    """Stacks beside each other as input channels, for a network of grouped convolutions.

    A patient's files are ``<patient>/<stack>.nii.gz`` (or ``.nii``, ``.mhd``); ``patients.csv`` has the columns
    ``patient``, ``arthritis`` (0 or 1), ``score`` (inflammation) and any others, which are metadata. A stack
    ``<stack>_mask`` beside another one is a region.

    Args:
        root: The folder.
        size: Sides of a slice in pixels.
        stacks: Names of the stacks, in the order of the groups.
        slices: Taken evenly from each stack.
        target: ``"arthritis"`` to classify, ``"score"`` for regression.
        more: As for every row.
    """

    metadata_columns: ClassVar[tuple[str, ...]] = ("site", "sex", "age")

    def __init__(
        self,
        root: str,
        size: int = 48,
        stacks: tuple[str, ...] = ("coronal", "axial"),
        slices: int = 5,
        target: Literal["arthritis", "score"] = "arthritis",
        **more: Any,
    ) -> None:
        super().__init__(root, size, **more)
        self.stacks, self.slices, self.target = tuple(stacks), slices, target

    def samples(self) -> pd.DataFrame:
        """One row a patient."""
        table = read_table(self.root / "patients.csv", "one line a patient", "patient", "arthritis", "score")
        files = [tuple(_stack(self.root / name, stack) for stack in self.stacks) for name in table["patient"]]
        masks = [tuple(path for path in map(_mask, own) if path) for own in files]
        target = table[self.target].astype("int64" if self.target == "arthritis" else "float32")
        return table.drop(columns=["arthritis", "score"]).assign(
            id=table["patient"], files=files, masks=masks, target=target, located=any(masks)
        )

    def check(self, path: Path) -> Any:
        """Header."""
        return metaimage.read_header(path) if path.suffix == ".mhd" else check_nifti(path)

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(stacks * slices, size, size)``, each stack with mean 0 and deviation 1, since MRI has no unit."""
        return np.concatenate([self._standard(path) for path in row["files"]])

    def region(self, row: pd.Series) -> NDArray[np.bool_]:
        """Union of the masks over slices and stacks, ``(size, size)``."""
        planes = [mask_to_square(_read(path).max(0), self.size, "pad") for path in row["masks"]]
        return np.logical_or.reduce([np.zeros((self.size, self.size), dtype=bool), *planes])

    def _standard(self, path: Path) -> NDArray[np.float32]:
        stack = _read(path)
        if len(stack) < self.slices:
            raise DataError(f"{path} has {len(stack)} slices; {self.slices} are asked for")
        chosen = np.linspace(0, len(stack) - 1, self.slices).round().astype(int)
        planes = to_square(stack[chosen], self.size, "pad")
        return (planes - planes.mean()) / max(float(planes.std()), 1e-6)


def _stack(folder: Path, name: str) -> Path:
    """The stack's file, whichever of the formats it has."""
    found = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), folder / f"{name}{SUFFIXES[0]}")


def _mask(path: Path) -> Path | None:
    beside = _stack(path.parent, f"{path.name.partition('.')[0]}_mask")
    return beside if beside.is_file() else None


def _read(path: Path) -> NDArray[np.float32]:
    if path.suffix == ".mhd":
        return np.asarray(metaimage.read_volume(metaimage.read_header(path)), dtype=np.float32)
    return read_nifti(path)
