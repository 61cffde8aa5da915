"""MetaImage, ``.mhd`` and ``.raw``: the format of LUNA16. Big volumes stay on disk until a part is asked for."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.errors import FileError

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a ``.mhd`` file says; axes in its own order x, y, z.

    Attributes:
        size: Voxels along each axis.
        spacing: Millimetres between voxels.
        origin: World position of the first voxel's centre, in mm.
        direction: ``(3, 3)``, row i is the world direction of axis i.
        dtype: Of the elements, with byte order.
        compressed: Whether the data are one zlib stream.
        data: The file of the elements.
    """

    size: tuple[int, ...]
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]
    dtype: np.dtype
    compressed: bool
    data: Path

    def voxel(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """World position in mm to a position in voxels, both ``(..., 3)`` as x, y, z."""
        return ((world - self.origin) @ self.direction.T) / self.spacing

    def world(self, voxel: NDArray[np.float64]) -> NDArray[np.float64]:
        """The way back."""
        return (voxel * self.spacing) @ self.direction + self.origin


def read_header(path: Path) -> Header:
    """Read a ``.mhd`` file, and see whether its data are there and whole.

    Raises:
        FileError: It is missing, of another kind, or its data are missing or too short.
    """
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        header = _header(path, said)
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing") from error
    except (OSError, KeyError, ValueError) as error:
        raise FileError(f"{path} is no readable MetaImage header: {type(error).__name__} {error}") from error
    if not header.data.is_file():
        raise FileError(f"{path}: its data {header.data.name} are missing")
    size, whole = header.data.stat().st_size, int(np.prod(header.size)) * header.dtype.itemsize
    if not header.compressed and size < whole:
        raise FileError(f"{header.data} holds {size} bytes; {header.size} voxels need {whole}")
    return header


def read_volume(header: Header) -> NDArray[np.generic]:
    """Give the voxels as ``(z, y, x)``; uncompressed data are mapped, not read.

    Raises:
        FileError: The compressed data are damaged.
    """
    shape = header.size[::-1]
    if not header.compressed:
        return np.memmap(header.data, header.dtype, "r", shape=shape)
    try:
        content = zlib.decompress(header.data.read_bytes())
        return np.frombuffer(content, header.dtype, count=int(np.prod(shape))).reshape(shape)
    except (zlib.error, ValueError) as error:
        raise FileError(f"{header.data} cannot be decompressed: {error}") from error


def write_volume(
    path: Path, voxels: NDArray[np.int16], spacing: NDArray[np.float64], origin: NDArray[np.float64]
) -> None:
    """Write ``(z, y, x)`` int16 voxels as ``.mhd`` and ``.raw``; spacing and origin as x, y, z in mm."""
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": " ".join(map(str, origin)),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, voxels.shape[::-1])),
        "ElementType": "MET_SHORT",
        "ElementDataFile": path.with_suffix(".raw").name,
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    path.with_suffix(".raw").write_bytes(voxels.astype("<i2").tobytes())


def _header(path: Path, said: dict[str, str]) -> Header:
    size = tuple(int(word) for word in said["DimSize"].split())
    name = said["ElementDataFile"]
    if len(size) != 3 or said["ElementType"] not in TYPES or int(said.get("ElementNumberOfChannels", "1")) != 1:
        raise ValueError(f"only scalar volumes can be read, this is {said['DimSize']} of {said['ElementType']}")
    if Path(name).name != name or name.upper().startswith(("LOCAL", "LIST")):
        raise ValueError(f"data must lie in one file beside the header, not in {name!r}")
    big = _true(said, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    return Header(
        size,
        _numbers(said, "1 1 1", "ElementSpacing", "ElementSize"),
        _numbers(said, "0 0 0", "Offset", "Position", "Origin"),
        _numbers(said, "1 0 0 0 1 0 0 0 1", "TransformMatrix", "Rotation", "Orientation").reshape(3, 3),
        np.dtype((">" if big else "<") + TYPES[said["ElementType"]]),
        _true(said, "CompressedData"),
        path.with_name(name),
    )


def _numbers(said: dict[str, str], default: str, *names: str) -> NDArray[np.float64]:
    text = next((said[name] for name in names if name in said), default)
    return np.array([float(word) for word in text.split()])


def _true(said: dict[str, str], *names: str) -> bool:
    return any(said.get(name, "").lower() == "true" for name in names)
