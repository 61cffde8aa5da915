"""Metadata from a CSV or Parquet file; of a file in another form, the form is named with what mends it."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from lightning_ifa.data.untrusted_files import read_table
from lightning_ifa.errors import FileError, MetadataError

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

LONGEST_HEADER = 2_000_000  # characters; far less than so many columns would take
MOST_COLUMNS = 10_000
"""Columns of a file at most; one with more has a table on its side, or was made to keep a reader busy."""

YOURSELF = 'or read it yourself and pass {"train": frame, "validation": frame}'


def read_metadata_file(path: Path) -> dict[str, pd.DataFrame]:
    """Read a table with the columns ``split`` and ``index``.

    Args:
        path: A CSV file, with commas and in UTF-8, or a Parquet file.

    Returns:
        DataFrames by split, indexed by data-set index.

    Raises:
        MetadataError: The file is of another form; the message says of which, and what would do.
    """
    with _metadata_errors(path):
        content = _read(path)
        is_parquet = content.startswith(b"PAR1") or path.suffix == ".parquet"
        table = _parse_parquet(path, content) if is_parquet else _parse_csv(path, _decode(path, content))
        if not len(table):
            raise MetadataError(f"metadata file {path} has a header and no rows")
        _require_key(path, table)
        return {str(split): rows.drop(columns="split").set_index("index") for split, rows in table.groupby("split")}


@contextmanager
def _metadata_errors(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on strange content into one error that names the file."""
    try:
        yield
    except MetadataError:
        raise
    except Exception as error:  # pandas, pyarrow and csv have errors of many kinds
        raise MetadataError(f"metadata file {path} cannot be read: {str(error) or type(error).__name__}") from error


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise MetadataError(f"metadata file {path} cannot be read: it is no file")  # of a pipe there is no end
        return path.read_bytes()
    except OSError as error:
        raise MetadataError(f"metadata file {path} cannot be read: {error.strerror or error}") from error


def _parse_parquet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        table = read_table(content, path)
    except FileError as error:
        raise MetadataError(f"metadata file {path} cannot be read as Parquet: {error}") from error
    return table.reset_index() if "index" not in table.columns and table.index.name == "index" else table


def _decode(path: Path, content: bytes) -> str:
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise MetadataError(f"metadata file {path} is empty")
    if content.startswith(b"PK\x03\x04") or path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise MetadataError(
            f"metadata file {path} is an Excel workbook or another archive; save the sheet as CSV (UTF-8), {YOURSELF}, "
            "as from pandas.read_excel"
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:1000]:
        raise MetadataError(
            f"metadata file {path} is no text in UTF-8, but in UTF-16 or binary; save it as UTF-8, {YOURSELF}, as from "
            'pandas.read_csv(path, encoding="utf-16")'
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MetadataError(
            f"metadata file {path} is not in UTF-8: line {line} holds the byte {content[error.start]:#04x}; save it as "
            f'UTF-8, {YOURSELF}, as from pandas.read_csv(path, encoding="latin-1")'
        ) from error


def _parse_csv(path: Path, text: str) -> pd.DataFrame:
    first = text.lstrip("\r\n").splitlines()[0][:LONGEST_HEADER]
    names = [name.strip() for name in next(csv.reader([first]), [])]
    _require_commas(path, first, names)
    _require_names(path, names)
    try:
        return pd.read_csv(io.StringIO(text), low_memory=False, index_col=False)
    except (ValueError, OverflowError) as error:  # the parser's own are such
        raise MetadataError(f"metadata file {path} cannot be read as CSV: {error}") from error


def _require_commas(path: Path, first: str, names: list[str]) -> None:
    for sign, word in SEPARATORS.items():
        if {"split", "index"} <= set(names):
            return
        parts = {part.strip().strip('"') for part in first.split(sign)}
        if {"split", "index"} <= parts or (len(names) == 1 and len(parts) > 1):
            raise MetadataError(
                f"metadata file {path} separates its columns by {word}; save it with commas, {YOURSELF}, as from "
                f"pandas.read_csv(path, sep={sign!r})"
            )


def _require_names(path: Path, names: list[str]) -> None:
    if "" in names and {"split", "index"} <= set(names):
        raise MetadataError(
            f"metadata file {path} has a column without a name (its column {names.index('') + 1}), as "
            "DataFrame.to_csv(path) writes for the row numbers; name it, or save with index=False"
        )
    if len(names) > MOST_COLUMNS:
        raise MetadataError(f"metadata file {path} has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise MetadataError(f"metadata file {path} has two columns of the name {repeated[0]!r}; rename one")


def _require_key(path: Path, table: pd.DataFrame) -> None:
    lacking = [name for name in ("split", "index") if name not in table.columns]
    if lacking:
        some = ", ".join(repr(str(name)[:40]) for name in table.columns[:10])
        raise MetadataError(f"metadata file {path} has no column {lacking[0]!r}; it has {some}")
    if table["split"].isna().any():
        raise MetadataError(f"metadata file {path}: no split in row {_first(table['split'].isna())}")
    numbers = pd.to_numeric(table["index"], errors="coerce")
    bad = ~(numbers >= 0) | (numbers % 1 != 0) | (numbers >= 2**62)
    if bad.any():
        value = table["index"].iloc[_first(bad) - 1]
        raise MetadataError(
            f"metadata file {path}, row {_first(bad)}: the index {str(value)[:40]!r} is no data-set index; expected a "
            "whole number from 0"
        )
    table["index"] = numbers.astype("int64")
    repeats = table[table.duplicated(["split", "index"])]
    if len(repeats):
        row = repeats.iloc[0]
        raise MetadataError(f"metadata file {path} describes {row['split']} index {row['index']} more than once")


def _first(bad: pd.Series[bool]) -> int:
    """Number of the first bad row, as people count."""
    return int(bad.to_numpy().argmax()) + 1
