"""Draw slices that nobody named: how much worse the network is in them, what tells them apart, and samples of each."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

from lightning_ifa.report import style
from lightning_ifa.report.examples import MOST_SLICES, slice_examples
from lightning_ifa.report.figures.cam_overlay import draw_panels, picture_layer, sample_panels, strip
from lightning_ifa.report.labels import sample_label
from lightning_ifa.report.result import AnalysisResult

WIDTH = 13.0
HIGH = 1.95  # inches of a slice
SIDE = 0.72  # inches of a picture
LETTERS = 150


def slice_page(report: AnalysisResult, title: str = "Slices that nobody named") -> Figure:
    """Draw the worst slices, misclassified samples first, each sample beside its map."""
    slices = report.slices.head(MOST_SLICES)
    figure = style.sheet(WIDTH, 1.3 + HIGH * len(slices), style.plain(title, 80))
    layer = picture_layer(figure)
    style.head(figure, 0.3, 0.75, f"Groups of samples that err together: {len(report.slices)} found",
               "more errors than samples taken for the same classes have; chance explains the worst once in a thousand"
               " networks at most")  # fmt: skip
    for number, weak in enumerate(slices.to_dict("records")):
        top = 1.35 + HIGH * number
        found = f"{weak['size']} samples, accuracy {weak['accuracy']:.2f} instead of {weak['expected']:.2f}"
        style.head(figure, 0.3, top, f"Slice {weak['slice']}: {found}")
        words = "; ".join(filter(None, (str(weak["words"]), str(weak["mistakes"]))))
        lines = textwrap.wrap(style.plain(words, 2 * LETTERS), LETTERS)
        style.write(figure, 0.3, top + 0.25, "\n".join(lines), 8.5, style.QUIET, linespacing=1.3)
        for place, row in enumerate(slice_examples(report, number)):
            left = 0.3 + place * (2 * SIDE + 0.14)
            draw_panels(layer, [strip(sample_panels(report, ("validation", int(row))), 0)], left, top + 0.72, SIDE)
            label = style.plain(sample_label(report.tables["validation"], int(row), report.class_names), 22)
            right = report.tables["validation"].correct[row]
            style.write(figure, left, top + 0.75 + SIDE, label, 8.5, style.QUIET if right else style.BAD)
    return figure
