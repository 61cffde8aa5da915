"""Change one band of the input after another, and see where in each layer's output that is noticed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_ifa.model.batch_forward import repeat_first_of_other_inputs
from lightning_ifa.model.call_watch import CallKey, EndedCall, watch_forward
from lightning_ifa.model.forward import run_with_state

Array = NDArray[np.float64]
BANDS = 4
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Bands:
    """How the input was changed: one row for each band of each of its axes.

    Attributes:
        axis: The input's axis that was cut into bands, for each row.
        centre: Middle of the row's band along that axis, in [0, 1].
    """

    axis: NDArray[np.int64]
    centre: Array


@dataclass(frozen=True)
class Movement:
    """How far a call's output moved.

    Attributes:
        shape: Of the output for one sample; the rows of a sample first where ``rows`` is more than 1.
        rows: Rows of the output that belong to one sample; 0 if its first axis does not hold the samples.
        batch_axis: Axis of the output that holds the samples: 1 where tokens come first, as in ``nn.Transformer``.
        by_channel: For each axis of ``shape`` that may be the channels': root of the summed squared differences over
            that axis, ``(bands, *other axes)``.
    """

    shape: tuple[int, ...]
    rows: int
    by_channel: dict[int, Array]
    batch_axis: int = 0


def cut_bands(x: Tensor, sizes: Mapping[int, int] | None = None) -> tuple[Tensor, Bands]:
    """Change one sample's input in one band after another.

    Args:
        x: Inputs, ``(n, ...)``; the first is used.
        sizes: How many bands along which of the input's axes; by default at most ``BANDS`` along each.

    Returns:
        One changed input a row, and what was changed in it.
    """
    sizes = sizes or {axis: min(BANDS, size) for axis, size in enumerate(x.shape) if axis and size > 1}
    changed = _changed(x[:1])
    rows, axes, centres = [], [], []
    for axis, count in sizes.items():
        edges = np.linspace(0, x.shape[axis], count + 1).round().astype(int)
        for start, end in pairwise(edges):
            row = x[:1].clone()
            row.narrow(axis, int(start), int(end - start)).copy_(changed.narrow(axis, int(start), int(end - start)))
            rows.append(row)
            axes.append(axis)
            centres.append((start + end) / 2 / x.shape[axis])
    return torch.cat(rows), Bands(np.array(axes), np.array(centres))


def _changed(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if not x.is_floating_point():
        return x.flatten()[torch.randperm(x.numel(), generator=generator).to(x.device)].reshape(x.shape)
    spread = float(x.float().std()) if x.numel() > 1 else 1.0
    noise = torch.randn(x.shape, generator=generator).to(x)
    return x + noise * (spread if 0 < spread < float("inf") else 1.0)


def measure_movement(
    model: nn.Module,
    x: Tensor,
    keys: Collection[CallKey],
    state: Mapping[str, Tensor] | None,
    sizes: Mapping[int, int] | None = None,
) -> tuple[dict[CallKey, Movement], Bands]:
    """Run the changed inputs, a few at a time, each time between two unchanged ones.

    Args:
        model: The network, already in evaluation mode.
        x: Inputs, ``(n, ...)``; the first is used.
        keys: The calls to watch.
        state: Weights to run with in place of the model's own, or None.
        sizes: How many bands along which of the input's axes.
    """
    changed, bands = cut_bands(x, sizes)
    parts: dict[CallKey, list[Movement]] = defaultdict(list)
    for some in torch.split(changed, max(FEWEST_ROWS, len(x))):
        batch = torch.cat([x[:1], some, x[:1]])

        def see(call: EndedCall, count: int = len(batch)) -> None:
            if call.key in keys and call.output.is_floating_point() and call.output.dim() > 2:
                parts[call.key].append(_movement(call.output.detach(), count))

        with repeat_first_of_other_inputs():
            watch_forward(model, lambda batch=batch: run_with_state(model, batch, state), see)  # type: ignore[misc]
    return {key: _joined(found) for key, found in parts.items()}, bands


def _movement(output: Tensor, count: int) -> Movement:
    found = _movement_of_rows(output, count)
    if not found.rows and output.dim() == 3 and output.shape[1] == count:
        return replace(_movement_of_rows(output.transpose(0, 1), count), batch_axis=1)
    return found


def _movement_of_rows(output: Tensor, count: int) -> Movement:
    if output.shape[0] % count:
        return Movement(tuple(output.shape), 0, {})
    rows = output.shape[0] // count
    if rows > 1:
        output = output.reshape(count, rows, *output.shape[1:])
    base = output[0]
    unequal = (output[-1] - base).abs().amax() > 1e-3 * base.abs().amax()
    if rows > 1 and bool(unequal):  # two equal inputs: their rows are not where they were looked for
        return Movement(tuple(output.shape[1:]), 0, {})
    moved = (output[1:-1] - base).square()
    axes = range(moved.dim() - 1)
    likely = {1, len(axes) - 1} if rows > 1 else {0, len(axes) - 1}
    sums = {axis: moved.float().sum(axis + 1).sqrt().double().numpy(force=True) for axis in likely if axis in axes}
    return Movement(tuple(output.shape[1:]), rows, sums)


def _joined(parts: list[Movement]) -> Movement:
    first = parts[0]
    if any(
        part.shape != first.shape or part.rows != first.rows or part.batch_axis != first.batch_axis for part in parts
    ):
        return Movement(first.shape, 0, {})
    sums: dict[int, Any] = {
        axis: np.concatenate([part.by_channel[axis] for part in parts]) for axis in first.by_channel
    }
    return Movement(first.shape, first.rows, sums, first.batch_axis)
