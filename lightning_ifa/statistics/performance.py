"""Performance: how well a changed network does its task, by labels where there are any, else by the full network."""

from __future__ import annotations

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats
from lightning_ifa.statistics.strata import UNLABELLED


class Performance:
    """One measure a task: accuracy (multiclass, binary, segmentation), R^2 (regression), agreement otherwise.

    Segmentation counts the most frequent foreground class of each mask, as everywhere in this package. Multilabel
    counts the yes / no decisions that are the full network's; a custom score is compared with the full network's
    by R^2. Both are fidelity, and equal 1 for the full network.

    Args:
        task: One of the package's tasks.
        targets: Classes with -1, or floats with NaN, where unlabelled, ``(n,)``.
        logits: Logits of the full network, ``(n, k)``.
        predictions: Predictions of the full network, ``(n,)``.

    Attributes:
        measure: What is measured, for titles and tables.
    """

    def __init__(self, task: str, targets: Array, logits: Array, predictions: Array) -> None:
        self._decisions = logits > 0
        is_float = targets.dtype.kind == "f"
        labelled = ~np.isnan(targets) if is_float else targets != UNLABELLED
        if task == "multilabel":
            self.measure = "decisions kept"
        elif labelled.any() and task != "custom":
            self.measure = "R2" if is_float else "accuracy"
        else:
            self.measure = "R2 of the full network" if is_float else "predictions kept"
            targets, labelled = predictions, np.ones(len(predictions), dtype=bool)
        self._targets, self._labelled = targets[labelled], labelled

    def __call__(self, logits: Array, predictions: Array) -> Floats:
        """Measure r versions of the network.

        Args:
            logits: Logits of each version, ``(r, n, k)``.
            predictions: Predictions of each version, ``(r, n)``.

        Returns:
            Performance of each version, ``(r,)``; 1 is perfect.
        """
        if self.measure == "decisions kept":
            return np.asarray(((logits > 0) == self._decisions).mean((1, 2)))
        found = predictions[:, self._labelled]
        if not self.measure.startswith("R2"):
            return np.asarray((found == self._targets).mean(1))
        spread = float(((self._targets - self._targets.mean()) ** 2).sum())
        if not spread > 0:
            return np.full(len(found), np.nan)
        return np.asarray(1 - ((found - self._targets).astype(np.float64) ** 2).sum(1) / spread)
