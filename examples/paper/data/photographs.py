"""What the rows of photographs share: one JPEG or PNG file a sample, with masks beside it where somebody drew them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError

from ..formats.photo import SUFFIXES, check_photo, is_mask, mask_files, read_masks, read_photo
from .base import PaperData
from .square import Fit, mask_to_square, to_square


class Photographs(PaperData):
    """Samples whose image is ``files[0]``."""

    mode: ClassVar[str] = "RGB"
    fit: ClassVar[Fit] = "crop"

    def check(self, path: Path) -> None:
        """Header and end of the file."""
        check_photo(path)

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(channels, size, size)`` in [0, 1]."""
        return to_square(read_photo(row["files"][0], self.mode), self.size, self.fit)

    def region(self, row: pd.Series) -> NDArray[np.bool_] | None:
        """Union of the masks beside the image."""
        mask = read_masks(row["files"][0])
        return None if mask is None else mask_to_square(mask, self.size, self.fit)


def photographs_below(folder: Path) -> list[Path]:
    """Images of a folder and of those in it, in the order of their names; masks left out.

    Raises:
        DataError: There are none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not is_mask(p))
    if not found:
        raise DataError(f"there are no {', '.join(SUFFIXES)} files below {folder}")
    return found


def one_a_sample(paths: list[Path], targets: list[int], root: Path) -> pd.DataFrame:
    """Frame of samples with one image each, and a patient for each."""
    names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    return pd.DataFrame(
        {
            "id": names,
            "files": [(path,) for path in paths],
            "target": targets,
            "patient": names,
            "located": [bool(mask_files(path)) for path in paths],
        }
    )
