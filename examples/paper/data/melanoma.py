"""SIIM-ISIC melanoma: JPEG photographs in ``train`` (or ``jpeg/train``), and ``train.csv``."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd

from ..formats.photo import mask_files
from .files import read_table
from .photographs import Photographs

COLUMNS = {"sex": "sex", "age_approx": "age", "anatom_site_general_challenge": "site"}


class Melanoma(Photographs):
    """Photographs of skin, benign (0) or malignant (1); several of a patient stay in one split."""

    metadata_columns: ClassVar[tuple[str, ...]] = tuple(COLUMNS.values())

    def samples(self) -> pd.DataFrame:
        """One row a line of the CSV file."""
        table = read_table(self.root / "train.csv", "the CSV file of SIIM-ISIC", "image_name", "patient_id", "target")
        folder = next((f for f in (self.root / "jpeg" / "train", self.root / "train") if f.is_dir()), self.root)
        paths = [folder / f"{name}.jpg" for name in table["image_name"]]
        return table.rename(columns=COLUMNS).assign(
            id=table["image_name"],
            files=[(path,) for path in paths],
            target=table["target"].astype("int64"),
            patient=table["patient_id"],
            located=[bool(mask_files(path)) for path in paths],
        )
