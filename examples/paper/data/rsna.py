"""RSNA pneumonia: DICOM files in ``stage_2_train_images``, and a CSV file with one line a box."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import FileError

from ..formats.dicom import read_dicom, read_header
from .base import PaperData
from .files import read_table
from .square import boxes_to_mask, mask_to_square, to_square

LABELS, IMAGES = "stage_2_train_labels.csv", "stage_2_train_images"
BOX = ["x", "y", "width", "height"]
TAGS = {"sex": "PatientSex", "age": "PatientAge", "view": "ViewPosition", "institution": "InstitutionName"}


class Pneumonia(PaperData):
    """Chest X-rays without (0) and with (1) opacities that suggest pneumonia; metadata come from the DICOM header."""

    metadata_columns: ClassVar[tuple[str, ...]] = tuple(TAGS)

    def samples(self) -> pd.DataFrame:
        """One row a patient, whose boxes are gathered."""
        lines = read_table(self.root / LABELS, "the labels of RSNA", "patientId", "Target", *BOX)
        rows = []
        for patient, own in lines.groupby("patientId", sort=True):
            path = self.root / IMAGES / f"{patient}.dcm"
            boxes = own.loc[own["Target"] == 1, BOX].dropna().to_numpy(np.float64)
            rows.append({"id": patient, "files": (path,), "target": int(own["Target"].max()), "patient": patient}
                        | {"boxes": boxes, "located": True} | _told(path))  # fmt: skip
        return pd.DataFrame(rows)

    def check(self, path: Path) -> Any:
        """Header and length."""
        return read_header(path)

    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """``(1, size, size)`` in [0, 1]."""
        return to_square(read_dicom(row["files"][0]), self.size, "pad")

    def region(self, row: pd.Series) -> NDArray[np.bool_]:
        """The patient's boxes."""
        header = read_header(row["files"][0])
        return mask_to_square(boxes_to_mask(row["boxes"], (header.Rows, header.Columns)), self.size, "pad")


def _told(path: Path) -> dict[str, Any]:
    """What the header tells of the patient; nothing where it cannot be read, which ``check`` will say."""
    try:
        header = read_header(path)
    except FileError:
        return dict.fromkeys(TAGS)
    told = {name: header.get(tag) for name, tag in TAGS.items()}
    return {name: str(value) if value else None for name, value in told.items()} | {"age": years(told["age"])}


def years(age: Any) -> float:
    """Read a DICOM age string (PS3.5, 6.2, AS), or a bare number as RSNA has it; NaN where there is none.

    >>> years("051Y"), years("18M"), years("58")
    (51.0, 1.5, 58.0)
    """
    text = str(age or "").strip().upper()
    unit = {"D": 365.25, "W": 52.18, "M": 12.0}.get(text[-1:], 1.0)
    digits = text.rstrip("DWMY")
    return int(digits) / unit if digits.isdigit() else float("nan")
