"""Files that list their tensors: safetensors, exported modules, and the archive that PyTorch keeps storages in.

What a file says of a tensor is checked against the bytes that are there before it is believed.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lightning_ifa.data.untrusted_files import MOST_TEXT, require_memory, require_regular
from lightning_ifa.errors import FileError
from lightning_ifa.model.weights_digest import RawTensor

BYTES = {
    "bool": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of an element, by the name of torch's dtype."""

EXPORTED = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
}  # fmt: skip
"""Numbers of the dtypes in the schema of ``torch.export``."""

SAFE = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
"""Names of the dtypes in safetensors."""


MOST_AXES = 64


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive as PyTorch writes it: members stored as they are, each name once, nothing before or after.

    Raises:
        FileError: It is another archive, so that other readers might find other members in it.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        require_memory(path, sum(member.file_size for member in members), require_regular(path))
        plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        once = len({member.filename.casefold() for member in members}) == len(members)
        if not (plain and once) or archive.comment or min(member.header_offset for member in members) > 0:
            raise FileError(f"{path} is an archive of a form that PyTorch does not write")
        yield archive


def as_tensor(
    dtype: str, stored: bytes | memoryview, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> RawTensor:
    """See bytes as a tensor.

    Args:
        dtype: Name of torch's dtype.
        stored: All bytes of its storage.
        offset: Where it begins, in elements.
        shape: Its shape.
        strides: Steps between its entries, in elements.

    Raises:
        ValueError: It would reach beyond the storage.
    """
    size = BYTES[dtype]
    if len(shape) > MOST_AXES:
        raise ValueError("a tensor of more axes than there can be")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor of impossible shape")
    if not math.prod(shape):
        return RawTensor(dtype, shape, np.empty(0, f"V{size}"))
    last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if (last + 1) * size > len(stored):
        raise ValueError("a tensor that reaches beyond its storage")
    begin = np.frombuffer(stored, f"V{size}", offset=offset * size, count=1)
    return RawTensor(dtype, shape, as_strided(begin, shape, [step * size for step in strides], writeable=False))


def list_safe_tensors(path: Path) -> Iterator[tuple[str, RawTensor]]:
    """List the tensors of a safetensors file: a length, JSON with dtypes, shapes and places, and the bytes.

    Raises:
        Exception: It is damaged, in one of many ways.
    """
    content = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if start > min(len(content), MOST_TEXT):
        raise ValueError("its head is longer than the file, or than is read")
    for name, about in json.loads(bytes(content[8:start])).items():
        if name != "__metadata__":
            dtype, shape, (begin, end) = SAFE[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
            if not 0 <= begin <= end <= len(content) - start or end - begin != math.prod(shape) * BYTES[dtype]:
                raise ValueError(f"the tensor {name} has another size than is said of it")
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            yield name, as_tensor(dtype, content[start + begin : start + end], 0, shape, strides)


def list_exported_tensors(path: Path) -> Iterator[tuple[str, RawTensor]]:
    """List what ``torch.export.save`` stored: the bytes of each storage, and a table of names, dtypes and shapes.

    Raises:
        FileError: Weights are pickled.
        Exception: It is damaged, in one of many ways.
    """
    with open_archive(path) as archive:
        (table,) = (name for name in archive.namelist() if name.endswith("data/weights/model_weights_config.json"))
        for name, entry in json.loads(archive.read(table))["config"].items():
            about = entry["tensor_meta"]
            if entry["use_pickle"]:
                raise FileError(f"{path}: the weights {name} are pickled, which cannot be read without running it")
            stored = archive.read(f"{table.rpartition('/')[0]}/{entry['path_name']}")
            shape, strides = (tuple(size["as_int"] for size in about[key]) for key in ("sizes", "strides"))
            offset = about["storage_offset"]["as_int"]
            yield name, as_tensor(EXPORTED[about["dtype"]], stored, offset, shape, strides)
