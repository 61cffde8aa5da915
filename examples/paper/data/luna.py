"""LUNA16: CT scans as ``.mhd`` and ``.raw`` below ``subset0`` ... ``subset9``, and lists of candidates and nodules."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from lightning_ifa.errors import DataError

from ..formats.metaimage import Header, read_header, read_volume
from .base import PaperData
from .files import read_table

HOUNSFIELD = (-1000.0, 400.0)
"""Air to bone; the nodule and its vessels lie between, and what is denser says nothing of them."""

POSITION = ["coordX", "coordY", "coordZ"]
NEAR = 2.0


class Luna(PaperData):
    """Cubes around candidates, no nodule (0) or nodule (1), at one voxel spacing; a scan stays in one split.

    Args:
        root: Folder with the subsets, ``candidates_V2.csv`` (or ``candidates.csv``) and, for the regions,
            ``annotations.csv``.
        size: Sides of the cube in voxels.
        spacing: Of its voxels, in mm.
        negatives: Candidates without nodule that are kept for each with one; there are hundreds.
        more: As for every row.
    """

    metadata_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: str, size: int = 24, spacing: float = 1.5, negatives: float = 1.0, **more: Any) -> None:
        super().__init__(root, size, **more)
        self.spacing, self.negatives = spacing, negatives

    def samples(self) -> pd.DataFrame:
        """One row a candidate that is kept."""
        names = [self.root / name for name in ("candidates_V2.csv", "candidates.csv")]
        table = read_table(next((n for n in names if n.is_file()), names[0]), "the candidates", "seriesuid", "class")
        scans = {path.stem: path for path in sorted(self.root.rglob("*.mhd"))}
        table = self._fewer(table[table["seriesuid"].isin(scans)]) if scans else table.iloc[:0]
        if table.empty:
            raise DataError(f"{self.root}: no .mhd file of any scan that {names[0].name} lists")
        return table.assign(
            id=table["seriesuid"] + "-" + table.index.astype(str),
            files=[(scans[uid],) for uid in table["seriesuid"]],
            target=table["class"].astype("int64"),
            patient=table["seriesuid"],
            radius=self._radii(table),
            located=(self.root / "annotations.csv").is_file(),
        ).reset_index(drop=True)

    def check(self, path: Path) -> Any:
        """Header, and length of the data."""
        return read_header(path)

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(1, size, size, size)`` in [0, 1], axes z, y, x."""
        header = _header(row["files"][0])
        low, high = HOUNSFIELD
        cube = cut_cube(header, row[POSITION].to_numpy(np.float64), self.size, self.spacing)
        return ((np.clip(cube, low, high) - low) / (high - low))[None].astype(np.float32)

    def region(self, row: pd.Series) -> NDArray[np.bool_] | None:
        """A ball of the nodule's diameter in the middle of the cube; None for others, of which no size is known."""
        if row["radius"] < 0:
            return None
        offset = (np.arange(self.size) - (self.size - 1) / 2) * self.spacing
        distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(offset, offset, offset, indexing="ij")))
        return np.asarray(distance <= row["radius"])

    def _fewer(self, table: pd.DataFrame) -> pd.DataFrame:
        positive, negative = (table[table["class"] == k] for k in (1, 0))
        count = min(len(negative), max(1, round(self.negatives * len(positive))))
        return pd.concat([positive, negative.sample(count, random_state=self.seed)]).sort_index()

    def _radii(self, table: pd.DataFrame) -> list[float]:
        """Radius in mm of the annotated nodule at each candidate, a negative number where there is none."""
        path = self.root / "annotations.csv"
        if not path.is_file():
            return [-1.0] * len(table)
        nodules = dict(
            list(read_table(path, "the nodules", "seriesuid", "diameter_mm", *POSITION).groupby("seriesuid"))
        )
        return [_radius(row, nodules.get(row["seriesuid"])) for _, row in table.iterrows()]


def cut_cube(header: Header, world: NDArray[np.float64], size: int, spacing: float) -> NDArray[np.float64]:
    """Cut a cube around a world position, resampled linearly; only its neighbourhood is read.

    Args:
        header: Of the scan.
        world: x, y, z in mm.
        size: Voxels along each side.
        spacing: Of the cube's voxels, in mm.

    Returns:
        ``(size, size, size)`` Hounsfield units as z, y, x; what lies outside of the scan is air.
    """
    step = spacing / header.spacing[::-1]
    first = header.voxel(world)[::-1] - step * (size - 1) / 2
    low = np.maximum(np.floor(first).astype(int) - 1, 0)
    high = np.minimum(np.ceil(first + step * (size - 1)).astype(int) + 2, header.size[::-1])
    if (high - low < 1).any():
        raise DataError(f"{header.data}: the candidate at {world} mm lies outside of the scan")
    part = np.asarray(read_volume(header)[tuple(map(slice, low, high))], dtype=np.float64)
    return affine_transform(part, step, first - low, (size,) * 3, order=1, cval=HOUNSFIELD[0])


def _radius(row: pd.Series, nodules: pd.DataFrame | None) -> float:
    if nodules is None or row["class"] == 0:
        return -1.0
    away = np.linalg.norm((nodules[POSITION] - row[POSITION].astype(float)).to_numpy(np.float64), axis=1)
    near = int(away.argmin())
    radius = float(nodules["diameter_mm"].iloc[near]) / 2
    return radius if away[near] <= NEAR + radius else -1.0


_header = lru_cache(maxsize=1024)(read_header)
