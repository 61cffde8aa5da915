"""Let the user's function say how a network is called, for one that is not called as ``model(x)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_ifa.data.batches import replace_input
from lightning_ifa.errors import BatchError

ForwardFunction = Callable[[nn.Module, Any], Any]
"""From the network and a batch, as the loader gives it, to the network's output."""


class BatchForward:
    """Calls the user's function with the current batch, in which the input is whatever the network is to run on.

    So a network of several inputs is explained for one of them, and the others go along sample by sample.

    Args:
        model: The network.
        function: The user's function.
    """

    def __init__(self, model: nn.Module, function: ForwardFunction) -> None:
        self._model, self._function = model, function
        self._batch: Any = None
        self._x: Tensor | None = None

    def begin(self, batch: Any, x: Tensor) -> None:
        """Say which batch is current, and which of its tensors is the input."""
        self._batch, self._x = batch, x

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let ``model(x)`` call the user's function inside the ``with`` block, also where the model has no forward."""
        own = self._model.__dict__.get("forward")
        self._model.forward = self._run_in(own)
        try:
            yield
        finally:
            _restore(self._model, own)

    def _run_in(self, own: Any) -> Callable[[Tensor], Any]:
        def forward(x: Tensor) -> Any:
            _restore(self._model, own)  # the function calls the model itself
            try:
                return self._function(self._model, self._filled(x))
            finally:
                self._model.forward = forward

        return forward

    def _filled(self, x: Tensor) -> Any:
        assert self._x is not None
        count, wanted = len(self._x), len(x)
        if wanted > count and wanted % count and not _repeated.get():
            raise BatchError(f"forward_fn was asked for {wanted} inputs of a batch of {count} samples")
        place = self._x
        filled = replace_input(self._batch, place, _PLACE)

        def fit(value: Any) -> Any:
            if value is _PLACE:
                return value
            if not torch.is_tensor(value):
                return value
            if _repeated.get() and value.dim() and len(value) == count:
                return value[:1].repeat(wanted, *[1] * (value.dim() - 1))
            if not value.dim() or len(value) != count or wanted == count:
                return value.clone()  # the network may change it in place
            return value[:wanted].clone() if wanted < count else value.repeat(wanted // count, *[1] * (value.dim() - 1))

        def roll(value: Any) -> Any:
            return value.roll(1, 0) if torch.is_tensor(value) and value.dim() and len(value) == wanted else value

        aligned = tree_map(fit, filled)
        return replace_input(tree_map(roll, aligned) if _rolled.get() else aligned, _PLACE, x)


_PLACE: Any = torch.empty(0)
"""Stands for the input while the others are brought to its number of samples."""


_rolled: ContextVar[bool] = ContextVar("rolled", default=False)
_repeated: ContextVar[bool] = ContextVar("repeated", default=False)


def roll_other_inputs() -> AbstractContextManager[None]:
    """Let other inputs change places as ``x.roll(1, 0)`` does, for a test of what the output depends on."""
    return _within(_rolled)


def repeat_first_of_other_inputs() -> AbstractContextManager[None]:
    """Let other inputs be those of the first sample, for inputs that are all made of it."""
    return _within(_repeated)


@contextmanager
def _within(switch: ContextVar[bool]) -> Iterator[None]:
    token = switch.set(True)
    try:
        yield
    finally:
        switch.reset(token)


def _restore(model: nn.Module, own: Any) -> None:
    model.__dict__.pop("forward", None)
    if own is not None:
        model.forward = own
