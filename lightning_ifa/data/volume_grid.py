"""Where a volume lies in the world: its grid, and the affine that takes voxel indices to millimetres."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lightning_ifa.data.column_types import LONGEST_TEXT
from lightning_ifa.errors import MetadataError

AFFINE, FILE = "affine", "file"
"""Metadata columns: 12 or 16 numbers as text, row by row; the path of the NIfTI file that an input was read from."""

Affine = NDArray[np.float64]


class VolumeGrid(NamedTuple):
    """The grid of one input volume.

    Attributes:
        shape: Voxels along each axis, in the order of the input's axes.
        affine: From voxel indices in that order to world coordinates, ``(4, 4)``; None if only the file knows it, or
            nobody does.
        file: The file that the volume was read from; empty if it is not known.
    """

    shape: tuple[int, ...]
    affine: Affine | None
    file: str = ""


def tensor_grids(x: Any, count: int) -> list[tuple[Affine | None, str]] | None:
    """Read affine and file of each sample off a tensor that knows them, as MONAI's ``MetaTensor`` does.

    Args:
        x: Inputs with an attribute ``affine``, ``(4, 4)`` for all or ``(n, 4, 4)``, and perhaps with ``meta``, which
            holds ``filename_or_obj``.
        count: Number of samples.

    Returns:
        Affine and file of each, or None where the tensor has no affine.
    """
    given = getattr(x, "affine", None)
    if given is None:
        return None
    affines = np.asarray(given.numpy(force=True) if torch.is_tensor(given) else given, dtype=np.float64)
    affines = np.broadcast_to(affines, (count, 4, 4)) if affines.shape == (4, 4) else affines
    if affines.shape != (count, 4, 4) or not np.isfinite(affines).all():
        return None
    meta = getattr(x, "meta", None)
    names = meta.get("filename_or_obj", "") if isinstance(meta, dict) else ""
    names = [names] * count if isinstance(names, str) else list(names)
    texts = [name if isinstance(name, str) else "" for name in names] if len(names) == count else [""] * count
    return list(zip(affines, texts, strict=True))


def grid_of(shape: Sequence[int], told: tuple[Affine | None, str] | None, row: pd.Series[Any]) -> VolumeGrid:
    """Put together what is known of a volume's place.

    Args:
        shape: Voxels along each axis.
        told: Affine and file by the input itself, or None.
        row: Metadata of the sample, whose columns ``affine`` and ``file`` go before what the input tells.

    Raises:
        MetadataError: The affine is none.
    """
    affine, file = told or (None, "")
    if _is_given(row.get(FILE)):
        file = str(row[FILE])
    if _is_given(row.get(AFFINE)):
        affine = read_affine(str(row[AFFINE]))
    return VolumeGrid(tuple(map(int, shape)), affine, file)


def read_affine(text: str) -> Affine:
    """Read an affine from text: 16 numbers row by row, or 12 without the last row; other signs only part them.

    Raises:
        MetadataError: The text holds another number of numbers, or they are no affine that can be inverted.

    >>> read_affine("2 0 0 -90  0 2 0 -126  0 0 2 -72")[0]
    array([  2.,   0.,   0., -90.])
    """
    numbers = [float(part) for part in re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)]
    if len(numbers) == 12 and len(text) < LONGEST_TEXT:  # a longer one was cut
        numbers += [0, 0, 0, 1]
    affine = np.array(numbers).reshape(4, 4) if len(numbers) == 16 else np.zeros((4, 4))
    if not np.array_equal(affine[3], [0, 0, 0, 1]) or not abs(np.linalg.det(affine)) > 0:
        raise MetadataError(
            f"metadata column {AFFINE!r} holds {text[:80]!r}; expected a text of 12 or 16 numbers, row by row, whose "
            "last row is 0 0 0 1"
        )
    return affine


def _is_given(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
