"""Read files that others may have written: nothing is unpickled, and sizes are checked before memory is taken."""

from __future__ import annotations

import io
import json
import math
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_ifa.errors import FileError

MOST_TEXT = 2**24
"""Bytes of a JSON file at most, 16 MiB: the largest report that was ever written has less than one."""

FREE = 2**26
"""Bytes that any file may unpack to, 64 MiB: less than importing torch takes."""

RATIO = 20
"""Bytes that each further byte of a file may unpack to. Maps that are zero nearly everywhere reach about 10; a file
that was made to fill the memory reaches 1,000."""

CELL = 8
"""Bytes that a value of a table is counted with."""


@contextmanager
def file_errors(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into one error that names the file.

    Args:
        path: The file or folder.
        what: What it should be, with its article.

    Raises:
        FileError: Anything was raised within the block.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # zip, NumPy, Arrow and JSON raise a dozen types between them, RecursionError included
        raise FileError(f"{path} is not {what}: {str(error) or type(error).__name__}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileError: It is no regular file, larger than 16 MiB, or not JSON.
    """
    with file_errors(path, "a readable JSON file"):
        require_regular(path, MOST_TEXT)
        return json.loads(path.read_text(encoding="utf-8"))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file.

    Raises:
        FileError: The file is damaged, holds Python objects, or would unpack to more than its size explains.
    """
    with file_errors(path, "a readable file of arrays (.npz)"):
        size = require_regular(path)
        with zipfile.ZipFile(path) as archive:
            require_memory(path, sum(member.file_size for member in archive.infolist()), size)
            require_memory(path, sum(_array_bytes(archive, member) for member in archive.infolist()), size)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def read_table(content: Path | bytes, name: Path) -> pd.DataFrame:
    """Read a Parquet table.

    Args:
        content: The file, or its bytes.
        name: The file that it comes from, for the error.

    Raises:
        FileError: It is damaged, or would unpack to more than its size explains.
    """
    with file_errors(name, "a readable table (Parquet)"):
        size = require_regular(content) if isinstance(content, Path) else len(content)
        source: Any = content if isinstance(content, Path) else io.BytesIO(content)
        with pq.ParquetFile(source) as file:
            about = file.metadata
            packed = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            require_memory(name, max(packed, about.num_rows * about.num_columns * CELL), size)
            frame: pd.DataFrame = file.read(use_threads=False).to_pandas()
        return frame


def require_regular(path: Path, most: float = math.inf) -> int:
    """Give the size of a regular file in bytes; a pipe would never end, and a link may lead anywhere.

    Raises:
        FileError: It is missing, something else than a regular file, or too large.
    """
    with file_errors(path, "there"):
        found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{path} is not a regular file; links, pipes and devices are not read")
    if found.st_size > most:
        raise FileError(f"{path} has {found.st_size:,} bytes; at most {most:,.0f} are read")
    return found.st_size


def require_memory(path: Path, needed: int, size: int) -> None:
    """Make sure that a file's size explains what it would unpack to.

    Args:
        path: The file, for the error.
        needed: Bytes that it would unpack to.
        size: Bytes that it has.

    Raises:
        FileError: It would unpack to more than ``FREE`` bytes and ``RATIO`` for each of its own.
    """
    if needed > FREE + RATIO * size:
        raise FileError(
            f"{path} has {size:,} bytes and would unpack to {needed:,}; more than {FREE + RATIO * size:,} is not read"
        )


def require_folder(folder: Path, create: bool = True) -> None:
    """Make sure that files can be written to a folder, before the work whose result they will hold.

    Args:
        folder: The folder; it is not made.
        create: Whether it may be made later, so that a folder above it will do.

    Raises:
        FileError: It cannot be made, is none, or may not be written to.
    """
    there = folder.absolute()
    while create and not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise FileError(f"nothing can be written to {folder}: {error.strerror or error}") from None


def _array_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Size of one array, as its header has it."""
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    return math.prod(shape) * dtype.itemsize


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
