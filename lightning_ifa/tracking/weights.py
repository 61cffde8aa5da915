"""The digest of the weights in a file, for whoever has a record and must know whether it is theirs.

Nothing of the file is run: a module that was pickled whole is read as a tree of names and tensors, in which foreign
classes and functions are empty stand-ins.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightning_ifa.errors import FileError

if TYPE_CHECKING:
    import torch

WEIGHTS_TAG = "ifa.weights"
"""Tag of a run and of a logged model: the digest of the weights that the numbers beside it were measured on."""

FILES = ("model.pth", "model.pt2", "state_dict.pth", "model.safetensors")
"""Names of the file with the weights in an MLflow model, in the order in which they are looked for."""


def digest_model(folder: str | os.PathLike[str]) -> str:
    """Digest the weights of an MLflow model that was downloaded to a folder.

    Args:
        folder: The folder with the file ``MLmodel``.

    Returns:
        The digest, as of ``model.weights_digest.digest_weights``.

    Raises:
        FileError: There is no file with weights, or it cannot be read without running it.
    """
    found = {path.name: path for path in sorted(Path(folder).rglob("*")) if path.name in FILES}
    for name in FILES:
        if name in found:
            return digest_file(found[name])
    raise FileError(f"{folder} holds no PyTorch weights; looked for {', '.join(FILES)}")


def digest_file(path: str | os.PathLike[str]) -> str:
    """Digest the weights of a file.

    Args:
        path: Path of a Lightning checkpoint, a state dict, a pickled or an exported module, or a safetensors file.

    Returns:
        The digest, as of ``model.weights_digest.digest_weights``.

    Raises:
        FileError: It is no such file, or its weights cannot be read without running it.
    """
    from lightning_ifa.model.weights_digest import digest_weights

    try:
        return digest_weights(read_state(path))
    except TypeError as error:
        raise FileError(f"the weights of {path} have no digest: {error}") from error


def read_state(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by name, on the CPU, and run nothing of it; see ``digest_file``.

    Raises:
        FileError: It is no such file, or its weights cannot be read without running it.
    """
    import torch

    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file  # type: ignore[import-not-found]

            return dict(load_file(path))
        if str(path).endswith(".pt2"):
            return dict(_exported_tensors(path))
        if _is_torchscript(path):
            raise FileError(f"{path} is a TorchScript archive, which cannot be read without running it")
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_STAND_INS)
        state = content.get("state_dict", content) if isinstance(content, Mapping) else dict(_tensors(content))
    except FileError:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes a reader throw
        raise FileError(f"the weights of {path} cannot be read: {type(error).__name__}: {error}") from error
    found = {str(name): value for name, value in state.items() if torch.is_tensor(value)}
    if not found:
        raise FileError(f"{path} holds no weights that can be read without running it")
    return found


def _is_torchscript(path: str | os.PathLike[str]) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _exported_tensors(path: str | os.PathLike[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """List what ``torch.export.save`` stored: the bytes of each storage, and a table of names, dtypes and shapes."""
    import torch

    with zipfile.ZipFile(path) as archive:
        (table,) = (name for name in archive.namelist() if name.endswith("data/weights/model_weights_config.json"))
        for name, entry in json.loads(archive.read(table))["config"].items():
            about = entry["tensor_meta"]
            if entry["use_pickle"]:
                raise FileError(f"{path}: the weights {name} are pickled, which cannot be read without running it")
            stored = bytearray(archive.read(f"{table.rpartition('/')[0]}/{entry['path_name']}"))
            sizes, strides = ([size["as_int"] for size in about[key]] for key in ("sizes", "strides"))
            flat = torch.frombuffer(stored, dtype=getattr(torch, _EXPORTED_DTYPES[about["dtype"]]))
            yield name, flat.as_strided(sizes, strides, about["storage_offset"]["as_int"])


_EXPORTED_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
}  # fmt: skip
"""Numbers of the dtypes in the schema of ``torch.export``."""


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List parameters and persistent buffers of a module as ``state_dict`` names them."""
    content = getattr(module, "__dict__", {})
    passing = content.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in content.get(kind, {}).items():
            if value is not None and name not in passing:
                yield prefix + name, value
    for name, child in content.get("_modules", {}).items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


class _StandIn:
    """In place of an object of a class that nobody here wants to run."""

    dump_patches = False

    def __new__(cls, *arguments: Any, **_: Any) -> _StandIn:
        self = object.__new__(cls)
        if arguments and isinstance(arguments[0], dict):  # traced modules are rebuilt from their attributes
            self.__dict__.update(arguments[0])
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)

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


def _make_class(*_: Any, **__: Any) -> type[_StandIn]:
    return type("_StandIn", (_StandIn,), {})


def _rebuild_plain(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    """Rebuild a tensor of a subclass, or with attributes of its own, as a plain one."""
    return function(*arguments)


_PLAIN = {"set", "frozenset", "list", "dict", "tuple", "bytearray", "complex", "int", "float", "str", "bool", "slice"}


class _Unpickler(pickle.Unpickler):
    """Reads tensors and plain containers; everything else becomes a stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        import torch
        from torch import _utils

        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return super().find_class("builtins", name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return getattr(_utils, name)
        if module == "torch._utils" and name == "_rebuild_parameter_with_state":
            return lambda data, *_: data
        if module == "torch._tensor" and name == "_rebuild_from_type_v2":
            return _rebuild_plain
        if module == "torch" and isinstance(getattr(torch, name, None), (torch.dtype, torch.layout)):
            return getattr(torch, name)
        if module == "torch.serialization" and name == "_get_layout":
            return lambda layout: getattr(torch, str(layout).removeprefix("torch."), torch.strided)
        if module == "torch" and (name == "Size" or name.endswith("Storage")):
            return getattr(torch, name)
        return _make_class if name.startswith("_make_skeleton") else _make_class()


_STAND_INS = SimpleNamespace(
    Unpickler=_Unpickler, load=lambda file, **options: _Unpickler(file, **options).load(), __name__="stand_ins"
)
