"""What the user's objects hold beside the global generators: found by walking through them, and put back.

Generators are looked for in everything that an object reaches. Attributes, and the lists, dicts, tensors and arrays
behind them, are put back only for modules, samplers, functions' objects and classes of the user's own: objects of other
packages may stand for files and connections, whose past cannot be had back. Data sets keep what they have read: caches
would be filled again and again.
"""

from __future__ import annotations

import functools
import random
import sys
import sysconfig
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from lightning_ifa.errors import IFAWarning

GENERATORS = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, random.Random, torch.Generator)

MOST_OBJECTS = 50_000
"""Objects that are looked at; a data set that reaches more is not walked through to its end."""

LONGEST = 1_000
"""Entries of a list or dict that are looked into; the data themselves are longer than lists of transforms."""

LONGEST_COPIED = 100_000
"""Entries of a list, dict or set that is copied, so that it can be put back."""

MOST_BYTES = 2**28
"""Bytes of tensors and arrays that are copied, so that they can be put back."""

_INTERNAL = frozenset(vars(nn.Module())) - {"training", "_buffers"}
_STRANGERS = frozenset({"lightning", "pytorch_lightning", "lightning_fabric", "lightning_ifa", "mlflow", "logging"}) | {
    "threading", "multiprocessing", "concurrent", "asyncio", "queue", "pandas", "matplotlib", "PIL", "h5py"
}  # fmt: skip
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, range, torch.dtype, torch.device)
_CONTAINERS = (list, dict, set, deque, bytearray)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Thread, threading.Condition)

Restore = Callable[[], None]


@contextmanager
def preserve(*objects: Any) -> Iterator[None]:
    """Put back what a block changes in modules, samplers or transforms: generators, attributes, what these hold."""
    with _put_back(_snapshot(objects)):
        yield


@contextmanager
def preserve_generators(*objects: Any) -> Iterator[None]:
    """Put the generators that some objects reach back to their states after a block, also after an error."""
    with _put_back([restore for each in find_generators(*objects) if (restore := _generator(each)) is not None]):
        yield


@contextmanager
def _put_back(restores: list[Restore]) -> Iterator[None]:
    try:
        yield
    finally:
        failed = [error for error in map(_attempt, reversed(restores)) if error is not None]
        if failed:
            warnings.warn(f"what a pass changed could not be put back: {failed[0]}", IFAWarning, stacklevel=4)


def find_generators(*objects: Any) -> list[Any]:
    """Find the generators that some objects reach, each once, in an order that depends on the objects only."""
    return [each for each, _ in _walk(objects) if isinstance(each, GENERATORS)]


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of any of ``GENERATORS``, with 32 bits."""
    seed %= 2**32
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, (np.random.Generator, np.random.BitGenerator)):
        bits: Any = getattr(generator, "bit_generator", generator)
        bits.state = type(bits)(seed).state
    else:
        generator.seed(seed)


def _attempt(restore: Restore) -> Exception | None:
    try:
        restore()
    except Exception as error:  # whatever a user's class or a rare kind of tensor throws: the others are put back
        return error
    return None


def _snapshot(objects: tuple[Any, ...]) -> list[Restore]:
    restores: list[Restore] = []
    bytes_left = MOST_BYTES
    for each, keeps in _walk(objects):
        restore: Restore | None = None
        if isinstance(each, GENERATORS):
            restore = _generator(each)
        elif not keeps:
            continue
        elif isinstance(each, (Tensor, np.ndarray)):
            if each.nbytes <= bytes_left:
                restore = _values(each)
                bytes_left -= each.nbytes
        elif isinstance(each, _CONTAINERS):
            restore = _content(each) if len(each) <= LONGEST_COPIED else None
        elif hasattr(each, "__dict__"):
            restore = functools.partial(_reset_attributes, each, _attributes(each))
        if restore is not None:
            restores.append(restore)
    return restores


def _walk(objects: tuple[Any, ...]) -> Iterator[tuple[Any, bool]]:
    """Go through everything that some objects reach, breadth first; beside each, whether to put it back as a whole."""
    waiting: deque[tuple[Any, bool]] = deque((each, _is_kept(each)) for each in objects)
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id stands for two objects
    while waiting and len(seen) < MOST_OBJECTS:
        each, keeps = waiting.popleft()
        if isinstance(each, _ATOMS) or id(each) in seen or _is_strange(each):
            continue
        seen[id(each)] = each
        yield each, keeps
        for child in _children(each):
            if not isinstance(child, _ATOMS):
                inherits = isinstance(child, (*_CONTAINERS, tuple, Tensor, np.ndarray))
                waiting.append((child, keeps if inherits else _is_kept(child)))


def _children(each: Any) -> Iterator[Any]:
    if isinstance(each, (Tensor, np.ndarray, bytearray, *GENERATORS)):
        return
    if isinstance(each, (list, tuple, set, frozenset, deque)):
        yield from each if len(each) <= LONGEST else ()
    elif isinstance(each, dict):
        yield from list(each.values()) if len(each) <= LONGEST else ()
    elif isinstance(each, functools.partial):
        yield from (each.func, each.args, each.keywords)
    elif isinstance(each, MethodType):
        yield from (each.__self__, each.__func__)
    elif isinstance(each, FunctionType):
        yield from _of_function(each)
    elif isinstance(each, nn.Module):
        yield from each._modules.values()
        yield from each.buffers(recurse=False)
    if hasattr(each, "__dict__"):
        yield from _attributes(each).values()
        yield from _of_class(type(each))


def _of_function(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (each for each in function.__globals__.values() if isinstance(each, GENERATORS))


def _of_class(kind: type) -> Iterator[Any]:
    """Generators that the user's classes hold, or the files that these stand in."""
    for base in kind.__mro__:
        if _is_users_own(base):
            module = getattr(sys.modules.get(base.__module__), "__dict__", {})
            yield from (each for each in [*vars(base).values(), *module.values()] if isinstance(each, GENERATORS))


def _attributes(each: Any) -> dict[str, Any]:
    found: Mapping[str, Any] = vars(each)
    if isinstance(each, nn.Module):
        return {name: value for name, value in found.items() if name not in _INTERNAL}
    return dict(found)


def _is_kept(each: Any) -> bool:
    """Whether an object's attributes are put back."""
    if isinstance(each, nn.Module):
        return True
    if isinstance(each, (FunctionType, MethodType, functools.partial, tuple)):
        return isinstance(each, tuple)
    if isinstance(each, (*_CONTAINERS, Tensor, np.ndarray)):
        return True
    if not hasattr(each, "__dict__") or any(isinstance(value, _LOCKS) for value in vars(each).values()):
        return False
    return not isinstance(each, Dataset) and (isinstance(each, Sampler) or callable(each) or _is_users_own(type(each)))


def _is_strange(each: Any) -> bool:
    kind = type(each)
    if isinstance(each, nn.Module):
        return False
    if isinstance(each, (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)):
        return True
    return any(base.__module__.partition(".")[0] in _STRANGERS for base in kind.__mro__)


def _is_users_own(kind: type) -> bool:
    """Whether a class comes from the user's files rather than from an installed package."""
    if kind.__module__ == "__main__":
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and not file.startswith(_INSTALLED)


def _generator(generator: Any) -> Restore | None:
    if isinstance(generator, random.SystemRandom):
        return None
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    if isinstance(generator, (np.random.Generator, np.random.BitGenerator)):
        bits: Any = getattr(generator, "bit_generator", generator)
        return functools.partial(setattr, bits, "state", bits.state)
    return functools.partial(generator.set_state, generator.get_state())


def _values(each: Any) -> Restore | None:
    try:
        with torch.inference_mode(False), torch.no_grad():
            copy = each.detach().clone() if isinstance(each, Tensor) else each.copy()
    except Exception:  # a tensor of a rare kind
        return None
    reset: Callable[[Any, Any], None] = _reset_tensor if isinstance(each, Tensor) else _reset_array
    return functools.partial(reset, each, copy)


def _reset_tensor(tensor: Tensor, copy: Tensor) -> None:
    if tensor.shape == copy.shape and torch.equal(tensor, copy):
        return  # a change in place, even to the same values, may upset a graph that the user keeps
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape == copy.shape:
            tensor.copy_(copy)
        else:
            tensor.data = copy


def _reset_array(array: np.ndarray[Any, Any], copy: np.ndarray[Any, Any]) -> None:
    if array.flags.writeable:
        array[...] = copy


def _content(each: Any) -> Restore:
    copy = dict(each) if isinstance(each, dict) else list(each) if not isinstance(each, bytearray) else bytes(each)
    return functools.partial(_reset_content, each, copy)


def _reset_content(each: Any, copy: Any) -> None:
    if isinstance(each, dict):
        if len(each) != len(copy) or any(key not in each or each[key] is not copy[key] for key in copy):
            dict.clear(each)
            dict.update(each, copy)
    elif isinstance(each, (list, deque)):
        if len(each) != len(copy) or any(a is not b for a, b in zip(each, copy, strict=True)):
            each.clear()
            each.extend(copy)
    elif isinstance(each, bytearray):
        each[:] = copy
    elif len(each) != len(copy) or any(one not in each for one in copy):
        each.clear()
        each.update(copy)


def _reset_attributes(each: Any, before: dict[str, Any]) -> None:
    now = vars(each)
    for name in [name for name in _attributes(each) if name not in before]:
        now.pop(name, None)
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value
