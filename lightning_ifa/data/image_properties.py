"""Properties of the input images, measured without knowing what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d

BACKGROUND = ("border", "corner", "background")
"""First words of the properties that lie outside the usual place of an object, and are judged."""

EDGE = 1 / 7  # strip and corner width as a share of each axis: 4 of 28 pixels, 32 of 224

PLAIN = 0.6
"""A border with less than this share of the whole image's texture is background; see ``has_background``."""

LEAST_SIZE = 14  # fewer pixels along an axis leave no strip that an object does not fill
_POOLS = {2: avg_pool1d, 3: avg_pool2d}
_MOST_PIXELS = 4096  # a percentile of that many evenly chosen pixels is exact enough
_MOST_COLOURS = 4  # more channels than that are no colours


def image_properties(x: Tensor) -> dict[str, Tensor]:
    """Measure each input in one vectorised pass.

    Args:
        x: Shape ``(n, channels, *space)`` with one to three spatial axes; fewer axes give only level and contrast.

    Returns:
        float32 tensors of shape ``(n,)`` in units of the input, channels averaged. Of the whole image:
        ``brightness`` (mean), ``contrast`` (standard deviation), ``sharpness`` (mean absolute difference of
        neighbours), ``aspect`` (log ratio of extent along the last two axes), ``colour_i`` (mean of channel i
        minus brightness). Of what lies around the object: ``background`` (10th percentile), ``border`` (median of the
        outer strip, which an object that reaches into it does not move), ``side_...`` and ``corner_...`` (mean of each
        side and corner over the last two axes), ``edge_peak`` and ``edge_pit`` (how far the brightest and the darkest
        spot at the edge stand out from the border), ``border_texture`` (mean absolute difference of neighbours along
        the outermost line), ``border_colour_i``. Images of less than 14 pixels have no border: there the object fills
        the strip.
    """
    x = x.detach().float()
    flat = x.flatten(1)
    found = {"brightness": flat.mean(1), "contrast": flat.std(1, unbiased=False)}
    if x.dim() < 3:
        return found
    gray = x.mean(1)
    found["sharpness"] = _mean_step(gray)
    if gray.dim() > 2:
        found["aspect"] = _aspect(gray)
    found["background"] = _low_level(gray)
    found.update((f"corner_{name}", part.flatten(1).mean(1)) for name, part in _corners(gray))
    colours = range(x.shape[1] - 1 if x.shape[1] <= _MOST_COLOURS else 0)  # they sum to zero: the last says nothing new
    found.update((f"colour_{i}", x[:, i].flatten(1).mean(1) - found["brightness"]) for i in colours)
    if min(gray.shape[1:]) < LEAST_SIZE:
        return found
    outside = _strip_mask(gray)
    found["border"] = gray[:, outside].median(1).values
    found["border_texture"] = _outline_step(gray)
    found.update((f"border_colour_{i}", (x[:, i] - gray)[:, outside].mean(1)) for i in colours)
    found.update((f"side_{name}", part.flatten(1).mean(1)) for name, part in _sides(gray))
    return found | _edge_extremes(gray, found["border"])


def has_background(properties: pd.DataFrame) -> bool:
    """Whether the images have a plain border, so that what happens there is no part of the object.

    Where scenes and textures fill the image, its border rightly belongs to the class.

    Args:
        properties: The ``image_properties`` of a data set, one row an image.
    """
    if "border_texture" not in properties:
        return True
    return float(properties["border_texture"].median()) < PLAIN * float(properties["sharpness"].median())


def _low_level(gray: Tensor) -> Tensor:
    flat = gray.flatten(1)
    evenly = flat[:, :: max(1, flat.shape[1] // _MOST_PIXELS)]
    return evenly.kthvalue(max(1, round(0.1 * evenly.shape[1])), dim=1).values  # a third of quantile's time


def _mean_step(gray: Tensor) -> Tensor:
    steps = [gray.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(1, gray.dim()) if gray.shape[axis] > 1]
    return torch.stack(steps).mean(0) if steps else gray.flatten(1).mean(1) * 0


def _aspect(gray: Tensor) -> Tensor:
    """Half the log ratio of the second moments along the last two axes, weighted by distance from the median."""
    plane = gray.flatten(1, -3).mean(1) if gray.dim() > 3 else gray
    weight = (plane - plane.flatten(1).median(1).values[:, None, None]).abs() + 1e-6
    moments = []
    for axis, other in ((-2, -1), (-1, -2)):
        profile = weight.sum(other)
        position = torch.linspace(-1, 1, plane.shape[axis], device=gray.device)
        total = profile.sum(1)
        centre = (profile * position).sum(1) / total
        moments.append((profile * (position - centre[:, None]) ** 2).sum(1) / total + 1e-6)
    return 0.5 * (moments[0] / moments[1]).log()


def _edge_width(size: int) -> int:
    return max(1, round(size * EDGE))


def _strip_mask(gray: Tensor) -> Tensor:
    """Mask of the outer strip, ``(*space)``."""
    outside = torch.ones(gray.shape[1:], dtype=torch.bool, device=gray.device)
    outside[tuple(slice(_edge_width(size), size - _edge_width(size)) for size in gray.shape[1:])] = False
    return outside


def _edge_extremes(gray: Tensor, middle: Tensor) -> dict[str, Tensor]:
    """How far the brightest and the darkest spot of the strip stand out from its median, wherever they lie."""
    window = max(1, min(_edge_width(min(gray.shape[1:])) * 3 // 4, *gray.shape[1:]))
    ends = [(axis, start) for axis in range(1, gray.dim()) for start in (0, gray.shape[axis] - window)]
    faces = [gray.narrow(axis, start, window).mean(axis) for axis, start in ends]
    spots = torch.cat([_window_means(face, window) for face in faces], dim=1)
    return {"edge_peak": spots.amax(1) - middle, "edge_pit": middle - spots.amin(1)}


def _window_means(face: Tensor, window: int) -> Tensor:
    """Means of all windows of a face, ``(n, windows)``; the ends of a signal are their own windows."""
    if face.dim() == 1:
        return face[:, None]
    return _POOLS[face.dim()](face[:, None], window, stride=1).flatten(1)


def _outline_step(gray: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along the outermost line or face."""
    if gray.dim() == 2:
        return torch.stack([(gray[:, 1] - gray[:, 0]).abs(), (gray[:, -1] - gray[:, -2]).abs()]).mean(0)
    faces = [part for axis in (-2, -1) for part in (gray.select(axis, 0), gray.select(axis, -1))]
    return torch.stack([_mean_step(face) for face in faces]).mean(0)


def _sides(gray: Tensor) -> Iterator[tuple[str, Tensor]]:
    if gray.dim() == 2:
        return
    for axis, names in ((-2, ("top", "bottom")), (-1, ("left", "right"))):
        width = _edge_width(gray.shape[axis])
        yield names[0], gray.narrow(axis, 0, width)
        yield names[1], gray.narrow(axis, gray.shape[axis] - width, width)


def _corners(gray: Tensor) -> Iterator[tuple[str, Tensor]]:
    names = (("start", "end"),) if gray.dim() == 2 else (("top", "bottom"), ("left", "right"))
    axes = range(gray.dim() - len(names), gray.dim())
    for ends in product((0, 1), repeat=len(names)):
        part = gray
        for axis, end in zip(axes, ends, strict=True):
            width = _edge_width(gray.shape[axis])
            part = part.narrow(axis, gray.shape[axis] - width if end else 0, width)
        yield "_".join(pair[end] for pair, end in zip(names, ends, strict=True)), part
