"""Several outputs explained together, as one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_ifa.errors import OutputError


@dataclass(frozen=True)
class OutputGroup:
    """A task function whose score is the mean of some outputs, for ``analyze(..., task=OutputGroup((0, 3, 4)))``.

    A score that is a mean has the mean of the maps and contributions: they are linear in the score.

    Args:
        columns: Numbers of the outputs, counted from 0.

    Raises:
        OutputError: No output is named; or, when it is called, the network has no such output.

    >>> OutputGroup((0, 2))(torch.tensor([[1.0, 5.0, 3.0]]), None)
    tensor([2.])
    """

    columns: Sequence[int]

    def __post_init__(self) -> None:
        if not len(self.columns):
            raise OutputError("an OutputGroup names no output; give the numbers of one or more")

    def __call__(self, output: Any, target: Any) -> Tensor:
        """Give the mean of the group's outputs of each sample, ``(n,)``."""
        if (
            not torch.is_tensor(output)
            or output.dim() < 2
            or not 0 <= min(self.columns) <= max(self.columns) < (output.shape[1])
        ):
            form = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
            raise OutputError(f"the outputs {list(self.columns)} are asked for; the network's output is {form}")
        chosen = output[:, list(self.columns)].flatten(2) if output.dim() > 2 else output[:, list(self.columns), None]
        return chosen.mean((1, 2))
