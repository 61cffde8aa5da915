"""The sections of the page; every text from the user is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators import registry
from lightning_ifa.indicators.base import Finding
from lightning_ifa.indicators.confounder_table import order_candidates
from lightning_ifa.indicators.sample_table import sort_outliers
from lightning_ifa.report.examples import (
    MOST_SLICES,
    candidate_groups,
    leading_candidates,
    outlier_rows,
    shown_channels,
    slice_examples,
)
from lightning_ifa.report.figures.cam_overlay import (
    STRIP_SIDE,
    own_map_panels,
    own_scale,
    probe_image,
    sample_panels,
    strip,
)
from lightning_ifa.report.figures.channel_views import driving_panels, list_splits
from lightning_ifa.report.figures.images import GROUND, OPACITY, Pixels, curve, gray_plane, plane, stretch_pixels
from lightning_ifa.report.figures.indicator_panel import SIGNS
from lightning_ifa.report.html.data import key, picture, transparent, with_duplicate
from lightning_ifa.report.labels import is_misclassified, probe_caption, sample_label, strongest_class
from lightning_ifa.report.markdown import verdict, verdict_in_words
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import heat
from lightning_ifa.statistics.intensity_scale import IntensityScale

MOST_ROWS = 200
MOST_PROBES = 24
CANDIDATE_NUMBERS = {
    "score": ".1%", "z": ".1f", "association": ".2f", "accuracy_aligned": ".3f", "accuracy_conflicting": ".3f",
}  # fmt: skip
SUBGROUP_NUMBERS = {
    "size": ".0f", "accuracy": ".3f", "expected": ".3f", "auroc": ".3f", "calibration_error": "+.3f", "margin": ".2f",
    "overfitting": "+.2f", "p": ".2g",
}  # fmt: skip
SLICE_NUMBERS = {"slice": ".0f", "size": ".0f", "accuracy": ".3f", "expected": ".3f", "p": ".2g"}
MAP_EDGE = 56  # pixels of a map's layer; the browser enlarges it


class Cell(NamedTuple):
    """One table cell: what is shown, already escaped, and the number to sort by, if it is one."""

    shown: str
    value: float | None = None
    attributes: str = ""


def text(value: object) -> Cell:
    """Make a cell with a text from the user."""
    return Cell(escape(str(value)))


def number(value: float, form: str = ".3f") -> Cell:
    """Make a cell with a number; a dash where there is none."""
    return Cell(format(value, form) if math.isfinite(value) else "–", float(value))


def table(name: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """Write a sortable table; each row comes with the attributes of its element."""
    if not rows:
        return "<p>None.</p>"
    classes = ["" if cell.value is None else ' class="number"' for cell in rows[0][1]]
    line = "".join(f'<th{name} scope="col">{head}</th>' for head, name in zip(heads, classes, strict=True))
    body = "".join(f"<tr {attributes}>{''.join(map(_cell, cells))}</tr>" for attributes, cells in rows)
    return (
        f'<div class="scroll"><table class="sortable" id="{name}"><thead><tr>{line}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def verdicts(report: AnalysisResult) -> str:
    """Write what each alarm means in full width, and below one card a family."""
    alarms = []
    for family in report.alarms:
        words = report.explain(family)
        lines = {"Found": words.found, "How sure": words.certainty, "To try": words.advice}
        words_of = [f"<b>{name}:</b> {escape(line)}" for name, line in lines.items()]
        alarms.append(_card("bad", family, [*_own_map(report, report.findings[family].subject), *words_of]))
    return f'{"".join(alarms)}<div class="cards">{_cards(report)}</div>'


def _own_map(report: AnalysisResult, source: str) -> list[str]:
    """The first picture of an alarm about a candidate: where it acts."""
    panels = own_map_panels(report, source) if source else []
    if not panels:
        return []
    name = (
        f"own map of {source}: what its carriers add on average, then samples that carry it, then samples that do not"
    )
    shown = f'<img alt="{escape(name)}" src="{picture(strip(panels))}">'
    return [f'{shown}<br><span class="quiet">{escape(name[:1].upper() + name[1:])}.</span>']


def _cards(report: AnalysisResult) -> str:
    cards = []
    for family, finding in report.findings.items():
        kind = "bad" if finding.alarm else "" if finding.undecided else "good"
        sign, words = SIGNS[verdict(finding)], verdict_in_words(finding)
        lines = [
            f'<span class="number">score {finding.score:.3f}, z {finding.z:.1f}, health {finding.health:.2f}</span>',
            *_power(finding),
            f'<span class="quiet">{escape(registry.indicator_of(family).meaning)}</span>',
            *([escape(finding.note[:1].upper() + finding.note[1:])] if finding.note and not finding.alarm else []),
        ]
        cards.append(_card(kind, family, lines, f'<span class="verdict">{sign} {words}</span>'))
    return "".join(cards)


def _power(finding: Finding) -> list[str]:
    """Say what the samples could have shown."""
    if not math.isfinite(finding.detectable):
        return []
    return [f'<span class="quiet">alarms on {finding.detectable:.3f} or more with a chance of 80 %</span>']


def _card(kind: str, family: str, lines: Sequence[str], mark: str = "") -> str:
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<section class="card {kind}"><h3>{family}</h3>{mark}{paragraphs}</section>'


def probes(report: AnalysisResult) -> str:
    """Write the pictured samples with their maps as a layer of adjustable strength."""
    ramp = picture(heat(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (8, 1))))
    scale = report.scale
    figures = [_probe(report, row) for row in range(min(len(report.probes.table), MOST_PROBES))]
    return (
        '<div class="controls"><label>strength of the maps <input type="range" id="strength" min="0" max="1" '
        'step="0.05" value="1"></label><label><input type="checkbox" id="stretch"> stretch each map over its own range '
        '(such maps do not compare)</label><span><img class="bar" alt="colour bar" src="' + ramp + '">'
        f'<span class="ends"><span>{scale.low:.2g}</span><span>evidence a position</span><span>{scale.high:.2g}</span>'
        f'</span></span></div><div class="probes" id="probes">{"".join(figures)}</div>'
    )


def features(report: AnalysisResult, channels: Sequence[int]) -> str:
    """Write the table of features, and the element in which the script draws the chosen one."""
    gaps = {int(gap["feature"]): gap for gap in report.table("overfitting_features").to_dict("records")}
    unknown = {"gap": math.nan, "z": math.nan, "share": math.nan}
    rows = []
    for channel in channels:
        name, strength = strongest_class(report, channel)
        gap = gaps.get(channel, unknown)
        gaps_of = [number(gap["gap"], "+.2f"), number(gap["z"], ".1f"), number(gap["share"], ".1%")]
        cells = [number(channel, ".0f"), text(name), number(strength, "+.3f"), *gaps_of]
        rows.append((f'tabindex="0" data-feature="{channel}"', cells))
    heads = ("channel", "strongest class", "importance", "gap, sd", "gap, z", "share of the gap")
    side = '<div class="side" id="feature" aria-live="polite"></div>'
    return f'<div class="features">{table("features", heads, rows)}{side}</div>'


def outliers(report: AnalysisResult) -> str:
    """Write the table of outliers, to be filtered by text and kind."""
    frame = report.samples.assign(row=report.samples.groupby("split", sort=False).cumcount())
    frame = sort_outliers(frame[frame["kind"] != ""]).head(MOST_ROWS)
    pictured = set(outlier_rows(report))
    rows = []
    for sample in frame.to_dict("records"):
        split, row, kind = str(sample["split"]), int(sample["row"]), str(sample["kind"])
        cells = [
            _thumb(report, split, row) if (split, row) in pictured else Cell(""),
            text(sample["sample_id"]),
            text(split),
            text(kind),
            number(sample["score"], ".2f"),
            number(sample["label_score"], ".2f"),
            text(sample_label(report.tables[split], row, report.class_names)),
            number(sample["evidence"], ".2f"),
            text(sample["duplicate_of"]),
        ]
        rows.append((f'data-kind="{escape(kind)}"', cells))
    kinds = "".join(f"<option>{escape(kind)}</option>" for kind in sorted(set(frame["kind"])))
    controls = (
        '<div class="controls" data-for="outliers"><label>find <input type="search"></label><label>kind <select>'
        f'<option value="">all</option>{kinds}</select></label><output></output></div>'
    )
    heads = ("", "sample", "split", "kind", "score, sd", "label wrong", "label → prediction", "evidence", "copy of")
    return (controls if rows else "") + table("outliers", heads, rows)


def candidates(report: AnalysisResult) -> str:
    """Write the table of candidates, judged ones first, and images at both ends of the leading ones."""
    frame = order_candidates(report.confounders)
    rows = []
    for candidate in frame.head(MOST_ROWS).to_dict("records"):
        cells = [
            *(text(candidate[name]) for name in ("source", "origin")),
            *(number(candidate[name], form) for name, form in CANDIDATE_NUMBERS.items()),
            text(candidate["features"]),
            Cell(escape(str(candidate["note"])), attributes=' class="words"'),
        ]
        rows.append(("", cells))
    heads = ("class explains", "accuracy: agrees", "conflicts", "channels", "in words")
    examples = "".join(_examples(report, source) for source in leading_candidates(report))
    return table("candidates", ("candidate", "origin", "share", "z", *heads), rows) + examples


def subgroups(report: AnalysisResult) -> str:
    """Write how well the network does in each group of the metadata, the worst first."""
    if not len(report.subgroups):
        return "<p>There is no metadata that divides the samples into groups; <code>metadata=</code> gives some.</p>"
    rows = []
    for group in report.subgroups.head(MOST_ROWS).to_dict("records"):
        interval = f"{group['low']:.3f} to {group['high']:.3f}"
        cells = [
            *(text(group[name]) for name in ("column", "group")),
            *(number(group[name], form) for name, form in SUBGROUP_NUMBERS.items()),
            text(interval),
            text(group["judgement"]),
        ]
        rows.append(("", cells))
    heads = (
        "column", "group", "samples", "accuracy", "expected of its classes", "AUROC", "overconfidence", "margin",
        "overfitting, sd", "p", "95 % interval of the accuracy", "",
    )  # fmt: skip
    return table("subgroups", heads, rows)


def slices(report: AnalysisResult) -> str:
    """Write the slices that nobody named, with samples of the worst; the misclassified ones come first."""
    if not len(report.slices):
        return "<p>None: where errors lie is explained by chance and by the classes that samples are taken for.</p>"
    rows, pictures = [], []
    for place, weak in enumerate(report.slices.to_dict("records")):
        cells = [number(weak[name], form) for name, form in SLICE_NUMBERS.items()]
        interval, words = f"{weak['low']:.3f} to {weak['high']:.3f}", ' class="words"'
        said = [Cell(escape(str(weak[name])), attributes=words) for name in ("words", "mistakes")]
        rows.append(("", [*cells, text(interval), *said, text(", ".join(map(str, weak["channels"])))]))
        if place < MOST_SLICES:
            panels = [
                p for row in slice_examples(report, place) for p in sample_panels(report, ("validation", int(row)))
            ]
            name = f"samples of slice {weak['slice']}"
            pictures.append(f'<h3>Slice {weak["slice"]}</h3><img alt="{name}" src="{picture(strip(panels))}">')
    heads = ("slice", "samples", "accuracy", "expected of its classes", "p", "95 % interval of the accuracy")
    told = ("what tells it apart", "mistakes", "channels that respond otherwise")
    return table("slices", (*heads, *told), rows) + "".join(pictures)


def channels(report: AnalysisResult) -> str:
    """Write what a few channels see: crops above maps, and their mean contributions by class and by the suspect."""
    if not report.channel_maps.maps:
        return "<p>None.</p>"
    parts = []
    for channel, why in shown_channels(report).items():
        pairs = driving_panels(report, channel, STRIP_SIDE)
        if not pairs:
            continue
        joined = np.concatenate([strip(row) for row in zip(*pairs, strict=True)])
        splits = [
            f"{found.label}{f', {found.side}' if found.side else ''} {found.mean:+.3g}"
            for found in list_splits(report, channel)
        ]
        name = f"crops and maps of channel {channel}"
        parts.append(
            f'<h3>Channel {channel}: {escape(why)}</h3><img alt="{name}" src="{picture(joined)}">'
            f'<p class="quiet">Mean contribution: {escape("; ".join(splits))}.</p>'
        )
    return "".join(parts)


def _examples(report: AnalysisResult, source: str) -> str:
    parts = []
    for group in candidate_groups(report, source):
        panels = [panel for row in group.rows for panel in sample_panels(report, ("validation", int(row)))]
        parts.append(f'<h3>{escape(group.name)}</h3><img alt="{escape(group.name)}" src="{picture(strip(panels))}">')
    return "".join(parts)


def _probe(report: AnalysisResult, row: int) -> str:
    image, cam = probe_image(report, row), report.probes.table.cams[row]
    maps = [cam, *([report.probes.predicted.cams[row]] if is_misclassified(report, row) else [])]
    layers = "".join(_layers(report.scale, image, found) for found in maps)
    plain = ""
    if image is not None:
        shown = picture(_ground(image, cam))
        plain = f'<img alt="input" src="{shown}" style="image-rendering:pixelated">'
    wrong = ' class="wrong"' if is_misclassified(report, row) else ""
    sample = escape(str(report.probes.table.sample_ids[row]))
    return (
        f'<figure class="probe"><div class="pair">{plain}{layers}</div>'
        f"<figcaption><span{wrong}>{escape(probe_caption(report, row))}</span> "
        f'<span class="quiet">sample {sample}</span></figcaption></figure>'
    )


def _ground(image: NDArray[Any] | None, cam: NDArray[Any]) -> Pixels:
    """Draw the input below a map, or gray where it may not be shown."""
    if image is None:
        return np.full((MAP_EDGE, MAP_EDGE), GROUND, dtype=np.uint8)
    return curve(image, 96, 192) if image.ndim == 2 else gray_plane(image, cam)


def _layers(scale: IntensityScale, image: NDArray[Any] | None, cam: NDArray[Any]) -> str:
    level = plane(cam, cam)
    ground = _ground(image, cam)
    height, width = ground.shape[:2]
    share = MAP_EDGE / max(height, width)
    size = max(1, round(height * share)), max(1, round(width * share))
    common, own = (_heat_layer(stretch_pixels(level, *size), found) for found in (scale, own_scale(cam)))
    smooth = ' style="image-rendering:pixelated"'
    return (
        f'<div class="layers"><img class="ground" alt="" src="{picture(ground)}"{smooth}>'
        f'<img class="common" alt="map" src="{common}"><img class="own" alt="map" src="{own}"></div>'
    )


def _heat_layer(level: NDArray[np.float32], scale: IntensityScale) -> str:
    shown = scale.apply(level)
    weight = (255 * OPACITY * shown**0.6).astype(np.uint8)
    return transparent(np.dstack([heat(shown), weight]))


def _thumb(report: AnalysisResult, split: str, row: int) -> Cell:
    names = " ".join(key(*sample) for sample in with_duplicate(report, split, row))
    return Cell("", attributes=f' data-thumb="{names}"')


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' class="number" data-value="{cell.value!r}"'
    return f"<td{value}{cell.attributes}>{cell.shown}</td>"
