"""All probes in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

GAP = 6


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay pictures out in rows, about as wide as high, so that the whole stays readable when it is made small.

    Args:
        pictures: At least one; smaller ones stand in the upper left of their place.
    """
    width, height = (max(picture.size[axis] for picture in pictures) + GAP for axis in (0, 1))
    columns = min(len(pictures), max(1, round(math.sqrt(len(pictures) * height / width))))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet
