"""Data for the page's script: distributions of the features, and small pictures of samples."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_ifa.report.examples import MOST_FEATURES, duplicate_row, outlier_rows, rank_features, strongest_rows
from lightning_ifa.report.feature_views import center_contributions
from lightning_ifa.report.figures.cam_overlay import Place, sample_panels
from lightning_ifa.report.figures.images import Pixels
from lightning_ifa.report.result import AnalysisResult

MOST_ROWS = 48
BINS = 30
THUMB = 80
QUALITY = 85


def choose_features(report: AnalysisResult) -> list[int]:
    """Choose the channels of the page's table: the most important ones, and those that overfit most."""
    overfitted = report.table("overfitting_features")["feature"].head(MOST_ROWS // 4).astype(int).tolist()
    important = rank_features(report).tolist()
    return list(dict.fromkeys(important[: MOST_ROWS - len(overfitted)] + overfitted + important))[:MOST_ROWS]


def page_data(report: AnalysisResult, features: list[int]) -> dict[str, Any]:
    """Give ``features``, channel to its distribution and samples, and ``thumbs``, sample to its pictures."""
    pictured = set(rank_features(report)[:MOST_FEATURES].tolist())
    wanted = {sample for outlier in outlier_rows(report) for sample in with_duplicate(report, *outlier)}
    found: dict[str, Any] = {}
    for channel in features:
        samples = [("validation", int(row)) for row in strongest_rows(report, channel)] if channel in pictured else []
        wanted |= set(samples)
        names = {"samples": [key(*sample) for sample in samples]}
        found[str(channel)] = _distribution(center_contributions(report, channel)) | names
    thumbs = {key(*one): [picture(panel) for panel in sample_panels(report, one, THUMB)] for one in sorted(wanted)}
    return {"features": found, "thumbs": thumbs}


def with_duplicate(report: AnalysisResult, split: str, row: int) -> list[Place]:
    """Give a sample, and the training sample that it is a copy of, if there is one."""
    duplicate = duplicate_row(report, split, row)
    return [(split, row)] if duplicate is None else [(split, row), ("train", duplicate)]


def key(split: str, row: int) -> str:
    """Name a sample within the page."""
    return f"{split}/{row}"


def safe_json(content: Any) -> str:
    r"""Write JSON that may stand inside a ``<script>`` element whatever its strings contain.

    >>> print(safe_json("</script>"))
    "\u003c/script\u003e"
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def picture(pixels: Pixels) -> str:
    """Encode a picture as a data URI: lossless unless that is larger than a good JPEG."""
    found = {kind: encode(Image.fromarray(pixels), kind, QUALITY) for kind in ("jpeg", "png")}
    kind = min(found, key=lambda kind: len(found[kind]))
    return data_uri(found[kind], kind)


def transparent(pixels: NDArray[np.uint8]) -> str:
    """Encode an ``(h, w, 4)`` picture as a data URI that keeps its transparency."""
    return data_uri(encode(Image.fromarray(pixels), "png"), "png")


def encode(image: Image.Image, kind: str, quality: int = QUALITY) -> bytes:
    """Write an image as the content of a ``"png"`` or ``"jpeg"`` file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Encode an image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _distribution(values: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Count shares of the samples in bins over one range; the extreme thousandths count into the outer bins."""
    low, high = (float(end) for end in np.quantile(np.concatenate(list(values.values())), (0.002, 0.998)))
    high = high if high > low else low + 1e-6
    counts = {}
    for split, part in values.items():
        shares = np.histogram(np.clip(part, low, high), BINS, (low, high))[0] / max(len(part), 1)
        counts[split] = [round(float(share), 5) for share in shares]
    return {"low": low, "high": high, "counts": counts}
