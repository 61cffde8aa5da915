"""Leakage: which validation samples are also in the training split, exactly or nearly?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask, scale_rows_to_unit
from lightning_ifa.statistics.image_registration import Pictures, crop_pictures, registered_correlation, scale_to_unit

DUPLICATE, NEAR = "duplicate", "near-duplicate"

NEAR_RATIO = 0.08
"""A sample may be a copy if its cosine distance to the nearest training sample is below this share of the usual one."""

CROWD, CROWD_RATIO = 3, 0.1
"""Rank of the matching training sample's neighbour that a copy must be closer than, and by which factor."""

MAP_COSINE = 0.9985
"""A sample is a copy only if the cosine of the two maps is above this."""

PROJECTIONS, CANDIDATES = 8, 8

ALIKE = 0.85
"""Correlation of two pictures, at the best of their crops, from which on they are registered to each other."""

PICTURE_GAP, PICTURE_RATIO = 0.007, 0.1
"""Two registered pictures are copies if their correlation lacks less than this of 1, and less than this share of what
the correlation with the most similar training picture usually lacks."""

COLOUR_GAP, COLOUR_FLOOR = 0.35, 0.02
"""Colours of two copies differ by less than this share of the stronger one, or of the set's usual contrast."""

_AT_ONCE = 128  # pictures, so that memory does not grow with the square of the samples

MATCHES = 3
"""Training pictures that a picture is registered to at most."""


NO_COLOURS: Floats = np.empty((0, 0))


class Duplicates(NamedTuple):
    """Per validation sample, shape ``(n,)``.

    Attributes:
        kind: ``"duplicate"``, ``"near-duplicate"`` or ``""``.
        match: Row of the training sample; -1 if there is none.
    """

    kind: NDArray[np.str_]
    match: Ints


class DuplicateInput(NamedTuple):
    """What duplicates are recognised by, of one split.

    Attributes:
        fingerprints: Checksums of the inputs, ``(n,)`` int64; equal inputs have equal ones.
        activations: Pooled activations, ``(n, c)``.
        cams: Maps, ``(n, *space)``.
        thumbnails: Inputs in little, ``(n, edge, edge)``, or None.
        colours: Mean of each channel less the brightness, in units of the set's usual contrast, ``(n, k)``; k is 0
            without colour.
    """

    fingerprints: Ints
    activations: Array
    cams: Array
    thumbnails: Pictures | None = None
    colours: Floats = NO_COLOURS


def find_duplicates(validation: DuplicateInput, train: DuplicateInput, seed: int = 0) -> Duplicates:
    """Find validation samples that are copies of training samples, by input, by picture or by features.

    Exact copies have equal fingerprints. Near ones (cropped, rescaled, brightened, compressed again, noisy) are the
    same small picture after registration; ``find_same_pictures`` looks for them. Near ones also have activations much
    closer than any two training samples usually are, also much closer than the neighbours of the matching training
    sample in its own split, and the same map. Where images are alike by nature, as patches of one sky, a neighbour is
    no copy; the third neighbour decides, so that a training sample that occurs twice still has its copies found.
    Candidates come from a search tree over a few random projections, so the cost grows as n log n.

    Args:
        validation: The split in which copies are looked for.
        train: The split whose samples should not occur in it.
        seed: Seed of the random projections.
    """
    kind = np.full(len(validation.fingerprints), "", dtype=f"<U{len(NEAR)}")
    match = np.full(len(kind), -1, dtype=np.int64)
    x, base = scale_rows_to_unit(validation.activations), scale_rows_to_unit(train.activations)
    distances, found = _nearest(x, base, seed)
    distance, nearest = distances[:, 0], found[:, 0]
    among = _nearest(base, base, seed, leave_out=True)[0] if len(base) > 1 else np.zeros((len(base), 1))
    crowd = among[nearest, min(CROWD, among.shape[1]) - 1]
    limit = np.minimum(NEAR_RATIO * np.median(among[:, 0]), CROWD_RATIO * crowd)
    maps, train_maps = (scale_rows_to_unit(v.cams.reshape(len(v.cams), -1)) for v in (validation, train))
    near = (distance < limit) & ((maps * train_maps[nearest]).sum(1) > MAP_COSINE)
    kind[near], match[near] = NEAR, nearest[near]
    if validation.thumbnails is not None and train.thumbnails is not None:
        pictured = find_same_pictures(validation.thumbnails, train.thumbnails, validation.colours, train.colours)
        seen = pictured >= 0
        kind[seen], match[seen] = NEAR, pictured[seen]
    order = np.argsort(train.fingerprints, kind="stable")
    position = np.searchsorted(train.fingerprints[order], validation.fingerprints).clip(max=len(order) - 1)
    equal = train.fingerprints[order][position] == validation.fingerprints
    kind[equal], match[equal] = DUPLICATE, order[position][equal]
    return Duplicates(kind, match)


def find_same_pictures(
    pictures: Pictures, base: Pictures, colours: Floats = NO_COLOURS, base_colours: Floats = NO_COLOURS
) -> Ints:
    """Find the base picture that each picture is a copy of, cropped, moved, rescaled or changed in brightness.

    Candidates are the most similar ones over crops of either; they are registered to each other, either way round.
    What counts as the same depends on how alike the pictures of this set are by nature: digits and X-rays, all taken
    the same way, must agree better than photographs.

    Args:
        pictures: ``(n, edge, edge)``.
        base: ``(m, edge, edge)``.
        colours: Colours of the pictures in units of the set's usual contrast, ``(n, k)``; empty without any.
        base_colours: Those of the base, ``(m, k)``.

    Returns:
        Row of the base picture, or -1, ``(n,)``.
    """
    match = np.full(len(pictures), -1, dtype=np.int64)
    if not len(pictures) or not len(base):
        return match
    small, small_base = (crop_pictures(_halve(p)).swapaxes(0, 1) for p in (pictures, base))
    parts = [_most_similar(small[:, i : i + _AT_ONCE], small_base) for i in range(0, len(pictures), _AT_ONCE)]
    nearest, found = (np.concatenate(values) for values in zip(*parts, strict=True))
    usual = float(np.quantile(1 - found.max(1), 0.75))
    rows, column = np.nonzero(found > ALIKE)
    columns = nearest[rows, column]
    if colours.size and base_colours.size:
        kept = _are_alike(colours[rows], base_colours[columns])
        rows, columns = rows[kept], columns[kept]
    unit, unit_base = (scale_to_unit(p.reshape(len(p), -1)).reshape(p.shape) for p in (pictures, base))
    pairs = unit[rows], unit_base[columns]
    gap = 1 - np.maximum(registered_correlation(*pairs), registered_correlation(*pairs[::-1]))
    same: Mask = gap < min(PICTURE_GAP, PICTURE_RATIO * usual)
    order = np.argsort(-gap[same], kind="stable")  # the best match is written last
    match[rows[same][order]] = columns[same][order]
    return match


def _are_alike(a: Floats, b: Floats) -> Mask:
    """Whether two pictures may be copies by their colours, ``(p, k)`` each, pair by pair, ``(p,)``."""
    strength = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return np.asarray(np.linalg.norm(a - b, axis=1) < COLOUR_GAP * strength + COLOUR_FLOOR)


def _most_similar(crops: Pictures, base: Pictures) -> tuple[Ints, NDArray[np.float32]]:
    """Give the most similar base pictures of each picture at the best of their crops, and how similar they are.

    Args:
        crops: Crops of n pictures, the first is the whole, ``(crops, n, pixels)``, of unit length.
        base: Those of m pictures, ``(crops, m, pixels)``.

    Returns:
        Rows of the base and similarities, ``(n, MATCHES)``, or fewer where the base is smaller.
    """
    similarity = crops[0] @ base[0].T
    for place in range(1, len(crops)):
        np.maximum(similarity, crops[place] @ base[0].T, out=similarity)
        np.maximum(similarity, crops[0] @ base[place].T, out=similarity)
    count = min(MATCHES, similarity.shape[1])
    nearest = np.argpartition(similarity, similarity.shape[1] - count, axis=1)[:, -count:]
    return nearest, np.take_along_axis(similarity, nearest, axis=1)


def _halve(pictures: Pictures) -> Pictures:
    """Average blocks of 2 x 2."""
    n, edge = pictures.shape[:2]
    return np.asarray(pictures.reshape(n, edge // 2, 2, edge // 2, 2).mean((2, 4)), dtype=np.float32)


def _nearest(
    x: NDArray[np.float32], base: NDArray[np.float32], seed: int, leave_out: bool = False
) -> tuple[Floats, Ints]:
    """Cosine distances to the nearest base rows, ascending, and the rows; exact for rows much closer than the rest."""
    projection = np.random.default_rng(seed).normal(size=(x.shape[1], PROJECTIONS)).astype(np.float32)
    count = min(CANDIDATES + int(leave_out), len(base))
    _, found = cKDTree(base @ projection).query(x @ projection, k=count)
    candidates = found.reshape(len(x), count)[:, int(leave_out) :]
    similarity = np.einsum("nc,nkc->nk", x, base[candidates])
    order = np.argsort(-similarity, axis=1, kind="stable")
    nearest = np.take_along_axis(similarity, order, axis=1)
    return np.maximum(1.0 - nearest, 0.0).astype(np.float64), np.take_along_axis(candidates, order, axis=1)
