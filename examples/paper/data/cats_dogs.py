"""Cats & Dogs: one folder with labels in the file names (``cat.17.jpg``), or one folder a class (``Cat``, ``Dog``)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lightning_ifa.errors import DataError

from .photographs import Photographs, one_a_sample, photographs_below

CLASSES = ("cat", "dog")


class CatsDogs(Photographs):
    """Photographs of cats (0) and dogs (1)."""

    def samples(self) -> pd.DataFrame:
        """One row a photograph, below ``train`` if there is such a folder (as Kaggle packs it)."""
        folder = self.root / "train" if (self.root / "train").is_dir() else self.root
        paths = photographs_below(folder)
        return one_a_sample(paths, [label(path) for path in paths], folder)


def label(path: Path) -> int:
    """Read the class from a file's name, or from its folder's.

    Raises:
        DataError: Neither says.

    >>> label(Path("train/dog.17.jpg")), label(Path("PetImages/Cat/17.jpg"))
    (1, 0)
    """
    for name in (path.name, path.parent.name):
        for number, word in enumerate(CLASSES):
            if name.lower().startswith(word):
                return number
    raise DataError(f"neither the name of {path} nor its folder's starts with {' or '.join(CLASSES)}")
