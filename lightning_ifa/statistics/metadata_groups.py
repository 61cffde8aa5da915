"""Groups of samples by what is known of them: the levels of each metadata column, and of pairs of columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_ifa.statistics.arrays import Ints, Mask
from lightning_ifa.statistics.metadata_columns import GROUP, MOST_LEVELS, read_column

LEAST_SIZE = 20
"""Samples from which on a group is judged: below, a 95 % interval of an accuracy is wider than .4."""

PARTS = 3
"""Parts of equal size that numbers are cut into."""

MOST_PAIRED = 5
"""Columns whose groups are crossed: the number of pairs, and of tests, grows with their square."""

PAIR = " × "
"""Between the names of two columns, and of their groups."""


class Group(NamedTuple):
    """Samples that share a level of a column, or of two.

    Attributes:
        column: Name of the column, or of the pair.
        name: Name of the level, or of the pair's.
        inside: Which validation samples belong to it, ``(n,)``.
        trained: Which training samples do, ``(m,)``; none where nothing is known of them.
    """

    column: str
    name: str
    inside: Mask
    trained: Mask


class Levels(NamedTuple):
    """A column as words, one a group.

    Attributes:
        validation: Group of each validation sample, ``(n,)``; missing where unknown.
        train: The same of each training sample, ``(m,)``.
    """

    validation: pd.Series[Any]
    train: pd.Series[Any]


def list_groups(metadata: pd.DataFrame, train: pd.DataFrame, pairs: bool = True) -> Iterator[Group]:
    """Give each group of each column, and of pairs of the columns with the fewest groups.

    Args:
        metadata: What is known of the validation samples, n rows.
        train: The same of the training samples, m rows; columns may be missing.
        pairs: Whether groups of two columns are given as well, where they are large enough to be judged.
    """
    levels = dict(column_levels(metadata, train))
    for column, found in levels.items():
        for name in found.validation.dropna().unique():
            yield Group(column, str(name), *(np.asarray(words == name) for words in found))
    fewest = sorted(levels, key=lambda name: levels[name].validation.nunique())[: MOST_PAIRED if pairs else 0]
    for one, two in combinations(fewest, 2):
        both = [a.str.cat(b, sep=PAIR) for a, b in zip(levels[one], levels[two], strict=True)]
        sizes = both[0].value_counts()
        for name in sizes.index[sizes >= LEAST_SIZE]:
            yield Group(f"{one}{PAIR}{two}", str(name), *(np.asarray(words == name) for words in both))


def column_levels(metadata: pd.DataFrame, train: pd.DataFrame) -> Iterator[tuple[str, Levels]]:
    """Turn each column into words for its groups; those of one group, or of more than 20 categories, are left out.

    Numbers and times are cut into parts of equal size; training samples are cut where validation samples are.
    """
    for name in metadata:
        if name == GROUP:
            continue
        column = metadata[name]
        read = read_column(column)
        if read.values is None or column.nunique() < 2:
            continue
        other = train[name] if name in train else pd.Series(np.nan, train.index, dtype=object)
        if read.levels:
            words = column.astype(str).where(column.notna())
            names: dict[Any, str] = dict(zip(column[column.notna()], words.dropna(), strict=True))
        else:
            parts = pd.qcut(read.values[:, 0], PARTS, labels=False, duplicates="drop")
            words, other, names = _cut(column, parts, other)
        if 2 <= words.nunique() <= MOST_LEVELS:
            yield str(name), Levels(words, other.map(names).astype(object))


def list_levels(metadata: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any]]]:
    """Turn each column of one split into words for its groups; see ``column_levels``."""
    return ((name, found.validation) for name, found in column_levels(metadata, metadata.iloc[:0]))


def _cut(
    column: pd.Series[Any], parts: Ints, other: pd.Series[Any]
) -> tuple[pd.Series[Any], pd.Series[Any], dict[Any, str]]:
    """Name parts by their range, and number the part of other values, by the largest value of each part."""
    known = column.dropna()
    groups = known.groupby(pd.Series(parts, known.index))
    names = {part: f"{_short(values.min())} to {_short(values.max())}" for part, values in groups}
    words = pd.Series(parts, known.index).map(names).reindex(column.index)
    ends = groups.max().sort_index()
    rest = other.dropna() if _is_alike(known, other) else other[:0]
    number = np.searchsorted(ends.to_numpy()[:-1], rest.to_numpy()) if len(rest) else np.zeros(0, dtype=np.int64)
    return words, pd.Series(ends.index.to_numpy()[number], rest.index).reindex(other.index), names


def _is_alike(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether values of two columns can be ordered: numbers both, or times of one kind."""
    return one.dtype == other.dtype or all(map(pd.api.types.is_numeric_dtype, (one, other)))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)
