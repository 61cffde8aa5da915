"""What tells some samples from all others: numbers and categories that lie elsewhere in them, the clearest first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lightning_ifa.statistics.arrays import Array, Floats, Mask

CLEAR = 0.75
"""Chance that a sample of the group lies higher (or lower) than another one, from which on that describes the group."""

RATIO = 2.0
"""How many times more frequent a category is within the group, if it describes it."""


class Difference(NamedTuple):
    """One thing that tells a group from the others.

    Attributes:
        name: Name of the column.
        inside: Median within the group, or share of the category.
        outside: The same of all others.
        chance: Chance that a sample of the group lies higher than another one; of a category, (1 + the difference of
            shares) / 2.
        category: The category, or empty for numbers.
    """

    name: str
    inside: float
    outside: float
    chance: float
    category: str = ""


def higher_within(values: Array, inside: Mask) -> Floats:
    """Give the chance that a sample of a group has a higher value than another one, ties halved, ``(c,)``.

    Args:
        values: ``(n, c)``; NaN where unknown, which counts as the lowest of all.
        inside: Which samples belong to the group, ``(n,)``.

    >>> higher_within(np.array([[3.0], [2.0], [1.0]]), np.array([True, False, False]))
    array([1.])
    """
    ranks = rankdata(np.where(np.isfinite(values), values, -np.inf), axis=0)
    n, m = int(inside.sum()), int((~inside).sum())
    return np.asarray((ranks[inside].sum(0) - n * (n + 1) / 2) / max(n * m, 1))


def list_differences(frame: pd.DataFrame, inside: Mask, most: int = 3) -> list[Difference]:
    """Give what clearly tells a group from the others, the clearest first.

    Args:
        frame: Columns of numbers, or of categories, n rows.
        inside: Which samples belong to the group, ``(n,)``.
        most: How many to give at most.
    """
    found = [difference for name in frame if (difference := _compare(frame[name], inside)) is not None]
    return sorted(found, key=lambda difference: -abs(difference.chance - 0.5))[:most]


def _compare(column: pd.Series[Any], inside: Mask) -> Difference | None:
    name = str(column.name)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        chance = float(higher_within(values[:, None], inside)[0])
        if max(chance, 1 - chance) < CLEAR:
            return None
        return Difference(name, float(np.nanmedian(values[inside])), float(np.nanmedian(values[~inside])), chance)
    words = column.astype(str).where(column.notna())
    common = words[inside].value_counts()
    if not len(common):
        return None
    category = str(common.index[0])
    share, other = (float((words[part] == category).mean()) for part in (inside, ~inside))
    is_clear = share >= 0.5 and (share - other >= 2 * CLEAR - 1 or share >= RATIO * other)
    return Difference(name, share, other, (1 + share - other) / 2, category) if is_clear else None
