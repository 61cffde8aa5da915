"""What the page's script needs: distributions of the features, and small pictures of samples."""

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


def shown_features(report: AnalysisResult) -> list[int]:
    """The channels of the page's table: those that tell most, and those that overfit most."""
    overfitted = [int(channel) for channel in report.table("overfitting_features")["feature"].head(MOST_ROWS // 4)]
    telling = [int(channel) for channel in rank_features(report)]
    ranked = dict.fromkeys(telling[: MOST_ROWS - len(overfitted)] + overfitted + telling)
    return list(ranked)[:MOST_ROWS]


def page_data(report: AnalysisResult, features: list[int]) -> dict[str, Any]:
    """Give ``features``, channel to its distribution and samples, and ``thumbs``, sample to its pictures."""
    pictured = set(rank_features(report)[:MOST_FEATURES].tolist())
    wanted: list[Place] = []
    found: dict[str, Any] = {}
    for channel in features:
        samples = [("validation", int(row)) for row in strongest_rows(report, channel)] if channel in pictured else []
        wanted += samples
        found[str(channel)] = _distribution(center_contributions(report, channel)) | {
            "samples": [key(*place) for place in samples]
        }
    for split, row in outlier_rows(report):
        duplicate = duplicate_row(report, split, row)
        wanted += [(split, row), *([("train", duplicate)] if duplicate is not None else [])]
    thumbs = {key(*place): [picture(panel) for panel in sample_panels(report, place, THUMB)] for place in set(wanted)}
    return {"features": found, "thumbs": dict(sorted(thumbs.items()))}


def key(split: str, row: int) -> str:
    """Name of a sample within the page."""
    return f"{split}/{row}"


def safe_json(content: Any) -> str:
    r"""JSON that may stand inside a ``<script>`` element whatever its strings contain.

    >>> print(safe_json("</script>"))
    "\u003c/script\u003e"
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def picture(pixels: Pixels) -> str:
    """A picture as a data URI: lossless unless that is larger than a good JPEG."""
    found = []
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, quality=QUALITY)
        found.append((buffer.tell(), kind.lower(), buffer.getvalue()))
    _, kind, content = min(found)
    return data_uri(content, kind)


def transparent(pixels: NDArray[np.uint8]) -> str:
    """An ``(h, w, 4)`` picture as a data URI that keeps its transparency."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return data_uri(buffer.getvalue(), "png")


def data_uri(content: bytes, kind: str) -> str:
    """An image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _distribution(values: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Shares of the samples in bins over the common range, the extreme thousandths clipped into the outer bins."""
    low, high = (float(end) for end in np.quantile(np.concatenate(list(values.values())), (0.002, 0.998)))
    high = high if high > low else low + 1e-6
    shares = {
        split: np.histogram(np.clip(part, low, high), BINS, (low, high))[0] / max(len(part), 1)
        for split, part in values.items()
    }
    return {
        "low": low,
        "high": high,
        "counts": {split: [round(float(s), 5) for s in share] for split, share in shares.items()},
    }
