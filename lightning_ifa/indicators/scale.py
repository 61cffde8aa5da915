"""The common intensity scale: one range for the maps of every image and every run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UPPER_QUANTILE = 0.90
LOWER_QUANTILE = 0.50
TANH_ENDS = (0.05, 0.95)


@dataclass(frozen=True)
class IntensityScale:
    """Maps signed, unscaled intensities to display values.

    Attributes:
        low: Intensity shown as the lower end.
        high: Intensity shown as the upper end.
        method: ``"norm"``, linear and clipped to [0, 1]; ``"tanh"``, which sends the ends to 0.05 and 0.95 and
            never clips (IFA paper).
    """

    low: float
    high: float
    method: str = "norm"

    def apply(self, cams: NDArray[Any]) -> NDArray[np.float32]:
        """Scale maps of any shape to display values in [0, 1].

        >>> IntensityScale(0.0, 2.0).apply(np.array([-1.0, 1.0, 2.0, 5.0]))
        array([0. , 0.5, 1. , 1. ], dtype=float32)
        """
        position = (np.asarray(cams, dtype=np.float64) - self.low) / (self.high - self.low)
        if self.method == "tanh":
            start, end = np.arctanh(2 * np.array(TANH_ENDS) - 1)
            position = (np.tanh(start + position * (end - start)) + 1) / 2
        return np.clip(position, 0, 1).astype(np.float32)

    def to_dict(self) -> dict[str, float | str]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


def common_scale(cams: NDArray[Any], method: str = "norm") -> IntensityScale:
    """Fit the scale to a data set's maps: 90th percentile of the maxima, median of the minima.

    The rule of the IFA paper's research code. A degenerate range is widened, never replaced by a scale per image.

    Args:
        cams: ``(n, *space)``, n >= 1.
        method: ``"norm"`` or ``"tanh"``.

    Raises:
        ValueError: The method is unknown.
    """
    if method not in ("norm", "tanh"):
        raise ValueError(f"unknown scale method {method!r}; choose 'norm' or 'tanh'")
    flat = cams.reshape(len(cams), -1)
    high = float(np.quantile(flat.max(1), UPPER_QUANTILE))
    low = float(np.quantile(flat.min(1), LOWER_QUANTILE))
    if not high > low:
        slack = max(abs(high), abs(low), 1.0) * 1e-6
        low, high = min(low, high) - slack, max(low, high) + slack
    return IntensityScale(low, high, method)
