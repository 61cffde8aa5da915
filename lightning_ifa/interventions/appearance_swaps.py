"""Swaps of properties: the recipient keeps its content and takes how sharp, noisy or strong the source is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_ifa.data.image_properties import LEAST_SIZE

FINE = 0.35
"""Cycles a pixel from which on detail counts as fine: blur, noise and texture of a period below three pixels."""

HIGH = 0.98  # quantile that stands for the brightest part: a few hot pixels do not count
MOST_GAIN = 10.0  # an almost empty image has no contrast that could be multiplied
_MOST_PIXELS = 4096  # a percentile of that many evenly chosen pixels is exact enough

PROPERTIES = ("contrast", "sharpness")
"""What is swapped here, named as the image properties that sort the examples."""

Swap = Callable[[Tensor, Tensor], Tensor]


def appearance_swaps(x: Tensor) -> Iterator[tuple[str, Swap]]:
    """Give each property's name, as in ``image_properties``, and how it is swapped.

    Args:
        x: ``(n, channels, *space)`` inputs. Images of less than 14 pixels along an axis have no detail that is not
            the object's own.
    """
    space = x.shape[2:]
    if not space:
        return
    yield PROPERTIES[0], swap_contrast
    if min(space) >= LEAST_SIZE:
        yield PROPERTIES[1], swap_detail


def swap_contrast(x: Tensor, source: Tensor) -> Tensor:
    """Stretch each input channel from its own background level to the source's range of values.

    Args:
        x: ``(n, channels, *space)``.
        source: The same shape.
    """
    (low, high), (source_low, source_high) = _range(x), _range(source)
    gain = ((source_high - source_low) / (high - low).clamp(min=1e-6)).clamp(0, MOST_GAIN)
    return low + (x - low) * gain


def swap_detail(x: Tensor, source: Tensor) -> Tensor:
    """Give the fine detail the source's amplitude at every frequency, and leave its phase: where things are.

    So a blurred source blurs, a noisy one makes noisy, and a fine texture comes along, but no outline does.

    Args:
        x: ``(n, channels, *space)``.
        source: The same shape.
    """
    axes = tuple(range(2, x.dim()))
    waves, wanted = (torch.fft.fftn(side.float(), dim=axes) for side in (x, source))
    changed = waves * (wanted.abs() / waves.abs().clamp(min=1e-9))
    fine = _frequency(tuple(x.shape[2:]), x.device) >= FINE
    image: Tensor = torch.fft.ifftn(torch.where(fine, changed, waves), dim=axes).real
    return image.to(x.dtype)


def _range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Background level and bright end of each channel, ``(n, channels, 1, ...)``."""
    flat = x.float().flatten(2)
    evenly = flat[..., :: max(1, flat.shape[2] // _MOST_PIXELS)]
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    low, high = (evenly.quantile(share, dim=2).reshape(shape).to(x.dtype) for share in (0.1, HIGH))
    return low, high


def _frequency(space: tuple[int, ...], device: torch.device) -> Tensor:
    """Cycles a pixel of each coefficient, whatever the direction, ``(*space)``."""
    axes = torch.meshgrid(*(torch.fft.fftfreq(n, device=device) for n in space), indexing="ij")
    frequency: Tensor = torch.linalg.vector_norm(torch.stack(axes), dim=0)
    return frequency
