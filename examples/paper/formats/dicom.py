"""DICOM images: stored values to intensities, and what the header tells of the patient."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from lightning_ifa.errors import FileError

GRAY = ("MONOCHROME1", "MONOCHROME2")
ELEMENT_HEADER = 8  # bytes of tag and length before the pixels, at least


def read_header(path: Path) -> pydicom.FileDataset:
    """Read everything but the pixels; also sees whether the file ends within them.

    Raises:
        FileError: It is missing, no DICOM file, has no gray pixels, or holds fewer of them than its header says.
    """
    with _opened(path) as file:
        header = _parsed(path, file, stop_before_pixels=True)
        left = path.stat().st_size - file.tell() - ELEMENT_HEADER
    if header.get("PhotometricInterpretation") not in GRAY or int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise FileError(f"{path} is no single gray image: {header.get('PhotometricInterpretation', 'no pixels')}")
    needed = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    if left < (1 if header.file_meta.TransferSyntaxUID.is_compressed else needed):
        raise FileError(f"{path} ends within its pixels: {max(left, 0)} bytes of {needed}")
    return header


def read_dicom(path: Path) -> NDArray[np.float32]:
    """Read one gray image, bright where the detector's signal is high.

    Stored values go through the rescale slope and intercept (PS3.3, C.7.6.3 and C.11.1), MONOCHROME1 is inverted, and
    the 1st to 99th percentile becomes [0, 1], since X-ray detectors share no unit.

    Returns:
        ``(1, rows, columns)`` in [0, 1].

    Raises:
        FileError: It cannot be decoded.
    """
    values, inverted = read_values(path)
    values = -values if inverted else values
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)[None].astype(np.float32)


def read_values(path: Path) -> tuple[NDArray[np.float32], bool]:
    """Rescaled values ``(rows, columns)`` in the modality's unit, and whether low values are to be shown bright."""
    with _opened(path) as file:
        data = _parsed(path, file, stop_before_pixels=False)
    try:
        stored = data.pixel_array.astype(np.float32)
    except (AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise FileError(f"{path} cannot be decoded: {error}") from error
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return stored * slope + intercept, data.PhotometricInterpretation == "MONOCHROME1"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileError(f"{path} is missing or cannot be opened: {error}") from error


def _parsed(path: Path, file: BinaryIO, *, stop_before_pixels: bool) -> pydicom.FileDataset:
    try:
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    except (OSError, InvalidDicomError, EOFError, ValueError) as error:
        raise FileError(f"{path} is no readable DICOM file: {error}") from error
