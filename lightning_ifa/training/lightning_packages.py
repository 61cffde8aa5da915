"""The two Lightning packages: their classes are unrelated, and one callback serves both."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def installed_packages() -> list[str]:
    """Those of the two that can be imported, ``pytorch_lightning`` first."""
    return [name for name in PACKAGES if find_spec(name.partition(".")[0]) is not None]


def package_of(kind: type) -> str:
    """The package whose class this is, or descends from.

    Raises:
        ValueError: It is of neither.
    """
    for base in kind.__mro__:
        for name in PACKAGES:
            if base.__module__.startswith(f"{name}."):
                return name
    raise ValueError(f"{kind.__name__} is no class of Lightning")


def callback_bases() -> tuple[Any, ...]:
    """The ``Callback`` classes of ``pytorch_lightning`` and ``lightning``, as far as installed.

    Either trainer takes a foreign callback in a list, but neither as a bare object or through its command line.
    """
    return tuple(import_module(name).Callback for name in installed_packages())
