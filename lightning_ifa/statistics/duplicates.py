"""Leakage: which validation samples are also in the training split, exactly or nearly?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lightning_ifa.statistics.arrays import Array, Floats, Ints, scale_rows_to_unit

DUPLICATE, NEAR = "duplicate", "near-duplicate"

NEAR_RATIO = 0.08
"""A sample may be a copy if its cosine distance to the nearest training sample is below this share of the usual one."""

CROWD, CROWD_RATIO = 3, 0.1
"""Rank of the matching training sample's neighbour that a copy must be closer than, and by which factor."""

MAP_COSINE = 0.9985
"""A sample is a copy only if the cosine of the two maps is above this."""

PROJECTIONS, CANDIDATES = 8, 8


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
    """

    fingerprints: Ints
    activations: Array
    cams: Array


def find_duplicates(validation: DuplicateInput, train: DuplicateInput, seed: int = 0) -> Duplicates:
    """Find validation samples that are copies of training samples, by input or by features.

    Exact copies have equal fingerprints. Near ones (noise, another compression, a small shift) have activations
    much closer than any two training samples usually are, also much closer than the neighbours of the matching training
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
    order = np.argsort(train.fingerprints, kind="stable")
    position = np.searchsorted(train.fingerprints[order], validation.fingerprints).clip(max=len(order) - 1)
    equal = train.fingerprints[order][position] == validation.fingerprints
    kind[equal], match[equal] = DUPLICATE, order[position][equal]
    return Duplicates(kind, match)


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
