"""Settle the types of the user's columns when they enter, so that nothing that is written later fails on them."""

from __future__ import annotations

import datetime
import decimal
import numbers
import warnings
from typing import Any

import numpy as np
import pandas as pd

from lightning_ifa.errors import IFAWarning, MetadataError

LONGEST_TEXT = 200
"""Characters that are kept of a value that is made text."""

AFFINE_SHAPES = ((4, 4), (3, 4))
"""Shapes of arrays of which every number is kept: affines, which place a volume in the world."""

_TIMES = (datetime.date, datetime.datetime, pd.Timestamp, np.datetime64)


def settle_types(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """Bring every column to numbers, booleans, times, categories of text, or text.

    Numbers, booleans and times that stand in a column of objects become a column of their type. What is mixed, nested,
    complex, binary, above 64 bits or of any other kind becomes text, and a warning names the column.

    Args:
        frame: One row a sample.
        split: Name of the split, for messages.

    Returns:
        A table whose column names are text, each once.

    Raises:
        MetadataError: Two columns have one name.
    """
    names = [str(name) for name in frame.columns]
    repeated = [name for place, name in enumerate(names) if name in names[:place]]
    if repeated:
        raise MetadataError(f"metadata of the {split} split has two columns of the name {repeated[0]!r}; rename one")
    columns: dict[str, Any] = {}
    for place, name in enumerate(names):
        column = frame.iloc[:, place]
        columns[name], found = _settle(column)
        if found:
            warnings.warn(
                f"metadata column {name[:80]!r} of the {split} split holds {found}; its values are taken as text",
                IFAWarning,
                stacklevel=3,
            )
    return pd.DataFrame(columns, index=frame.index)


def _settle(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    """Give a column of a settled type, and what was found where it had to be made text."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        if all(isinstance(name, str) for name in dtype.categories):
            return column, ""
        column = column.astype(object)
    elif isinstance(dtype, pd.SparseDtype):
        column = pd.Series(np.asarray(column), index=column.index)
    if column.dtype.kind in "biufmM" or isinstance(column.dtype, (pd.StringDtype, pd.DatetimeTZDtype)):
        if column.dtype.kind != "u" or not (column.dropna() > np.iinfo(np.int64).max).any():
            return column, ""
        return _as_text(column), "whole numbers above 2**63"
    if column.dtype.kind == "c":
        return _as_text(column), "complex numbers"
    if column.dtype != object:
        return _as_text(column), f"values of type {str(column.dtype)[:40]}"
    return _settle_objects(column)


def _settle_objects(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    known = ~np.array([value is None or value is pd.NA or value is pd.NaT or value != value if _is_scalar(value)
                       else False for value in column], dtype=bool)  # fmt: skip
    kinds = {type(value): value for value in column[known]}
    if all(issubclass(kind, str) for kind in kinds):
        return column.where(known, None), ""
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return column.where(known, None), ""
    try:
        if all(issubclass(kind, _TIMES) for kind in kinds):
            return pd.to_datetime(column), ""
        if all(_is_number(kind) for kind in kinds):
            if any(isinstance(value, numbers.Integral) and abs(int(value)) >= 2**63 for value in column[known]):
                return _as_text(column, known), "whole numbers above 2**63"
            return pd.to_numeric(pd.Series([_plain(v) for v in column.where(known, None)], index=column.index)), ""
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        pass
    names = sorted(kind.__name__ for kind in kinds)
    return _as_text(column, known), f"values of type {', '.join(names[:3])}" + (" and others" if names[3:] else "")


def _is_number(kind: type) -> bool:
    real = issubclass(kind, (numbers.Real, decimal.Decimal)) and not issubclass(kind, (bool, np.bool_))
    return real and kind.__module__ in ("builtins", "numpy", "decimal", "fractions")


def _plain(value: Any) -> Any:
    return float(value) if value is not None and not isinstance(value, numbers.Integral) else value


def _is_scalar(value: Any) -> bool:
    return value is None or value is pd.NA or isinstance(value, (float, np.floating, np.datetime64, np.timedelta64)) \
        or value is pd.NaT  # fmt: skip


def _as_text(column: pd.Series[Any], known: Any = None) -> pd.Series[Any]:
    known = column.notna().to_numpy() if known is None else known
    texts = [_text(value) if is_known else None for value, is_known in zip(column, known, strict=True)]
    return pd.Series(texts, index=column.index, dtype=object, name=column.name)


def _text(value: Any) -> str:
    try:
        if _is_affine(value):
            return " ".join(f"{number:.9g}" for number in np.asarray(value, dtype=np.float64).ravel())
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception:  # the class is the user's
        text = type(value).__name__
    return text.encode("utf-8", "replace").decode("utf-8")[:LONGEST_TEXT]


def _is_affine(value: Any) -> bool:
    try:
        return np.shape(value) in AFFINE_SHAPES and np.asarray(value).dtype.kind in "iuf"
    except Exception:  # a list of lists of several lengths, or whatever the user's class throws
        return False
