"""Metadata columns as numbers: which are continuous, which categorical, and what cannot be compared."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_ifa.errors import MetadataError
from lightning_ifa.statistics.arrays import Floats, Ints, Mask

GROUP = "group"
"""Metadata column that says which samples belong together, such as one patient's: not judged, but the unit of
independence."""

MOST_CODES = 10
"""Whole numbers with at most that many values are taken for codes of categories, such as a site's number."""

MOST_LEVELS = 20
"""Categories kept apart; rarer ones are pooled into one."""

IDENTIFIER = 0.5
"""A text column with more values than this share of the samples is taken for an identifier."""


class Column(NamedTuple):
    """A column ready for comparison.

    Attributes:
        known: Which rows have a value, ``(n,)``.
        values: One column for numbers, dummy columns for categories, ``(known rows, p)``; None for an identifier.
        levels: Number of categories, 0 for continuous numbers.
    """

    known: Mask
    values: Floats | None
    levels: int


def read_groups(*columns: pd.Series[Any]) -> list[Ints] | None:
    """Number the groups of several splits together; a missing value is a group of its own.

    Returns:
        Group numbers of each split, ``(n,)``; None if no two samples share a group.
    """
    pooled = pd.concat(columns, ignore_index=True)
    codes = pd.factorize(pooled)[0].astype(np.int64)
    unknown = codes < 0
    codes[unknown] = codes.max() + 1 + np.arange(int(unknown.sum()))
    if len(np.unique(codes)) == len(codes):
        return None
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def read_column(column: pd.Series[Any]) -> Column:
    """Bring a column to numbers; missing values are left out.

    Args:
        column: Numbers, booleans, text, categories or times. Its index names rows in messages.

    Raises:
        MetadataError: A value is infinite or of a kind that cannot be compared; column and row are named.
    """
    known = column.notna().to_numpy()
    present = column[known]
    if pd.api.types.is_datetime64_any_dtype(present) or pd.api.types.is_timedelta64_dtype(present):
        return Column(known, _standardise(present.astype("int64").to_numpy().astype(np.float64)), 0)
    if pd.api.types.is_numeric_dtype(present) and not pd.api.types.is_bool_dtype(present):
        numbers = present.to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            row = present.index[~np.isfinite(numbers)][0]
            raise MetadataError(
                f"metadata column {column.name!r}, row {row}: an infinite number; leave it empty instead"
            )
        levels = present.nunique()
        if levels > MOST_CODES or not (numbers == np.round(numbers)).all():
            return Column(known, _standardise(numbers), 0)
    _require_comparable(column, known)
    codes, names = pd.factorize(present.astype(str))
    if len(names) > max(MOST_LEVELS, IDENTIFIER * len(present)):
        return Column(known, None, len(names))
    return Column(known, _dummies(codes, len(names)), len(names))


def _dummies(codes: Ints, levels: int) -> Floats:
    """One column a level but the most frequent one, rare levels pooled."""
    if levels < 2:
        return np.zeros((len(codes), 1))
    order = np.argsort(-np.bincount(codes, minlength=levels), kind="stable")
    rank = np.empty(levels, dtype=np.int64)
    rank[order] = np.minimum(np.arange(levels), MOST_LEVELS - 1)
    return np.eye(min(levels, MOST_LEVELS))[rank[codes]][:, 1:]


def _standardise(numbers: Floats) -> Floats:
    spread = numbers.std() if len(numbers) else 0.0
    return ((numbers - numbers.mean()) / spread if spread > 0 else np.zeros_like(numbers))[:, None]


def _require_comparable(column: pd.Series[Any], known: Mask) -> None:
    if column.dtype != object:
        return
    for row, value in column[known].items():
        if not isinstance(value, (str, bool, int, float, np.generic)):
            raise MetadataError(
                f"metadata column {column.name!r}, row {row}: a {type(value).__name__}; expected a number, a text, "
                "a boolean or a time"
            )
