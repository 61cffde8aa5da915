"""Confirm which axis of an output holds the channels, and where in the input each of its positions lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations

import numpy as np
from torch import Tensor

from lightning_ifa.model.perturbation import Array, Bands, Movement

CONFIRMED = 0.8
"""Least correlation, along every axis, of where positions are taken to lie with where the input had been changed."""

CHANCE = 3.3
"""Standard errors (Fisher's z) that the correlations of a layout's axes have to exceed 0 by, all together."""

NATURAL = 0.05
"""By how much another layout has to correlate better than ``(n, c, *space)``."""

DENIED = 0.3
"""Correlation below which what moved speaks against a layout that is usual for the output's shape."""

FEWEST_MOVED = 0.5
"""Share of the positions that must move: where most never do, the few that do speak for no layout and against none."""

TOLD_APART = 0.05
"""Standard deviation of the places found, in widths of the input, from which something is told apart."""

FEWER = 0.005
"""By how much a layout has to correlate better for each position that it drops."""

SELECTIVE = 0.01
"""Least standard deviation of the places found, in widths of the input: below it, nothing moves more than the rest."""

FEW = 26
"""Fewer positions than these agree by chance; their places have to differ ten times as much."""

MOST_EXTRA_TOKENS = 8
"""Class, distillation and register tokens, which stand before those of the image."""

Shape = tuple[int, ...]
Agreement = Callable[[int, int, int, int, int], float]


@dataclass(frozen=True)
class Layout:
    """How maps are taken from an output; called as the ``reshape`` of a target layer.

    Attributes:
        channels: Axis of the channels in the output of one sample.
        grid: Sizes of the axes over which the positions are spread, in the output's own order.
        front: Positions before those of the grid, which are dropped.
        order: Which axis of ``grid`` is the first, second, ... of the maps.
        inputs: The input's axes that the maps' axes follow.
    """

    channels: int
    grid: Shape
    front: int = 0
    order: Shape = ()
    inputs: Shape = ()

    def __call__(self, output: Tensor) -> Tensor:
        """Turn an output ``(n, ...)`` into maps ``(n, c, *space)``."""
        moved = output.movedim(self.channels + 1, 1).flatten(2)
        picked = moved[:, :, self.front : self.front + math.prod(self.grid)]
        maps = picked.reshape(*picked.shape[:2], *self.grid)
        return maps.permute(0, 1, *(axis + 2 for axis in self.order))

    @property
    def space(self) -> Shape:
        """Of the maps."""
        return tuple(self.grid[axis] for axis in self.order)

    def is_natural(self, shape: Shape) -> bool:
        """Whether an output of this shape for one sample is ``(c, *space)`` already."""
        return self.channels == 0 and self.grid == shape[1:] and self.order == _as_is(self.grid)


@dataclass(frozen=True)
class Confirmed:
    """A layout and how well it agrees with what was seen: a correlation, the least of its axes'."""

    layout: Layout
    agreement: float

    @property
    def is_certain(self) -> bool:
        """Whether it agrees better than a layout of so few positions may by chance: 7 in a row need 0.93."""
        spread = math.sqrt(max(math.prod(self.layout.grid) - 3, 0.5) * len(self.layout.grid))
        return self.agreement >= max(CONFIRMED, math.tanh(CHANCE / spread))


def confirm_layout(movement: Movement, bands: Bands, rank: int) -> Confirmed | None:
    """Find the layout that agrees best with what the changed inputs moved.

    Args:
        movement: How far the output moved.
        bands: How the input was changed.
        rank: Axes of the input, that of the samples among them.

    Returns:
        The best layout, or None if nothing selective was seen.
    """
    best: Confirmed | None = None
    pairs = (2,) if rank == 5 else ()  # images side by side in an axis of their own, each seen by itself
    for wanted in (*spatial_ranks(rank), *pairs):
        for found in _candidates(movement, bands, wanted, may_be_flat=wanted == rank - 2 or rank < 4):
            if best is None or _preference(found, movement.shape) > _preference(best, movement.shape):
                best = found
        if best is not None and best.is_certain:
            break
    return best


def _preference(found: Confirmed, shape: Shape) -> float:
    """The agreement, less for dropped positions: where 7 tokens are a row, 7 more or fewer agree as well."""
    layout = found.layout
    dropped = math.prod(shape) // shape[layout.channels] - math.prod(layout.grid)
    unusual = NATURAL if dropped > layout.front else 0  # extra tokens behind those of the image
    return found.agreement + (NATURAL if layout.is_natural(shape) else 0) - FEWER * dropped - unusual


def is_denied(movement: Movement, bands: Bands, layout: Layout) -> bool:
    """Whether what moved speaks against a layout: some axis of the input is told apart, but not where it should be."""
    moved = movement.by_channel.get(layout.channels)
    if moved is None:
        return False
    followed = sorted(set(bands.axis.tolist()))
    places = {axis: places_along(moved.reshape(len(moved), -1), bands, axis) for axis in followed}
    known = [seen[np.isfinite(seen)] for seen in places.values()]
    if moved[0].size < FEW or max(len(seen) for seen in known) < FEWEST_MOVED * moved[0].size:
        return False
    if not any(len(seen) and seen.std() > TOLD_APART for seen in known) or len(layout.grid) > len(followed):
        return False
    found = _best_order(layout.grid, layout.front, followed, _agreement(places))
    return found is None or found[0] < DENIED


def spatial_ranks(rank: int) -> tuple[int, ...]:
    """How many axes the maps of an input with so many axes may have; the samples' axis counts, channels may lack."""
    return {2: (1,), 3: (2, 1)}.get(rank, (rank - 2, rank - 1))


def _candidates(movement: Movement, bands: Bands, wanted: int, may_be_flat: bool) -> Iterator[Confirmed]:
    axes = sorted(set(bands.axis.tolist()))
    for channels, moved in movement.by_channel.items():
        space = moved.shape[1:]
        places = {axis: places_along(moved.reshape(len(moved), -1), bands, axis) for axis in axes}
        places = {axis: seen for axis, seen in places.items() if not _is_even(seen[np.isfinite(seen)])}
        followed, agree = sorted(places), _agreement(places)
        for grid, front in _grids(space, wanted, may_be_flat):
            if wanted == 1 and not _starts_at_the_start(places, front):
                continue
            found = _best_order(grid, front, followed, agree)
            if found is not None:
                agreement, inputs = found
                order = tuple(int(i) for i in np.argsort(inputs))
                yield Confirmed(Layout(channels, grid, front, order, tuple(sorted(inputs))), agreement)


def _starts_at_the_start(places: dict[int, Array], front: int) -> bool:
    """Whether the first position is among the first quarter: a class token, which sees everything, is not."""
    return any(
        seen[front] <= np.nanquantile(seen[front:], 0.25) for seen in places.values() if np.isfinite(seen[front])
    )


def places_along(moved: Array, bands: Bands, axis: int) -> Array:
    """Where along an axis of the input each position lies, in [0, 1]; NaN where nothing moved.

    Args:
        moved: ``(bands, positions)``.
        bands: How the input was changed.
        axis: The input's axis.
    """
    own = bands.axis == axis
    values = np.nan_to_num(moved[own], posinf=0)
    mean = values.mean(1, keepdims=True)
    weights = np.divide(values, mean, out=np.zeros_like(values), where=mean > 0) ** 2
    total = weights.sum(0)
    found = bands.centre[own] @ weights
    return np.asarray(np.divide(found, total, out=np.full_like(total, np.nan), where=total > 0))


def _agreement(places: dict[int, Array]) -> Agreement:
    """Correlates places along an axis of the input with one index of a grid that starts behind some positions."""

    @cache
    def standardised(axis: int, front: int, count: int) -> Array:
        seen = places[axis][front : front + count]
        known = np.isfinite(seen)
        if known.sum() < max(2, count // 2) or _is_even(seen[known]):
            return np.zeros(count)
        centred = np.where(known, seen - seen[known].mean(), 0.0)
        return np.asarray(centred / np.linalg.norm(centred) * known.mean())

    def agree(axis: int, front: int, size: int, stride: int, count: int) -> float:
        return float(standardised(axis, front, count) @ _index(size, stride, count))

    return agree


@lru_cache(maxsize=4096)
def _index(size: int, stride: int, count: int) -> Array:
    """One index of a grid at each of its positions, with mean 0 and norm 1."""
    index = np.arange(count) // stride % size
    centred = index - index.mean()
    return np.asarray(centred / np.linalg.norm(centred))


def _is_even(seen: Array) -> bool:
    return not len(seen) or bool(seen.std() < SELECTIVE * (10 if len(seen) < FEW else 1))


def _best_order(grid: Shape, front: int, followed: list[int], agree: Agreement) -> tuple[float, Shape] | None:
    """The input's axes that the grid's axes follow best, each its own."""
    if len(followed) < len(grid):
        return None
    strides = [math.prod(grid[i + 1 :]) for i in range(len(grid))]
    count = math.prod(grid)
    table = {
        (i, axis): 1.0 if size == 1 else agree(axis, front, size, strides[i], count)
        for i, size in enumerate(grid)
        for axis in followed
    }
    scored = [
        (min(table[i, axis] for i, axis in enumerate(inputs)), inputs) for inputs in permutations(followed, len(grid))
    ]
    return max(scored, key=lambda one: (round(one[0], 6), [-axis for axis in one[1]]), default=None)


def _grids(space: Shape, wanted: int, may_be_flat: bool) -> Iterator[tuple[Shape, int]]:
    """Grids that positions of this shape may fill, and how many positions stand before them; others stand behind."""
    if len(space) == wanted and math.prod(space) > 1:
        yield space, 0
    if len(space) != 1 or not may_be_flat:
        return
    for front in range(min(MOST_EXTRA_TOKENS + 1, space[0] - 1)):
        if wanted == 1 and front:
            yield (space[0] - front,), front
        elif wanted > 1:
            for grid in _factors(space[0] - front, wanted):
                yield grid, front
                if front:
                    yield grid, 0


@cache
def _factors(number: int, parts: int) -> tuple[Shape, ...]:
    """The ways to write a number as a product of so many, none of them 1."""
    if parts == 1:
        return ((number,),) if number > 1 else ()
    return tuple(
        (first, *rest)
        for first in range(2, number // 2 ** (parts - 1) + 1)
        if number % first == 0
        for rest in _factors(number // first, parts - 1)
    )


def _as_is(grid: Shape) -> Shape:
    return tuple(range(len(grid)))
