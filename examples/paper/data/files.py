"""What to do with missing and damaged files: name them, count them, and skip them or stop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lightning_ifa.errors import DataError, FileError, IFAWarning

Check = Callable[[Path], Any]
OnDamaged = Literal["refuse", "skip"]
SHOWN = 5


def sound_rows(frame: pd.DataFrame, check: Check, on_damaged: OnDamaged) -> pd.DataFrame:
    """Keep the rows whose files pass a check; every file is checked once.

    Args:
        frame: With a column ``files``, a tuple of paths each.
        check: Raises ``FileError`` for a bad file; should read a header only, since there may be a million.
        on_damaged: ``"refuse"`` stops at bad files, after all have been looked at; ``"skip"`` leaves their rows out.

    Raises:
        DataError: There are bad files and they are not to be skipped, or nothing is left.
    """
    bad = {path: why for path in _distinct(frame) if (why := _fault(path, check))}
    if not bad:
        return frame
    told = _told(bad, len(_distinct(frame)))
    kept = frame[[not any(path in bad for path in files) for files in frame["files"]]].reset_index(drop=True)
    if on_damaged == "refuse":
        raise DataError(f"{told}; on_damaged: skip leaves out their {len(frame) - len(kept)} samples")
    if kept.empty:
        raise DataError(f"{told}; no sample is left")
    warnings.warn(f"{told}; {len(frame) - len(kept)} of {len(frame)} samples left out", IFAWarning, stacklevel=2)
    return kept


def require(path: Path, what: str) -> Path:
    """Hand a path through that must exist.

    Raises:
        DataError: It does not; the message says what was looked for.
    """
    if not path.exists():
        raise DataError(f"there is no {path}; expected {what}")
    return path


def read_table(path: Path, what: str, *columns: str) -> pd.DataFrame:
    """Read a CSV file that must have some columns; identifiers stay text.

    Raises:
        DataError: It is missing, no CSV file, or lacks a column.
    """
    try:
        table = pd.read_csv(
            require(path, what), dtype={name: str for name in columns if name.lower().endswith(("id", "patient"))}
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]!r}; it has {list(table.columns)}")
    return table


def _distinct(frame: pd.DataFrame) -> list[Path]:
    return sorted({path for files in frame["files"] for path in files})


def _fault(path: Path, check: Check) -> str:
    try:
        check(path)
    except FileError as error:
        return str(error)
    return ""


def _told(bad: dict[Path, str], checked: int) -> str:
    named = "; ".join(list(bad.values())[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
    return f"{len(bad)} of {checked} files cannot be used: {named}"
