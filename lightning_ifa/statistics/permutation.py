"""Permutation nulls where samples come in groups, as the slices of one scan: whole groups are exchanged."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Floats, Ints
from lightning_ifa.statistics.strata import group_sums


class Pairs(NamedTuple):
    """Sums of products over the pairs of samples that share a group; ``q`` is the shape of one product.

    Attributes:
        own: Each sample with itself, ``(strata, *q)``.
        same: Different samples of one group and stratum, ``(strata, *q)``.
        across: Samples of one group in different strata, ``(*q,)``.
    """

    own: Floats
    same: Floats
    across: Floats


def grouped_variance(a: Floats, b: Floats, stratum: Ints, group: Ints) -> Floats:
    """Variance of ``sum_i a_i . b_i`` when ``a`` and ``b`` are unrelated and groups, not samples, are independent.

    Samples of a group covary in both; without a relation between the two, the covariance of the products is the
    product of the covariances, each estimated by its mean over the pairs that share a group (within a stratum, and
    between strata). With one sample a group this is Hoeffding's variance of a combinatorial sum; with groups of one
    size and stratum in which ``a`` is constant, it is that variance of whole groups exchanged within their stratum.

    Args:
        a: First factor of m statistics that sum over p columns each, ``(n, m, p)``; mean 0 within strata.
        b: Second factor, ``(n, m, p)``.
        stratum: Stratum of each sample, within which samples may be exchanged, ``(n,)``.
        group: Group of each sample, ``(n,)``.

    Returns:
        One variance a statistic, ``(m,)``; may be negative where samples of a group are opposites.

    >>> a, b, n = np.array([1.0, -1, 2, -2]), np.array([3.0, -1, -1, -1]), np.arange(4)
    >>> float(grouped_variance(a[:, None, None], b[:, None, None], 0 * n, n)[0])
    40.0
    >>> twice = [np.repeat(v, 2) for v in (a, b, n)]  # copies of a sample say nothing new: the same z
    >>> float(grouped_variance(*(v[:, None, None] for v in twice[:2]), 0 * twice[2], twice[2])[0]) / 2**2
    40.0
    """
    count = pair_sums(np.ones((len(a), 1, 1)), stratum, group)
    n = count.own
    growth = n / np.maximum(n - (count.same + n) / n, 1.0)  # what centring within the stratum has taken
    x, y = pair_sums(a, stratum, group), pair_sums(b, stratum, group)
    within = growth * (x.own * y.own / n + x.same * y.same / np.maximum(count.same, 1))
    between = (growth * n).sum() / n.sum() * x.across * y.across / np.maximum(count.across, 1)
    return np.asarray((within.sum(0) + between).sum((1, 2)))


def pair_sums(values: Floats, stratum: Ints, group: Ints) -> Pairs:
    """Sum the outer products of samples over the pairs that share a group.

    Args:
        values: Values of n samples, ``(n, m, p)``; products are ``(m, p, p)``.
        stratum: Stratum of each sample, ``(n,)``.
        group: Group of each sample, ``(n,)``.
    """
    cells, cell = np.unique(np.column_stack([stratum, group]), axis=0, return_inverse=True)
    in_cell = group_sums(values, cell.ravel())
    own, of_cells = _products(values, stratum), _products(in_cell, cells[:, 0])
    of_groups = _products(group_sums(in_cell, cells[:, 1]), np.zeros(len(np.unique(group)), dtype=np.int64))
    return Pairs(own, of_cells - own, of_groups[0] - of_cells.sum(0))


def chance_variances(
    inside: Floats, slopes: Floats, position: Ints, stratum: Ints, group: Ints
) -> tuple[Floats, float]:
    """Variance of the reliance on a variable that only chance ties to the classes, groups being independent.

    The class means of the variable scatter as groups do, and together where classes share groups.

    Args:
        inside: The variable, mean 0 within strata, ``(n, p)``.
        slopes: Slopes of each class's logit on it, ``(classes, p)``.
        position: Class of the first v samples, whose means are judged, ``(v,)``.
        stratum: Stratum of each sample, ``(n,)``.
        group: Group of each sample, ``(n,)``.

    Returns:
        Variances of each class's part, ``(classes,)``, and of their sum.
    """
    count, found = (pair_sums(v[:, None], stratum, group) for v in (np.ones((len(inside), 1)), inside))
    lost = float(((count.same + count.own) / count.own).sum())  # what centring within strata has taken
    growth = len(inside) / max(len(inside) - lost, 1.0)
    own, same, across = (
        growth * part.reshape(-1, *part.shape[-2:]).sum(0) / max(float(number.sum()), 1.0)
        for part, number in zip(found, count, strict=True)
    )
    of_class, of_sum = (np.einsum("cp,pq,cq->c", slopes, m, slopes, optimize=True) for m in (same, across))
    alone = np.einsum("cp,pq,cq->c", slopes, own, slopes, optimize=True)
    share = _shares(position, group[: len(position)])
    squares, single = (share**2).sum(0), 1 / np.bincount(position)
    each = alone * single + of_class * (squares - single)
    along = share @ slopes
    together = np.einsum("gp,pq,gq->", along, across, along, optimize=True) - (squares * of_sum).sum()
    return each, float(each.sum() + together)


def degrees_of_freedom(stratum: Ints, group: Ints) -> float:
    """Count the groups beyond those that the means of the strata take, in numbers of groups of one size."""
    count = pair_sums(np.ones((len(stratum), 1, 1)), stratum, group)
    in_strata = count.own**2 / (count.same + count.own)
    overall = len(stratum) ** 2 / float((np.bincount(np.unique(group, return_inverse=True)[1]) ** 2).sum())
    return max(min(float((in_strata - 1).sum()), overall - 1), 1.0)


def as_normal(t: Any, freedom: float) -> Any:
    """Give the z that is as rare as a t (Wallace 1959, within 1 % where it matters).

    >>> round(float(as_normal(3.0, 10)), 2), round(float(as_normal(3.0, 1e6)), 2)
    (2.47, 3.0)
    """
    z = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(np.square(t) / freedom))
    return np.sign(t) * z


def _shares(position: Ints, group: Ints) -> Floats:
    """Share of each class's samples that each group holds, ``(groups, classes)``."""
    groups, row = np.unique(group, return_inverse=True)
    counts = np.zeros((len(groups), int(position.max()) + 1))
    np.add.at(counts, (row, position), 1.0)
    return np.asarray(counts / counts.sum(0))


def _products(values: Floats, codes: Ints) -> Floats:
    """Sum the outer products of the rows within each code, ``(codes, m, p, p)``."""
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(np.unique(codes, return_counts=True)[1])[:-1]
    parts = np.split(values[order], starts)
    return np.stack([part.transpose(1, 2, 0) @ part.transpose(1, 0, 2) for part in parts])
