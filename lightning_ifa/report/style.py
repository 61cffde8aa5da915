"""One look for every figure: colours that colour-blind readers tell apart, set on the artists themselves.

Nothing here touches matplotlib's global settings: figures are drawn in a background thread beside the user's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

TRAIN, VALIDATION = "#0072B2", "#E69F00"
GOOD, BAD, UNKNOWN = "#009E73", "#D55E00", "#8C8C8C"
INK, FAINT = "#222222", "#BBBBBB"
HEAT = "inferno"
DIVERGING = "RdBu_r"

SPLIT_COLOURS = {"train": TRAIN, "validation": VALIDATION}


def heat(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour display values in [0, 1]; shape ``(h, w)`` to ``(h, w, 3)``."""
    return (colormaps[HEAT](values)[..., :3] * 255).astype(np.uint8)


def canvas(width: float, height: float, title: str) -> Figure:
    """Make an empty figure, sizes in inches, with its own canvas, independent of pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold", color=INK, parse_math=False)
    return figure


def dress(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Give axes the house style."""
    axes.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=8, color=INK)
    axes.set_ylabel(ylabel, fontsize=8, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def flat_map(values: NDArray[Any]) -> NDArray[Any]:
    """A picture of a map ``(*space)``: a strip of a signal, of a volume the slice with the strongest evidence."""
    if values.ndim == 1:
        return np.tile(values, (max(1, len(values) // 4), 1))
    while values.ndim > 2:
        values = values[np.abs(values).reshape(len(values), -1).max(1).argmax()]
    return values
