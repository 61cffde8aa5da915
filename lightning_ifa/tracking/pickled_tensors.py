"""Read what ``torch.save`` stored, without torch: raw storages, and a pickle about them.

Nothing of the pickle is run: it is read as a tree of names and tensors, in which foreign classes and functions are
empty stand-ins.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np

from lightning_ifa.data.untrusted_files import FREE
from lightning_ifa.errors import FileError
from lightning_ifa.model.weights_digest import RawTensor
from lightning_ifa.tracking.stored_tensors import BYTES, as_tensor, open_archive

STORAGES = {
    "BoolStorage": "bool", "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16",
    "IntStorage": "int32", "LongStorage": "int64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32", "DoubleStorage": "float64", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": "",
}  # fmt: skip
"""The dtype of each class of storages; an untyped one leaves it to its tensors."""


class UnreadableTensor:
    """In place of a tensor without plain bytes: sparse, quantised, without storage, or of a class with its own form."""

    def __init__(self, *_: Any) -> None:
        pass


class _StandIn:
    """In place of an object of a class that nobody here wants to run."""

    def __new__(cls, *arguments: Any, **_: Any) -> _StandIn:
        self = object.__new__(cls)
        if arguments:  # traced modules are rebuilt from their attributes
            self.__setstate__(arguments[0])
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        parts = [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, dict)]
        if parts:
            self.__dict__ = parts[0]  # not a copy: a file may ask for any number of them

    def __call__(self, *_: Any, **__: Any) -> _StandIn:
        return _StandIn()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an entry of a list-like object."""

    def extend(self, values: Any) -> None:
        """Take entries of a list-like object."""

    def add(self, value: Any) -> None:
        """Take an entry of a set-like object."""


class _Names(list[Any]):
    """In place of a set: hashing what a file holds may take for ever."""

    add = list.append


def read_pickled(path: Path) -> Any:
    """Read what ``torch.save`` stored: plain containers, ``RawTensor`` for a tensor, stand-ins for all else.

    Raises:
        FileError: It is a TorchScript archive, or its pickle is too large.
        Exception: It is damaged, in one of many ways.
    """
    with open_archive(path) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = about.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise FileError(f"{path} is a TorchScript archive, which cannot be read without running it")
        if archive.getinfo(about).file_size > FREE:
            raise FileError(f"{path} holds more than {FREE:,} bytes beside its tensors, which is not read")
        order = archive.read(f"{folder}byteorder").decode() if f"{folder}byteorder" in names else "little"
        return _Unpickler(
            io.BytesIO(archive.read(about)), lambda key: archive.read(f"{folder}data/{key}"), order != sys.byteorder
        ).load()


class _Storage(NamedTuple):
    dtype: str
    stored: bytes


class _Unpickler(pickle._Unpickler):
    """Reads tensors and plain containers; everything else becomes a stand-in.

    The reader in Python, since the one in C takes memory for whatever number stands in the file. A few bytes can ask
    for a hash of nested tuples, which takes for ever, for copies without end, or for another attribute of what is known
    here; so keys are names and numbers, nothing is copied, and states are for stand-ins.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {
        code: read for code, read in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _StandIn):
            self.stack[-1].__setstate__(state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._enter([key, value])

    def _set_items(self) -> None:
        self._enter(self.pop_mark())

    def _enter(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, (str, int)):
                target[key] = value

    def _empty_set(self) -> None:
        self.stack.append(_Names())

    def _frozen_set(self) -> None:
        self.stack.append(self.pop_mark())

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._enter(items)

    dispatch |= {
        pickle.BUILD[0]: _build, pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items,
        pickle.EMPTY_SET[0]: _empty_set, pickle.FROZENSET[0]: _frozen_set, pickle.DICT[0]: _dict,
    }  # fmt: skip

    def __init__(self, file: IO[bytes], read: Callable[[str], bytes], swapped: bool) -> None:
        super().__init__(file, encoding="utf-8")
        self._read, self._swapped = read, swapped
        self._storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage | None:
        _, dtype, key, _, length = pid
        if not isinstance(key, str):
            raise ValueError("a storage without a name")
        if not isinstance(dtype, str) or (dtype not in BYTES and dtype != ""):
            return None  # of a quantised tensor
        if key not in self._storages:
            stored = self._read(key)
            if len(stored) != length * (BYTES[dtype] if dtype else 1):
                raise ValueError(f"the storage {key} has another size than is said of it")
            if self._swapped and dtype:
                unit = BYTES[dtype] // (2 if dtype.startswith("complex") else 1)
                stored = np.frombuffer(stored, f"u{unit}").byteswap().tobytes()
            self._storages[key] = _Storage(dtype, stored)
        return self._storages[key]

    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is not None:
            return found
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in BYTES:
            return name
        if name.startswith("_rebuild_") or module == "torch.nn.parameter":
            return UnreadableTensor
        return _make_class if name.startswith("_make_skeleton") else _StandIn


def _make_class(*_: Any, **__: Any) -> type[_StandIn]:
    return _StandIn


def _make_names(items: Any = ()) -> Any:
    return items if isinstance(items, list) else _Names()


def _make_dict(*items: Any) -> OrderedDict[Any, Any]:
    if items:
        raise ValueError("a dictionary in a form that PyTorch does not write")
    return OrderedDict()


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any) -> Any:
    dtype = storage.dtype or next(part for part in rest if isinstance(part, str))
    views = [part for part in rest if isinstance(part, dict) and {"conj", "neg"} & set(part)]
    return UnreadableTensor() if views else as_tensor(dtype, storage.stored, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor if isinstance(tensor, RawTensor) else UnreadableTensor()


def _rebuild_plain(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Rebuild a tensor of a subclass, or with attributes of its own, as a plain one."""
    return _rebuild_tensor(*arguments) if function is _rebuild_tensor else UnreadableTensor()


_KNOWN: dict[tuple[str, str], Any] = {
    ("builtins", "set"): _make_names,
    ("__builtin__", "set"): _make_names,
    ("collections", "OrderedDict"): _make_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_plain,
}
