"""The digest of the weights in a file, for whoever has a record and must know whether it is theirs.

Nothing of the file is run: a module that was pickled whole is read as a tree of names and tensors, in which foreign
classes and functions are empty stand-ins.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ifa.data.untrusted_files import file_errors, require_memory, require_regular
from lightning_ifa.errors import FileError
from lightning_ifa.model.weights_digest import RawTensor, digest_raw, raw_tensor
from lightning_ifa.tracking.pickled_tensors import UnreadableTensor, read_pickled
from lightning_ifa.tracking.stored_tensors import BYTES, list_exported_tensors, list_safe_tensors

if TYPE_CHECKING:
    import torch

WEIGHTS_TAG = "ifa.weights"
"""Tag of a run and of a logged model: the digest of the weights that the numbers beside it were measured on."""

FILES = ("model.pth", "model.pt2", "state_dict.pth", "model.safetensors")
"""Names of the file with the weights in an MLflow model, in the order in which they are looked for."""

MOST_TENSORS = 100_000
"""Names of modules and tensors that are read of a pickled module; modules that hold one another may have any number."""

LONGEST_NAME = 2_000


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
    """Digest the weights of a file; torch is not imported, but for files as PyTorch wrote them before 1.6.

    Args:
        path: Path of a Lightning checkpoint, a state dict, a pickled or an exported module, or a safetensors file.

    Returns:
        The digest, as of ``model.weights_digest.digest_weights``.

    Raises:
        FileError: It is no such file, or its weights cannot be read without running it.
    """
    return digest_raw(read_weights(Path(path)))


def read_state(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by name, on the CPU, and run nothing of it; see ``digest_file``.

    Raises:
        FileError: It is no such file, or its weights cannot be read without running it.
    """
    import torch

    def tensor(raw: RawTensor) -> torch.Tensor:
        dtype, stored = getattr(torch, raw.dtype), bytearray(raw.values.tobytes())
        return (
            torch.frombuffer(stored, dtype=dtype).reshape(raw.shape) if stored else torch.empty(raw.shape, dtype=dtype)
        )

    return {name: tensor(raw) for name, raw in read_weights(Path(path)).items()}


def read_weights(path: Path) -> dict[str, RawTensor]:
    """Read the tensors of a file by name, and run nothing of it; see ``digest_file``.

    Raises:
        FileError: It is no such file, or its weights cannot be read without running it.
    """
    with file_errors(path, "a file with weights that can be read without running it"):
        size = require_regular(path)
        found = dict(_entries(path))
        unreadable = [name for name, value in found.items() if not isinstance(value, RawTensor)]
        if unreadable:
            raise ValueError(f"the tensor {unreadable[0]} has no bytes to read")
        if not found:
            raise ValueError("it holds no tensors by name")
        require_memory(path, sum(math.prod(raw.shape) * BYTES[raw.dtype] for raw in found.values()), size)
    return found


def _entries(path: Path) -> Iterable[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        return list_safe_tensors(path)
    if path.suffix == ".pt2":
        return list_exported_tensors(path)
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    content = read_pickled(path) if is_archive else _read_old(path)
    if not isinstance(content, Mapping):
        return _module_tensors(content).items()
    state = content.get("state_dict", content)
    return ((str(name), value) for name, value in state.items() if isinstance(value, (RawTensor, UnreadableTensor)))


def _read_old(path: Path) -> Any:
    """Read a state dict as PyTorch stored it before 1.6."""
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(entry) for name, entry in value.items()}
        return raw_tensor("", value) if torch.is_tensor(value) else value

    return plain(torch.load(path, map_location="cpu", weights_only=True))


def _module_tensors(module: Any) -> dict[str, Any]:
    """Give parameters and persistent buffers of a module as ``state_dict`` names them.

    Raises:
        ValueError: There are too many, of modules that hold one another.
    """
    found: dict[str, Any] = {}
    waiting, seen = [("", module)], 0
    while waiting:
        prefix, each = waiting.pop()
        content = getattr(each, "__dict__", {})
        passing = content.get("_non_persistent_buffers_set", ())
        own = [*content.get("_parameters", {}).items(), *content.get("_buffers", {}).items()]
        seen += 1 + len(own) + len(passing)
        if seen > MOST_TENSORS or len(prefix) > LONGEST_NAME:
            raise ValueError(f"more than {MOST_TENSORS:,} modules and tensors, or a name without end")
        found |= {prefix + name: value for name, value in own if value is not None and name not in passing}
        children = content.get("_modules", {}).items()
        waiting += [(f"{prefix}{name}.", child) for name, child in children if child is not None]
    return found
