"""Where a network is cut: one call of one module, and how its output becomes maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ifa.errors import LayerError

Reshape = Callable[[Tensor], Tensor]
"""From a layer's output to maps ``(n, c, *space)``; only picks and moves entries, sample by sample."""


@dataclass(frozen=True, eq=False)
class TargetLayer:
    """One call of one module, or of an activation function in a module's own forward.

    Attributes:
        name: Name of the layer in messages and tables.
        module: The module.
        call: Which of its calls in a forward pass, from 0; None where there is one only.
        reshape: Takes maps from an output of another form, as tokens; None where the output is ``(n, c, *space)``.
        function: Name of a function, as ``relu``, if what it returns inside the module is meant.
        rows: Rows of the output that belong to one sample: more than 1 where slices or frames lie in the batch axis.
            ``reshape`` then takes ``(n, rows, ...)``.
        inputs: The input's axes that the maps' axes follow; empty where that is not known.
        batch_axis: Axis of the output that holds the samples; ``reshape`` gets it as the first.
    """

    name: str
    module: nn.Module
    call: int | None = None
    reshape: Reshape | None = None
    function: str | None = None
    rows: int = 1
    inputs: tuple[int, ...] = ()
    batch_axis: int = 0
    _known: dict[tuple[int, ...], tuple[Tensor, torch.Size]] = field(default_factory=dict, repr=False)

    def is_at(self, turn: int) -> bool:
        """Whether the module's call number ``turn`` of this forward pass, from 0, is meant.

        Raises:
            LayerError: The module runs again, and it is not said which call is meant.
        """
        if self.call is None and turn > 0:
            raise LayerError(
                f'layer "{self.name}" runs more than once in one forward pass, so it has no single activation; '
                f'name one of its calls, "{self.name}#0", "{self.name}#1", ..., or the module that contains it'
            )
        return self.call in (None, turn)

    def read(self, output: Any) -> Tensor:
        """Take the maps from what the module returned, ``(n, c, *space)``.

        Raises:
            LayerError: The module returns no floating-point tensor, or ``reshape`` does more than pick and move.
        """
        output = first_output(output)
        if not torch.is_tensor(output) or not output.is_floating_point():
            kind = f"{output.dtype} tensor" if torch.is_tensor(output) else type(output).__name__
            raise LayerError(
                f'layer "{self.name}" returns a {kind}; a map needs a floating-point tensor (batch, channels, *space), '
                "alone or as the first item of a tuple"
            )
        tensor: Tensor = output
        if self.reshape is None:
            return tensor
        tensor = self.by_sample(tensor)
        positions, shape = self._positions(tensor)
        return tensor.flatten(1)[:, positions].reshape(len(tensor), *shape)

    def write(self, output: Any, maps: Tensor) -> Any:
        """Put maps back into what the module returned; entries that ``reshape`` leaves out stay, as class tokens.

        Maps of one position stand for constant ones.
        """
        if isinstance(output, tuple):
            return type(output)((self.write(output[0], maps), *output[1:]))
        if self.reshape is None:
            return maps.to(output)
        by_sample = self.by_sample(output)
        positions, shape = self._positions(by_sample)
        whole = maps.expand(-1, *shape).flatten(1).to(output)
        written = by_sample.flatten(1).index_copy(1, positions, whole).reshape(by_sample.shape)
        return written.movedim(0, self.batch_axis).reshape(output.shape)

    def as_picture(self, x: Tensor) -> Tensor:
        """Bring inputs to ``(n, channels, *space)``, the space being the axes that the maps follow."""
        if not self.inputs:
            return x
        others = self._other_axes(x)
        moved = x.permute(0, *others, *self.inputs)
        return moved.flatten(1, len(others)) if others else moved[:, None]

    def from_picture(self, picture: Tensor, like: Tensor) -> Tensor:
        """Bring pictures, ``(n, channels, *space)``, back to the form of the inputs ``like``, ``(n, ...)``."""
        if not self.inputs:
            return picture
        order = (0, *self._other_axes(like), *self.inputs)
        moved = picture.reshape(len(picture), *(like.shape[axis] for axis in order[1:]))
        return moved.permute(*(order.index(axis) for axis in range(like.dim())))

    def _other_axes(self, x: Tensor) -> list[int]:
        return [axis for axis in range(1, x.dim()) if axis not in self.inputs]

    def by_sample(self, output: Tensor) -> Tensor:
        """Bring what the module returned, or got, to ``(n, ...)``."""
        if self.batch_axis:
            return output.movedim(self.batch_axis, 0)
        return output if self.rows == 1 else output.reshape(-1, self.rows, *output.shape[1:])

    def _positions(self, output: Tensor) -> tuple[Tensor, torch.Size]:
        """Where in a flattened output each entry of the maps comes from: found by reshaping the positions."""
        shape = tuple(output.shape[1:])
        if shape not in self._known:
            assert self.reshape is not None
            everything = torch.arange(math.prod(shape), dtype=torch.float64).reshape(1, *shape)
            maps = self.reshape(everything)
            if not _picks(maps, everything):
                raise LayerError(
                    f'the reshape of layer "{self.name}" must take maps (batch, channels, *space) from its output '
                    f"(batch, {', '.join(map(str, shape))}) by picking and moving entries only, so that contributions "
                    "add up; it does something else, or returns another shape"
                )
            self._known[shape] = maps.flatten().long(), maps.shape[1:]
        positions, maps_shape = self._known[shape]
        return positions.to(output.device), maps_shape


def first_output(output: Any) -> Any:
    """What a module returns, or the first item of a plain tuple, as attention and recurrent modules return."""
    return output[0] if type(output) is tuple and output else output


def as_target_layer(layer: nn.Module | TargetLayer, name: str = "") -> TargetLayer:
    """A module that runs once and returns maps is a target layer."""
    return layer if isinstance(layer, TargetLayer) else TargetLayer(name or type(layer).__name__, layer)


def plain_name(name: str) -> str:
    """Remove what ``torch.compile`` adds to a module's name."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _picks(maps: Any, everything: Tensor) -> bool:
    """Whether every entry is one of the given ones, none twice."""
    if not torch.is_tensor(maps) or maps.dim() < 3 or len(maps) != 1:
        return False
    found = torch.unique(maps)
    return len(found) == maps.numel() and bool(torch.isin(found, everything).all())
