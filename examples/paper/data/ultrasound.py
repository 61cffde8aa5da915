"""Breast and thyroid ultrasound: PNG files in one folder a class (``benign``, ``malignant``, ...), masks beside."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd

from lightning_ifa.errors import DataError

from .files import require
from .photographs import Photographs, one_a_sample, photographs_below
from .square import Fit


class Ultrasound(Photographs):
    """Gray images, as in the Breast Ultrasound Images data set; classes are the folders in the order of their names."""

    mode: ClassVar[str] = "L"
    fit: ClassVar[Fit] = "pad"

    def samples(self) -> pd.DataFrame:
        """One row an image."""
        names = self.class_names
        if len(names) < 2:
            raise DataError(f"{self.root} has {len(names)} folders; expected one a class")
        paths = photographs_below(self.root)
        return one_a_sample(paths, [names.index(path.relative_to(self.root).parts[0]) for path in paths], self.root)

    @property
    def class_names(self) -> list[str]:
        """The folders' names."""
        return sorted(p.name for p in require(self.root, "a folder a class").iterdir() if p.is_dir())
