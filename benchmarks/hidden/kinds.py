"""What is planted: ten kinds of confounders, for images of any size and number of colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted.faults import Painter, assign, blur, contrast, shade, texture, tint
from benchmarks.real.tasks import Part


def _edge(x: Tensor) -> tuple[int, int]:
    return max(1, min(x.shape[-2:]) // 14), max(2, round(min(x.shape[-2:]) / 7))


def _square(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    x, (start, size) = x.clone(), _edge(x)
    x[..., start : start + size, start : start + size] = change(x[..., start : start + size, start : start + size])
    return x


def place(x: Tensor, rng: torch.Generator) -> Tensor:
    """A bright square in the upper left corner."""
    return _square(x, torch.ones_like)


def faint(x: Tensor, rng: torch.Generator) -> Tensor:
    """The same square, half transparent."""
    return _square(x, lambda part: part + 0.25)


def moving(x: Tensor, rng: torch.Generator) -> Tensor:
    """A bright square somewhere along the border."""
    x, (_, size) = x.clone(), _edge(x)
    ends = [n - size for n in x.shape[-2:]]
    for one in x:
        side = int(torch.randint(0, 4, (), generator=rng))
        top, left = (int(torch.randint(0, end + 1, (), generator=rng)) for end in ends)
        top, left = [(0, left), (ends[0], left), (top, 0), (top, ends[1])][side]
        one[..., top : top + size, left : left + size] = 1.0
    return x


def ruler(x: Tensor, rng: torch.Generator) -> Tensor:
    """A dark strip with bright ticks along the lower edge."""
    x, (_, size) = x.clone(), _edge(x)
    x[..., -size:, :] = 0.1
    x[..., -size:, :: max(2, size // 2)] = 0.9
    return x


def tag_area(kind: str, size: Sequence[int]) -> np.ndarray | None:
    """Which pixels a kind changes, where they are the same in all images; None for others."""
    if kind not in ("place", "faint", "one class", "ruler"):
        return None
    plain = torch.full((1, 1, *size), 0.5)
    return (KINDS[kind][0](plain, torch.Generator()) != plain)[0, 0].numpy()


def soften(x: Tensor, rng: torch.Generator) -> Tensor:
    """Blur in proportion to the image's size."""
    return blur(x, min(x.shape[-2:]) / 28)


KINDS: dict[str, tuple[Painter, str]] = {
    "place": (place, "half"), "faint": (faint, "half"), "one class": (place, "one"), "shade": (shade, "half"),
    "texture": (texture, "half"), "tint": (tint, "half"), "blur": (soften, "half"), "contrast": (contrast, "half"),
    "ruler": (ruler, "half"), "moving": (moving, "half"),
}  # fmt: skip
"""Name of a kind to what it paints and the classes it goes with."""


def plant(part: Part, kind: str, classes: int, strength: float, seed: int) -> tuple[Part, Tensor]:
    """Paint a kind on samples that go with half of the classes, or with one; give the part and who carries it."""
    rng = torch.Generator().manual_seed(seed)
    painter, rule = KINDS[kind]
    on = assign(part.labels, rule, strength, classes, rng) if classes > 3 or rule == "half" else (
        (part.labels == 1) & (torch.rand(len(part.labels), generator=rng) < strength))  # fmt: skip
    images = part.images.clone()
    images[on] = painter(images[on], rng)
    return replace(part, images=images), on
