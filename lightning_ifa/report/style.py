"""One style for every figure: colours that colour-blind readers tell apart, set on the artists themselves.

Nothing here touches matplotlib's global settings: figures are drawn in a background thread beside the user's own.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, get_data_path
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import ImageFont

TRAIN, VALIDATION = "#0072B2", "#E69F00"
GOOD, BAD, UNKNOWN = "#009E73", "#D55E00", "#8C8C8C"
INK, QUIET, FAINT, WASH = "#222222", "#66707C", "#BBBBBB", "#EEF0F2"
HEAT = "inferno"
DIVERGING = "RdBu_r"
FAMILY = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same
SPLIT_COLOURS = {"train": TRAIN, "validation": VALIDATION}
LONGEST = 40
LONGEST_TITLE = 80  # of a sheet, in its largest letters


def heat(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour display values in [0, 1]; shape ``(h, w)`` to ``(h, w, 3)``."""
    return (colormaps[HEAT](values)[..., :3] * 255).astype(np.uint8)


def plain(text: str, longest: int = LONGEST) -> str:
    """Make a user's text fit for a picture: one line, a bounded length, only signs that the font has.

    >>> plain(f"left{chr(10)}lung {chr(0x1FAC1)}"), plain("x" * 99, 5)
    ('left lung ?', 'xxxx…')
    """
    line = " ".join(text[: 20 * longest].split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(sign if ord(sign) in _signs() else "?" for sign in line)


@cache
def typeface(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The figures' typeface for pictures drawn without matplotlib, size in pixels."""
    return ImageFont.truetype(_font_file("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


def canvas(width: float, height: float, title: str) -> Figure:
    """Make an empty figure, sizes in inches, with its own canvas, independent of pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold", color=INK, parse_math=False)
    return figure


def sheet(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """Make a page to ``place`` panels on, sizes in inches; laying it out by hand is ten times as fast."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    write(figure, 0.3, 0.24, title, 17 if len(title) <= LONGEST_TITLE else 13, weight="bold")
    write(figure, 0.3, 0.56, subtitle, 9, QUIET)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes to a sheet, in inches from its top left corner."""
    across, down = figure.get_size_inches()
    area = (left / across, 1 - (top + height) / down, width / across, height / down)
    axes = figure.add_axes(area, facecolor="white")
    axes.grid(False)
    return axes


def write(figure: Figure, left: float, top: float, text: str, size: float, color: str = INK, **options: Any) -> None:
    """Put text on a sheet, its top left corner in inches from that of the sheet."""
    across, down = figure.get_size_inches()
    settings: dict[str, Any] = {"ha": "left", "va": "top", "family": FAMILY, "parse_math": False} | options
    figure.text(left / across, 1 - top / down, text, fontsize=size, color=color, **settings)


def head(figure: Figure, left: float, top: float, title: str, subtitle: str = "") -> None:
    """Put a panel's headline and what it says below it on a sheet."""
    write(figure, left, top, title, 11.5, weight="bold")
    write(figure, left, top + 0.21, subtitle, 8.5, QUIET)


def dress(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Give axes the common style."""
    axes.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold", parse_math=False)
    axes.set_xlabel(xlabel, fontsize=8, color=QUIET)
    axes.set_ylabel(ylabel, fontsize=8, color=QUIET)
    axes.tick_params(which="both", labelsize=8, colors=INK, color=FAINT, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def scale_bar(figure: Figure, low: float, high: float, left: float, top: float, width: float) -> None:
    """Draw the colours of the maps on a sheet, with the evidence that the first and the last one stand for."""
    axes = place(figure, left, top, width, 0.12)
    bare(axes)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, aspect="auto")
    for text, x, side in ((f"{low:.2g}", left, "left"), (f"{high:.2g}", left + width, "right")):
        write(figure, x, top + 0.15, text, 8, QUIET, ha=side)
    write(figure, left + width / 2, top + 0.15, "evidence a position", 8, QUIET, ha="center")


def colour_bar(figure: Any, low: float, high: float, size: float, label: str = "", **position: Any) -> None:
    """Draw the colours of the maps as a bar with numbers; ``position`` as for matplotlib's ``colorbar``."""
    bar = figure.colorbar(ScalarMappable(Normalize(low, high), HEAT), **position)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=size, colors=INK, length=2)
    bar.set_label(label, fontsize=size, color=QUIET)


def bare(axes: Axes) -> None:
    """Take ticks and frame off axes that hold a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def png(figure: Figure, dpi: int = 100) -> bytes:
    """Draw a figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()


def flat_map(values: NDArray[Any]) -> NDArray[Any]:
    """Flatten a map ``(*space)`` to a picture: a signal to a strip, a volume to the slice with the most evidence."""
    if values.ndim == 1:
        return np.tile(values, (max(1, len(values) // 4), 1))
    while values.ndim > 2:
        values = values[np.abs(values).reshape(len(values), -1).max(1).argmax()]
    return values


def _font_file(name: str) -> str:
    return str(Path(get_data_path()) / "fonts" / "ttf" / name)


@cache
def _signs() -> frozenset[int]:
    return frozenset(FT2Font(_font_file("DejaVuSans.ttf")).get_charmap())
