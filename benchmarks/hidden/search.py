"""What the search says of one network, against the truth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.real.tasks import Part
from lightning_ifa import FeatureReport, analyze
from lightning_ifa.statistics.own_map import VISIBLE


class Found(NamedTuple):
    """What the search said of one network.

    Attributes:
        alarm: Whether the strongest hidden variable would be an alarm by itself.
        name: Its name, or empty.
        share: The evidence that depends on it.
        auc: Of its column against the truth, within classes.
        peaks: Shares of the samples with and without the tag whose own map peaks in the tag's area; the map is the
            first picture of the alarm, whether its subject is the hidden variable or an image property.
    """

    alarm: bool
    name: str = ""
    share: float = 0.0
    auc: float = math.nan
    peaks: tuple[float, float] = (math.nan, math.nan)

    def sentence(self) -> str:
        """Put it on a line."""
        if not self.name:
            return "quiet, nothing"
        said = f"{'ALARM' if self.alarm else 'quiet'}, {self.name}, share {self.share:.3f}, AUC {self.auc:.3f}"
        if math.isnan(self.peaks[0]):
            return said
        return f"{said}, own map peaks in the tag {self.peaks[0]:.2f} with, {self.peaks[1]:.2f} without"


def search(net: nn.Module, part: Part, truth: np.ndarray | None = None, area: np.ndarray | None = None) -> Found:
    """Analyse a network without metadata.

    Args:
        net: The network.
        part: The samples.
        truth: Who carries what is hidden, ``(n,)``; None where nothing is known.
        area: Which pixels the tag covers, ``(*size,)``; None where it has no fixed place.
    """
    loader = DataLoader(TensorDataset(part.images, part.labels), batch_size=64)
    report = analyze(net, loader, probes=1)
    found = report.confounders[report.confounders["origin"] == "hidden"]
    if found.empty:
        return Found(False)
    first, subject = found.iloc[0], report.findings["confounding"].subject
    name, alarm = str(first["source"]), bool(first["note"])
    if truth is None:
        return Found(alarm, name, float(first["score"]))
    auc = _auc(report, name, part.labels.numpy(), truth)
    peaks = (math.nan, math.nan) if area is None else _peaks(report, subject, truth, area)
    return Found(alarm, name, float(first["score"]), auc, peaks)


def _auc(report: FeatureReport, name: str, labels: np.ndarray, truth: np.ndarray) -> float:
    """AUC within classes, weighted by ``n1 n2 / n``; which side is which is not known."""
    column = report.hidden[report.hidden["variable"] == name].set_index("sample_id")["value"]
    values = column.reindex([str(row) for row in range(len(labels))]).to_numpy()
    known, areas, weights = np.isfinite(values), [], []
    for label in np.unique(labels):
        rows = known & (labels == label)
        count = int(truth[rows].sum())
        if 3 <= count <= rows.sum() - 3:
            areas.append(roc_auc_score(truth[rows], values[rows]))
            weights.append(count * (rows.sum() - count) / rows.sum())
    auc = float(np.average(areas, weights=weights)) if areas else math.nan
    return max(auc, 1 - auc)


def _peaks(report: FeatureReport, name: str, truth: np.ndarray, area: np.ndarray) -> tuple[float, float]:
    """How often a map peaks at the tag: in a cell that holds any of it, or next to one, as deep layers see far.

    A map in which no cell stands out has no peak.
    """
    maps = report.table("confounder_maps")
    maps = maps[maps["source"] == name]
    if maps.empty:
        return math.nan, math.nan
    shape = [int(side) for side in maps["shape"].iloc[0]]
    ends = [np.arange(size + 1) * length // size for size, length in zip(shape, area.shape, strict=True)]
    holds = np.array([
        [area[top:bottom, left:right].any() for left, right in zip(ends[1], ends[1][1:], strict=False)]
        for top, bottom in zip(ends[0], ends[0][1:], strict=False)
    ])  # fmt: skip
    holds = binary_dilation(holds, np.ones((3, 3), dtype=bool)).ravel()
    flat = np.array(maps["map"].tolist())
    hit = holds[flat.argmax(1)] & (flat.max(1) > VISIBLE)
    carries = truth[maps["sample_id"].astype(int).to_numpy()]
    return float(hit[carries].mean()), float(hit[~carries].mean())
