"""A comparison of runs as text for the terminal, as a figure, and as one self-contained page."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.comparison.changes import BETTER, NOISE, UNDECIDED_CHANGE, WORSE
from lightning_ifa.comparison.compare import Comparison
from lightning_ifa.indicators import registry
from lightning_ifa.report import style
from lightning_ifa.report.html.data import data_uri
from lightning_ifa.text import join_words

COLOURS = {BETTER: style.GOOD, WORSE: style.BAD, NOISE: style.UNKNOWN, UNDECIDED_CHANGE: style.FAINT}
MOST_ROWS = 100
LONGEST_NAME = 24

COLUMNS = {
    "first": "first run",
    "other": "this run",
    "low": "from",
    "high": "to",
    "interval": "interval by",
    "sample_id": "sample",
    "cka": "CKA",
    "cka_within": "CKA within classes",
    "maps": "map correlation",
    "maps_low": "from ",
    "maps_high": "to ",
    "maps_chance": "between different samples",
}
"""Column heads of the page's tables."""

HEADS = "  indicator    first     this    change [99 % interval]"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .75rem; text-align: left }
th { border-bottom: 2px solid #bbb } td { border-bottom: 1px solid #eee } img { max-width: 100% }
"""

EXPLANATION = (
    "Scores: 0 = nothing found, growing = worse. The interval holds the change that other samples of the same kind "
    "would show (99 % each); for redundancy, other channels. CKA: 1 = the same features up to rotation, 0 = "
    "unrelated; within classes it is free of what any good network agrees on. Maps: mean correlation of the same "
    "sample's two maps, and by chance, of two samples of one class."
)


def comparison_text(comparison: Comparison) -> str:
    """Write the comparison as plain text, a few lines a run."""
    lines: list[str] = []
    for row in _rows(comparison.feature_similarity):
        lines += [f"{row['run']} compared to {comparison.names[0]}: {_summarize(comparison, row['run'])}.", "", HEADS]
        lines += [_change_line(change) for change in _rows(_of(comparison.changes, row["run"]))]
        statuses = _of(comparison.outliers, row["run"])["status"].value_counts()
        counts = ", ".join(f"{statuses.get(status, 0)} {status}" for status in ("shared", "new", "gone"))
        lines += [
            "",
            f"  features    CKA {row['cka']:.3f}, within classes {row['cka_within']:.3f} (1 = the same), on "
            f"{row['samples']:.0f} shared samples",
            f"  maps        correlation {row['maps']:.3f} [{row['maps_low']:.3f}, {row['maps_high']:.3f}], "
            f"{row['maps_chance']:.3f} between different samples of a class",
            f"  outliers    {counts}",
            "",
        ]
    return "\n".join(lines + [f"note: {note}" for note in comparison.notes]).rstrip() + "\n"


def comparison_png(comparison: Comparison) -> bytes:
    """Draw the comparison as a PNG file's content."""
    return style.png(comparison_figure(comparison))


def comparison_figure(comparison: Comparison, title: str = "Runs compared") -> Figure:
    """Draw changes with their intervals, CKA of every pair, and the same probes' maps in every run."""
    runs = len(comparison.names)
    figure = style.canvas(12, 3.6 + 0.4 * runs + 1.3 * runs, title)
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.2 + 0.4 * runs, 1.3 * runs + 0.4))
    left, right = parts[0].subplots(1, 2, width_ratios=(1.6, 1))
    _draw_changes(left, comparison)
    _draw_cka(right, comparison)
    _draw_maps(parts[1], comparison)
    return figure


def comparison_html(comparison: Comparison, picture: bytes, title: str = "Runs compared") -> str:
    """Write the comparison and its figure, a PNG file's content, as one self-contained page.

    There is no script, no network, and everything from the user is escaped.
    """
    tables = {
        "Scores": comparison.changes,
        "Features and maps": comparison.feature_similarity,
        "Outliers": comparison.outliers,
        "Probes": comparison.probes,
    }
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(
            f"<p><b>{escape(name)}</b> compared to {escape(comparison.names[0])}: {_summarize(comparison, name)}.</p>"
            for name in comparison.names[1:]
        ),
        f"<p>{escape(EXPLANATION)}</p>",
        *(f"<p>Note: {escape(note)}.</p>" for note in comparison.notes),
        f'<img alt="figure" src="{data_uri(picture, "png")}">',
        *(f"<h2>{name}</h2>{_table(frame)}" for name, frame in tables.items()),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _of(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    return frame[frame["run"] == run]


def _summarize(comparison: Comparison, run: str) -> str:
    """Say what changed, in one sentence without names of the user's."""
    frame = _of(comparison.changes, run)
    families = {word: frame["family"][frame["verdict"] == word].tolist() for word in (WORSE, BETTER, UNDECIDED_CHANGE)}
    clauses = [f"{word} in {join_words(families[word])}" for word in (WORSE, BETTER) if families[word]]
    clauses += [f"{join_words(families[UNDECIDED_CHANGE])} cannot be told"] if families[UNDECIDED_CHANGE] else []
    if (frame["verdict"] == NOISE).any():
        clauses.append(f"{'the rest' if clauses else 'everything'} is inside the noise")
    return "; ".join(clauses)


def _format(value: float, sign: str = "") -> str:
    """Format with three decimals, and no minus before zero."""
    return f"{round(value, 3) + 0.0:{sign}.3f}"


def _change_line(change: dict[str, Any]) -> str:
    low, high, moved = (_format(change[name], "+") for name in ("low", "high", "change"))
    span = "" if change["verdict"] == UNDECIDED_CHANGE else f"[{low}, {high}]"
    return (
        f"  {change['family']:<12}{_format(change['first']):>6}   {_format(change['other']):>6}   {moved:>7} "
        f"{span:<18}  {change['verdict']}"
    )


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return "<p>None.</p>"
    more = f"<p>{len(frame) - MOST_ROWS} more rows.</p>" if len(frame) > MOST_ROWS else ""
    shown = frame.head(MOST_ROWS).rename(columns=COLUMNS)
    return shown.to_html(index=False, border=0, escape=True, float_format=_format) + more


def _draw_changes(axes: Axes, comparison: Comparison) -> None:
    """Draw changes in units of the family's alarm line, since the scores' own units differ."""
    labels = []
    for row, change in enumerate(_rows(comparison.changes)[::-1]):
        limit, verdict = registry.indicator_of(change["family"]).limit, change["verdict"]
        colour = COLOURS[verdict]
        if verdict != UNDECIDED_CHANGE:
            axes.plot([change["low"] / limit, change["high"] / limit], [row, row], color=colour, lw=2)
        axes.plot(change["change"] / limit, row, "o", color=colour, ms=5)
        run = f", {_short(change['run'])}" if len(comparison.names) > 2 else ""
        labels.append(f"{change['family']}{run}: {verdict}")
    axes.axvline(0, color=style.INK, lw=1)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    style.dress(axes, "Change of the scores", "in units of the alarm line; right = worse than the first run")


def _draw_cka(axes: Axes, comparison: Comparison) -> None:
    axes.imshow(comparison.cka, cmap="viridis", vmin=0, vmax=1)
    names = [_short(name) for name in comparison.names]
    for (i, j), value in np.ndenumerate(comparison.cka):
        colour = style.INK if value > 0.6 else "white"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    style.dress(axes, "Similarity of the features (linear CKA)")


def _draw_maps(figure: Any, comparison: Comparison) -> None:
    grid = figure.subplots(len(comparison.names), len(comparison.probe_ids), squeeze=False)
    for number, maps in enumerate(comparison.maps):
        for column, found in enumerate(maps):
            axes = grid[number, column]
            axes.set_xticks([])
            axes.set_yticks([])
            if np.isfinite(found).all():
                axes.imshow(comparison.scale.apply(style.flat_map(found)), cmap=style.HEAT, vmin=0, vmax=1)
            else:
                axes.set_frame_on(False)
                options = {"fontsize": 7, "ha": "center", "va": "center", "transform": axes.transAxes}
                axes.text(0.5, 0.5, "no such image\nin this run", color=style.QUIET, **options)
            if number == 0:
                name = f"sample {_short(comparison.probe_ids[column])}"
                axes.set_title(name, fontsize=7, color=style.INK, parse_math=False)
        name = _short(comparison.names[number]).replace(" (", "\n(")
        grid[number, 0].set_ylabel(name, fontsize=7, color=style.INK, parse_math=False)
    low, high = comparison.scale.low, comparison.scale.high
    style.colour_bar(figure, low, high, 7, "evidence a position", ax=grid, fraction=0.02, pad=0.01)
    figure.suptitle("The same samples' maps in every run, on the first run's scale", fontsize=10, x=0.01, ha="left",
                    fontweight="bold", color=style.INK)  # fmt: skip


def _short(name: str) -> str:
    """Keep both ends of a name, since a run's id is the second one."""
    return style.plain(name if len(name) <= LONGEST_NAME else f"{name[:10]}…{name[-12:]}")
