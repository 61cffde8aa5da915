"""IDX, the format of MNIST: a big-endian header and unsigned bytes, often gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.errors import FileError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes of any rank, plain or gzipped (yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        FileError: It is missing, of another kind or element type, or holds fewer or more bytes than it says.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
    except (OSError, EOFError, struct.error) as error:
        raise FileError(f"{path} is no readable IDX file: {error}") from error
    if zeros or kind != UNSIGNED_BYTE:
        raise FileError(f"{path} is no IDX file of unsigned bytes: it starts with {content[:4].hex()}")
    found = len(content) - 4 - 4 * rank
    if found != int(np.prod(shape)):
        raise FileError(f"{path} holds {found} bytes; its header says {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write unsigned bytes of any rank, gzipped where the name ends in ``.gz``."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UNSIGNED_BYTE, values.ndim, *values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
