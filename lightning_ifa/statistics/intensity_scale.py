"""The common intensity scale: one range for the maps of every image and every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.statistics.arrays import Array, Floats

UPPER_QUANTILE = 0.90
LOWER_QUANTILE = 0.50
TANH_ENDS = (0.05, 0.95)
METHODS = ("norm", "tanh", "diverging")
PERCENTILES = (25, 50, 75, 90, 99)


@dataclass(frozen=True)
class IntensityScale:
    """Maps signed, unscaled intensities to display values.

    Attributes:
        low: Intensity shown as the lower end.
        high: Intensity shown as the upper end.
        method: ``"norm"``, linear and clipped to [0, 1]; ``"tanh"``, which sends the ends to 0.05 and 0.95 and
            never clips (IFA paper); ``"diverging"``, linear and clipped with ``low == -high``, so that no evidence
            is always shown as 0.5.
    """

    low: float
    high: float
    method: str = "norm"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown scale method {self.method!r}; choose one of {', '.join(METHODS)}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise ValueError(f"a scale from {self.low} to {self.high}; expected two finite ends, the lower first")

    def apply(self, cams: Array) -> NDArray[np.float32]:
        """Scale maps of any shape to display values in [0, 1].

        >>> IntensityScale(0.0, 2.0).apply(np.array([-1.0, 1.0, 2.0, 5.0]))
        array([0. , 0.5, 1. , 1. ], dtype=float32)
        """
        position = self.position(cams)
        if self.method == "tanh":
            start, end = np.arctanh(2 * np.array(TANH_ENDS) - 1)
            position = (np.tanh(start + position * (end - start)) + 1) / 2
        return np.clip(position, 0, 1).astype(np.float32)

    def position(self, cams: Array) -> Floats:
        """Scale linearly without clipping: 0 at ``low``, 1 at ``high``; an order-keeping change of units."""
        return np.asarray((np.asarray(cams, dtype=np.float64) - self.low) / (self.high - self.low))

    def widen(self, ratio: float) -> IntensityScale:
        """Move both ends away from zero so that fewer maps clip: ``scale_ratio`` of the research code, 1.5 there.

        Args:
            ratio: What both ends are multiplied by, above 0.

        >>> IntensityScale(-1.0, 2.0).widen(1.5)
        IntensityScale(low=-1.5, high=3.0, method='norm')
        """
        return IntensityScale(self.low * ratio, self.high * ratio, self.method)

    def to_dict(self) -> dict[str, float | str]:
        """Give the fields as plain values, for JSON; ``IntensityScale(**fields)`` takes them back."""
        return asdict(self)


def common_scale(
    cams: Array, method: str = "norm", quantiles: tuple[float, float] = (LOWER_QUANTILE, UPPER_QUANTILE)
) -> IntensityScale:
    """Fit the scale to a data set's maps: 90th percentile of the maxima, median of the minima.

    The rule of the IFA paper's research code. The diverging scale takes the upper quantile of the largest absolute
    values for both ends. A degenerate range is widened, never replaced by a scale per image.

    Args:
        cams: Maps, ``(n, *space)``, n >= 1.
        method: ``"norm"``, ``"tanh"`` or ``"diverging"``.
        quantiles: Quantile of the minima and of the maxima over images, each in [0, 1].

    Raises:
        ValueError: The method is unknown, or a quantile is outside [0, 1].
    """
    flat = np.asarray(cams, dtype=np.float64).reshape(len(cams), -1)
    if method == "diverging":
        high = float(np.quantile(np.abs(flat).max(1), quantiles[1]))
        low = -high
    else:
        high = float(np.quantile(flat.max(1), quantiles[1]))
        low = float(np.quantile(flat.min(1), quantiles[0]))
    if not high > low:
        slack = max(abs(high), abs(low), 1.0) * 1e-6
        low, high = min(low, high) - slack, max(low, high) + slack
    return IntensityScale(low, high, method)


def scale_percentiles(cams: Array) -> pd.DataFrame:
    """Tabulate where the ends of a scale come from: percentiles of the images' maxima and minima.

    Args:
        cams: Maps, ``(n, *space)``, n >= 1.

    Returns:
        Rows ``"maxima"`` and ``"minima"``, columns 25, 50, 75, 90, 99. The default scale takes 90 of the maxima and 50
        of the minima.

    >>> float(scale_percentiles(np.array([[0.0, 1.0], [-1.0, 3.0]])).loc["maxima", 50])
    2.0
    """
    flat = np.asarray(cams, dtype=np.float64).reshape(len(cams), -1)
    rows = {
        name: np.percentile(values, PERCENTILES) for name, values in (("maxima", flat.max(1)), ("minima", flat.min(1)))
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=PERCENTILES)


def scales_by(cams: Array, groups: Array, method: str = "norm") -> dict[int, IntensityScale]:
    """Fit one scale a class (or stack of inputs, or any group of maps); intensities compare within a group only.

    Args:
        cams: Maps, ``(n, *space)``.
        groups: Group of each map, whole numbers, as ``FeatureTable.explained``, ``(n,)``.
        method: Method of every scale; see ``common_scale``.
    """
    return {int(group): common_scale(cams[groups == group], method) for group in np.unique(groups)}


def apply_by(scales: Mapping[int, IntensityScale], cams: Array, groups: Array) -> NDArray[np.float32]:
    """Scale each map by its group's scale.

    Args:
        scales: Result of ``scales_by``, of this run or another.
        cams: Maps, ``(n, *space)``.
        groups: Group of each map, ``(n,)``.

    Raises:
        ValueError: A group has no scale.
    """
    missing = sorted(set(np.unique(groups).tolist()) - set(scales))
    if missing:
        raise ValueError(f"no intensity scale for {missing}; there are scales for {sorted(scales)}")
    shown = np.empty(cams.shape, dtype=np.float32)
    for group in np.unique(groups):
        shown[groups == group] = scales[int(group)].apply(cams[groups == group])
    return shown
