"""Short names for the arrays that statistics work on, and the scaling of their rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def scale_rows_to_unit(values: Array) -> NDArray[np.float32]:
    """Divide each row of ``(n, c)`` by its Euclidean length; a row of zeros stays 0. Returns float32."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), dtype=np.float32)


def standardise_columns(values: Floats) -> Floats:
    """Centre each column of ``(n, c)`` and scale it to unit length; a column that does not vary becomes 0."""
    centred = values - values.mean(0)
    norm = np.sqrt((centred**2).sum(0))
    return np.asarray(centred / np.where(norm > 0, norm, 1.0))


def centre_rows(values: Array) -> Floats:
    """Subtract from each row of ``(n, k)`` its mean; float64."""
    values = values.astype(np.float64)
    return np.asarray(values - values.mean(1, keepdims=True))
