"""The two Lightning packages: their classes are unrelated, and one callback serves both."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def callback_bases() -> tuple[Any, ...]:
    """The ``Callback`` classes of ``pytorch_lightning`` and ``lightning``, as far as installed.

    Either trainer takes a foreign callback in a list, but neither as a bare object or through its command line.
    """
    names = ("pytorch_lightning", "lightning.pytorch")
    found = [name for name in names if find_spec(name.partition(".")[0]) is not None]
    return tuple(import_module(name).Callback for name in found)
