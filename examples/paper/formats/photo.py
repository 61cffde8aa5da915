"""Photographs and drawings: JPEG and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_ifa.errors import FileError

SUFFIXES = (".jpg", ".jpeg", ".png")
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL = 4096  # some cameras write padding after the end of the image


def check_photo(path: Path) -> None:
    """See whether header and end of file are there, without decoding.

    Raises:
        FileError: It is missing, no JPEG or PNG, or ends early.
    """
    with _opened(path) as image:
        kind = str(image.format)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        if kind in ENDS and ENDS[kind] not in file.read():
            raise FileError(f"{path} ends before its {kind} image does")


def read_photo(path: Path, mode: str = "RGB") -> NDArray[np.float32]:
    """Read an image upright, as its camera was held.

    Args:
        path: A JPEG or PNG file.
        mode: ``"RGB"`` or ``"L"``.

    Returns:
        ``(channels, height, width)`` in [0, 1].

    Raises:
        FileError: It cannot be decoded.
    """
    with _opened(path) as image:
        try:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode), dtype=np.float32) / 255
        except (OSError, SyntaxError) as error:
            raise FileError(f"{path} cannot be decoded: {error}") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def mask_files(path: Path) -> list[Path]:
    """Masks beside an image, ``NAME_mask.png``, ``NAME_mask_1.png``, ... or ``NAME_segmentation.png``."""
    names = [path.with_name(f"{path.stem}_{word}.png") for word in ("mask", "segmentation")]
    more = (path.with_name(f"{path.stem}_mask_{number}.png") for number in range(1, 10))
    return [name for name in (*names, *more) if name.is_file()]


def is_mask(path: Path) -> bool:
    """Whether a file is another image's mask, by its name."""
    stem = path.stem.lower()
    return stem.endswith(("_mask", "_segmentation")) or stem[:-1].endswith("_mask_")


def read_masks(path: Path) -> NDArray[np.float32] | None:
    """Union of the masks beside an image, ``(height, width)`` of 0 and 1; None where there are none."""
    found = [read_photo(file, "L")[0] > 0.5 for file in mask_files(path)]
    return np.logical_or.reduce(found).astype(np.float32) if found else None


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=list(ENDS))
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise FileError(f"{path} is no JPEG or PNG image: {error}") from error
