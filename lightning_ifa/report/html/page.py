"""The report as one self-contained HTML page, for any browser and for MLflow's sandboxed frame.

No network, no storage, no relative link. Everything from the user is escaped, and the page's own policy lets only the
one script of this package run, which it names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from lightning_ifa.report.figures.channel_views import describe_field
from lightning_ifa.report.html import sections
from lightning_ifa.report.html.data import choose_features, data_uri, encode, page_data, safe_json
from lightning_ifa.report.labels import describe_data
from lightning_ifa.report.markdown import headline
from lightning_ifa.report.result import AnalysisResult


def write_html(
    report: AnalysisResult, path: Path, picture: bytes | None, title: str = "Integrated feature analysis"
) -> None:
    """Write the page, in place of an earlier file.

    Args:
        report: The report.
        path: Path of the file.
        picture: Overview of the report, a PNG file's content; None to do without.
        title: Title of the page.
    """
    channels = choose_features(report)
    warnings = "".join(f"<p><b>Left out:</b> {escape(text)}</p>" for text in report.warnings)
    parts = [
        f'<h1>{escape(headline(report))}</h1><p class="quiet">{escape(title)} · {escape(describe_data(report))}</p>',
        sections.verdicts(report) + warnings,
        "" if picture is None else f'<img alt="overview" src="{_encode_overview(picture)}">',
        "<h2>Probes</h2><p>The same samples in every run. All maps share one intensity scale: the same colour is the "
        "same evidence, in every image and every run that uses this scale.</p>",
        sections.probes(report),
        "<h2>Features</h2><p>Point at a row to see how the feature's contributions are distributed in both splits, "
        "and the samples to which it responds most.</p>",
        sections.features(report, channels),
        "<h2>Outliers</h2><p>Samples unlike their class, and copies of training samples, with their maps.</p>",
        sections.outliers(report),
        "<h2>Confounder candidates</h2><p>Share of the evidence between classes that follows each. What originates "
        "from the content may well belong to the class, and is not judged.</p>",
        sections.candidates(report),
        "<h2>Groups</h2><p>How well the network does in each group of the metadata. A group does worse than "
        "expected if it has more errors than its classes explain; p allows for the number of groups.</p>",
        sections.subgroups(report),
        "<h2>Slices that nobody named</h2><p>Samples that lie together in the network's features or in what the image "
        "shows, and that err more than samples taken for the same classes. Beside each sample its map.</p>",
        sections.slices(report),
        "<h2>What channels see</h2><p>Channels that carry a suspect, lead the main directions of the evidence, or tell "
        f"classes apart, on the samples to which they contribute most: {describe_field(report)}.</p>",
        sections.channels(report),
    ]
    page = _page(title, "".join(parts), safe_json(page_data(report, channels)))
    partial = path.with_name(path.name + ".part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def _page(title: str, body: str, data: str) -> str:
    script = _asset("page.js")
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{mark}'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{_asset("page.css")}</style></head>'
        f'<body>{body}<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>'
    )


def _encode_overview(picture: bytes) -> str:
    """Encode the overview as a data URI: photographs make a PNG larger than a JPEG."""
    with Image.open(io.BytesIO(picture)) as image:
        as_jpeg = encode(image.convert("RGB"), "jpeg", 90)
    return data_uri(picture, "png") if len(picture) <= len(as_jpeg) else data_uri(as_jpeg, "jpeg")


@cache
def _asset(name: str) -> str:
    return resources.files("lightning_ifa.report.html").joinpath(name).read_text(encoding="utf-8")
