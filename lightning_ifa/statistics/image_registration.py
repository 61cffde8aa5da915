"""Are two small pictures the same one, cropped, moved or rescaled? Registration by least squares."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]

CROP = 0.9
"""Extent of the crops that pictures are first compared at, as a share of each axis; at nine places."""

STEPS = 6
MOST_CHANGE, MOST_STEP = 0.35, 0.15
"""Zoom (log) and shift (half-extents) that registration stays within, and moves by at most in one step."""

LEAST_OVERLAP = 0.6
_AT_ONCE = 64


def crop_pictures(pictures: Pictures) -> Pictures:
    """Give each picture whole and at nine crops, ``(n, 10, edge * edge)``, each row centred and of unit length.

    Args:
        pictures: ``(n, edge, edge)``.
    """
    slack = 1 - CROP
    places = [(0.0, 0.0, 0.0, 0.0)]
    places += [(np.log(CROP), np.log(CROP), y * slack, x * slack) for y, x in product((-1, 0, 1), repeat=2)]
    found = [_resample(pictures, np.tile(place, (len(pictures), 1)).astype(np.float32))[0] for place in places]
    return scale_to_unit(np.stack(found, axis=1).reshape(len(pictures), len(places), -1))


def scale_to_unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Centre the last axis and scale it to unit length; constant rows become 0."""
    centred = rows - rows.mean(-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(np.where(length > 1e-3, centred / np.maximum(length, 1e-3), 0), dtype=np.float32)


def registered_correlation(fixed: Pictures, moved: Pictures) -> NDArray[np.float64]:
    """Correlate pairs over their overlap after zoom and shift of the second that fit the first best, ``(m,)``.

    Gauss-Newton on the squared difference, with brightness and contrast free (Lucas and Kanade 1981; Baker and Matthews
    2004). The largest correlation on the way counts. Less than 60 % overlap counts as none.

    Args:
        fixed: ``(m, edge, edge)``.
        moved: ``(m, edge, edge)``.
    """
    parts = [_register(fixed[i : i + _AT_ONCE], moved[i : i + _AT_ONCE]) for i in range(0, len(fixed), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _register(fixed: Pictures, moved: Pictures) -> NDArray[np.float64]:
    count = len(fixed)
    place = np.zeros((count, 4), dtype=np.float32)  # log zoom along y and x, shift along y and x
    best = np.full(count, -1.0)
    for step in range(STEPS + 1):
        seen, inside = _resample(moved, place)
        best = np.maximum(best, _correlate(fixed, seen, inside))
        if step < STEPS:
            change = _solve_step(fixed, seen, inside, place)
            place = np.clip(place + np.clip(change, -MOST_STEP, MOST_STEP), -MOST_CHANGE, MOST_CHANGE)
    return best


def _solve_step(fixed: Pictures, seen: Pictures, inside: NDArray[np.bool_], place: Pictures) -> Pictures:
    count, edge = fixed.shape[:2]
    grid = _grid(edge)
    zoom = np.exp(place[:, :2])
    along_y, along_x = np.gradient(seen, axis=1) * (edge / 2), np.gradient(seen, axis=2) * (edge / 2)
    along_y, along_x = along_y / zoom[:, 0, None, None], along_x / zoom[:, 1, None, None]
    moves = [
        along_y * (zoom[:, :1] * grid)[:, :, None], along_x * (zoom[:, 1:] * grid)[:, None, :], along_y, along_x,
        seen, np.ones_like(seen),
    ]  # fmt: skip
    slopes = (np.stack(moves, axis=1) * inside[:, None]).reshape(count, len(moves), -1)
    rest = ((fixed - seen) * inside).reshape(count, -1, 1)
    normal = slopes @ slopes.transpose(0, 2, 1)
    damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) / len(moves) + 1e-9
    normal = normal + damping[:, None, None] * np.eye(len(moves), dtype=np.float32)
    return np.asarray(np.linalg.solve(normal, slopes @ rest)[:, :4, 0], dtype=np.float32)


def _correlate(a: Pictures, b: Pictures, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    count = np.maximum(inside.sum((1, 2)), 1)
    da, db = ((x - ((x * inside).sum((1, 2)) / count)[:, None, None]) * inside for x in (a, b))
    size = np.sqrt((da**2).sum((1, 2)) * (db**2).sum((1, 2)))
    found = (da * db).sum((1, 2)) / np.maximum(size, 1e-6)
    return np.where(count >= LEAST_OVERLAP * a.shape[1] ** 2, found, -1.0)


def _resample(pictures: Pictures, place: Pictures) -> tuple[Pictures, NDArray[np.bool_]]:
    """Look at pictures at another zoom and shift, bilinearly; and which positions lie inside."""
    edge = pictures.shape[1]
    (y, in_y), (x, in_x) = (
        _axis_weights(np.exp(place[:, i : i + 1]) * _grid(edge) + place[:, i + 2 : i + 3], edge) for i in (0, 1)
    )
    return np.asarray(y @ pictures @ x.transpose(0, 2, 1), dtype=np.float32), in_y[:, :, None] & in_x[:, None, :]


def _axis_weights(position: NDArray[np.float32], edge: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Linear interpolation along one axis as a matrix a picture, ``(m, edge, edge)``."""
    pixel = (position + 1) / 2 * edge - 0.5
    inside = (pixel >= -0.5) & (pixel <= edge - 0.5)
    distance = np.abs(pixel.clip(0, edge - 1)[:, :, None] - np.arange(edge))
    return np.maximum(1 - distance, 0).astype(np.float32), inside


def _grid(edge: int) -> NDArray[np.float32]:
    return np.linspace(1 / edge - 1, 1 - 1 / edge, edge, dtype=np.float32)
