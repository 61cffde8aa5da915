"""NIfTI volumes, as slices from one side to the other."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lightning_ifa.errors import FileError


def check_nifti(path: Path) -> None:
    """See whether the header is readable and the data whole, without decompressing them.

    Raises:
        FileError: It is missing, no NIfTI volume, ends early, or has not three axes.
    """
    image = _opened(path)
    if len(image.shape) != 3:
        raise FileError(f"{path} has shape {image.shape}; expected one volume with three axes")
    needed = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    if not needed <= _length(path) <= 2 * needed:  # far more is said only by the middle of a compressed stream
        raise FileError(f"{path} ends before its {image.shape} voxels do")


def read_nifti(path: Path) -> NDArray[np.float32]:
    """Read a volume as a stack of its stored slices, scaled as the header says.

    Returns:
        ``(slices, rows, columns)``: the thickest axis first, the other two in stored order.

    Raises:
        FileError: The data are damaged.
    """
    image = _opened(path)
    try:
        voxels = np.asarray(image.get_fdata(dtype=np.float32))
    except (OSError, EOFError, ValueError) as error:
        raise FileError(f"{path} cannot be decoded: {error}") from error
    return np.moveaxis(voxels, int(np.argmax(image.header.get_zooms()[:3])), 0)


def write_nifti(path: Path, stack: NDArray[np.float32], spacing: tuple[float, float, float]) -> None:
    """Write ``(slices, rows, columns)``; spacing in the same order, in mm."""
    affine = np.diag([spacing[1], spacing[2], spacing[0], 1.0])
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(stack, 0, 2), affine), path)


def _length(path: Path) -> int:
    """Bytes of content; of a gzipped file as its last four bytes say, which hold anything where it ends early."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(), "little")


def _opened(path: Path) -> nibabel.Nifti1Image:
    if not path.is_file():
        raise FileError(f"{path} is missing")
    try:
        return nibabel.Nifti1Image.from_filename(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError) as error:
        raise FileError(f"{path} is no readable NIfTI volume: {error}") from error
