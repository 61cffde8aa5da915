"""Leakage: which validation samples are also in the training split, exactly or nearly?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

DUPLICATE, NEAR = "duplicate", "near-duplicate"

NEAR_RATIO = 0.08
"""Cosine distance to the nearest training sample, as a share of the usual one, below which a sample may be a copy."""

CROWD, CROWD_RATIO = 3, 0.1
"""Which of its training neighbours a duplicate is compared with, and the share of that distance allowed."""

MAP_COSINE = 0.9985
"""Cosine of the two maps above which it is one."""

PROJECTIONS, CANDIDATES = 8, 8


class Duplicates(NamedTuple):
    """Per validation sample, shape ``(n,)``.

    Attributes:
        kind: ``"duplicate"``, ``"near-duplicate"`` or ``""``.
        match: Row of the training sample; -1 if there is none.
    """

    kind: NDArray[np.str_]
    match: NDArray[np.int64]


class DuplicateInput(NamedTuple):
    """What copies are told by, of one split.

    Attributes:
        fingerprints: ``(n,)`` int64; equal inputs have equal ones.
        activations: ``(n, c)`` pooled activations.
        cams: ``(n, *space)`` maps.
    """

    fingerprints: NDArray[np.int64]
    activations: NDArray[Any]
    cams: NDArray[Any]


def find_duplicates(validation: DuplicateInput, train: DuplicateInput, seed: int = 0) -> Duplicates:
    """Find validation samples that are copies of training samples, by input or by features.

    Exact copies have equal fingerprints. Near ones (noise, another compression, a small shift) have activations
    much closer than any two training samples usually are, also much closer than the duplicate's own neighbours in the
    training split, and the same map. Where images are alike by nature, as patches of one sky, a neighbour is no copy;
    the third neighbour decides, so that a training sample that is in there twice still has its copies found. Candidates
    come from a search tree over
    a few random projections, so the cost grows as n log n.

    Args:
        validation: The split looked through.
        train: The split that should have nothing of it.
        seed: Of the projections.
    """
    kind = np.full(len(validation.fingerprints), "", dtype=f"<U{len(NEAR)}")
    duplicate = np.full(len(kind), -1, dtype=np.int64)
    x, base = _unit(validation.activations), _unit(train.activations)
    distances, found = _nearest(x, base, seed)
    distance, nearest = distances[:, 0], found[:, 0]
    among = _nearest(base, base, seed, leave_out=True)[0] if len(base) > 1 else np.zeros((len(base), 1))
    crowd = among[nearest, min(CROWD, among.shape[1]) - 1]
    limit = np.minimum(NEAR_RATIO * np.median(among[:, 0]), CROWD_RATIO * crowd)
    maps = (_unit(validation.cams.reshape(len(x), -1)) * _unit(train.cams.reshape(len(base), -1))[nearest]).sum(1)
    near = (distance < limit) & (maps > MAP_COSINE)
    kind[near], duplicate[near] = NEAR, nearest[near]
    order = np.argsort(train.fingerprints, kind="stable")
    place = np.searchsorted(train.fingerprints[order], validation.fingerprints).clip(max=len(order) - 1)
    equal = train.fingerprints[order][place] == validation.fingerprints
    kind[equal], duplicate[equal] = DUPLICATE, order[place][equal]
    return Duplicates(kind, duplicate)


def _nearest(
    x: NDArray[np.float32], base: NDArray[np.float32], seed: int, leave_out: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosine distances to the nearest base rows, ascending, and the rows; exact for rows much closer than the rest."""
    projection = np.random.default_rng(seed).normal(size=(x.shape[1], PROJECTIONS)).astype(np.float32)
    count = min(CANDIDATES + int(leave_out), len(base))
    _, found = cKDTree(base @ projection).query(x @ projection, k=count)
    candidates = found.reshape(len(x), count)[:, int(leave_out) :]
    similarity = np.einsum("nc,nkc->nk", x, base[candidates])
    order = np.argsort(-similarity, axis=1, kind="stable")
    nearest = np.take_along_axis(similarity, order, axis=1)
    return np.maximum(1.0 - nearest, 0.0).astype(np.float64), np.take_along_axis(candidates, order, axis=1)


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), dtype=np.float32)
