"""What is shown of a channel: where it looks in the samples that drive it, and for whom it speaks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.context import table_strata
from lightning_ifa.report.examples import candidate_sides, driving_rows
from lightning_ifa.report.figures.cam_overlay import input_panel, map_panel
from lightning_ifa.report.figures.images import Pixels, plane
from lightning_ifa.report.labels import class_label
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.intensity_scale import IntensityScale

LEAST_CROP = 0.12
"""Share of an image's edge that a crop shows at least."""

UNKNOWN_FIELD = 3
"""Positions that a crop shows along each axis where the receptive field could not be measured."""

MOST_CLASSES = 6


class Split(NamedTuple):
    """A channel's contributions in one class, and on one side of the suspect.

    Attributes:
        label: Name of the class.
        side: Name of the suspect's side, or empty without a suspect.
        mean: Mean contribution to the explained class, units of the score.
        error: Its standard error.
        size: Number of samples.
    """

    label: str
    side: str
    mean: float
    error: float
    size: int


def describe_field(report: AnalysisResult) -> str:
    """Say what the pictures of a channel's samples show, and how large a crop is."""
    seen = report.channel_maps.receptive_field
    if seen is None:
        size = "three positions of the map, since the receptive field could not be measured"
    else:
        size = f"the receptive field, measured as {' x '.join(f'{share:.0%}' for share in seen)} of the input"
    return f"above, the crop at the peak of its map ({size}); below, its map, on one scale a channel"


def driving_panels(report: AnalysisResult, channel: int, side: int) -> list[tuple[Pixels, Pixels]]:
    """Draw, for each sample that drives a channel, the crop that it sees at its peak, and its map over the whole.

    The maps of a channel share one scale. Where inputs may not be shown, both are of the map.

    Returns:
        Pairs of pictures, ``(side, side, 3)`` each.
    """
    rows = [int(row) for row in driving_rows(report, channel) if (channel, int(row)) in report.channel_maps.maps]
    maps = {row: np.abs(report.channel_maps.maps[channel, row]) for row in rows}
    high = max((float(found.max()) for found in maps.values()), default=0.0)
    scale = IntensityScale(0.0, high if high > 0 else 1.0)
    found = []
    for row, values in maps.items():
        image = report.gallery.get(("validation", row))
        shown = map_panel(image, values, scale, side, side)
        crop = shown if image is None else input_panel(_crop(report, image, values, row), values, side, side)
        found.append((crop, shown))
    return found


def list_splits(report: AnalysisResult, channel: int) -> list[Split]:
    """Give a channel's mean contributions by class, and by the two sides of the candidate that alarms, if one does."""
    table = report.tables["validation"]
    labels, values = table_strata(report.tables)["validation"], table.contributions[:, channel].astype(np.float64)
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    finding = report.findings.get("confounding")
    sides = candidate_sides(report, finding.subject) if finding is not None and finding.alarm else []
    everybody = np.ones(len(table), dtype=bool)
    found = []
    for label in np.sort(names[np.argsort(-counts, kind="stable")[:MOST_CLASSES]]):
        for name, inside in sides or [("", everybody)]:
            part = values[inside & (labels == label)]
            if len(part):
                error = float(part.std(ddof=1) / np.sqrt(len(part))) if len(part) > 1 else np.nan
                found.append(Split(class_label(report, int(label)), name, float(part.mean()), error, len(part)))
    return found


def _crop(
    report: AnalysisResult, image: NDArray[np.float32], values: NDArray[np.float32], row: int
) -> NDArray[np.float32]:
    """Cut an input to what the channel sees at the peak of its map, ``(channels, *space)``."""
    if values.ndim == 3 and image.ndim == 3:  # of a volume, the slice that the gallery holds
        values = plane(values, report.tables["validation"].cams[row])
    seen = (report.channel_maps.receptive_field or ())[-values.ndim :]
    peak = np.unravel_index(int(values.argmax()), values.shape)
    cut: list[slice] = [slice(None)]
    for axis, (cell, size, edge) in enumerate(zip(peak, values.shape, image.shape[1:], strict=True)):
        share = seen[axis] if len(seen) == values.ndim else UNKNOWN_FIELD / size
        length = max(1, round(edge * min(1.0, max(LEAST_CROP, share))))
        start = round((cell + 0.5) / size * edge - length / 2)
        start = min(max(start, 0), edge - length)
        cut.append(slice(start, start + length))
    return image[tuple(cut)]
