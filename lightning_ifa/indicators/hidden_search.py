"""The search for what nobody named: modes in the places and looks of the validation samples, as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.statistics.confounder_candidates import ConfounderCandidate, find_candidates
from lightning_ifa.statistics.hidden_variables import HiddenVariable, Signal, find_hidden, place_signals
from lightning_ifa.statistics.significance import correct_for_count

ORIGIN = "hidden"
MOST_SEARCHED = 2000
"""Labelled samples at most; of more, as many are taken at equal steps."""

HIDDEN_COLUMNS = ["sample_id", "variable", "value", "group"]


class HiddenSearch:
    """What was found among the labelled validation samples.

    Attributes:
        names: One a variable, strongest first.
        found: The variables.
        rows: Rows of the validation table that were searched, ``(n,)``.
        signals: Number of places and looks that were searched.
    """

    def __init__(self, context: AnalysisContext) -> None:
        table, labels = context.validation, context.strata["validation"]
        known = np.flatnonzero(labels >= 0)
        self.rows = known[:: -(-len(known) // MOST_SEARCHED) or 1]
        signals = _signals(table, labels, self.rows)
        self.signals = sum(signal.values.shape[1] for signal in signals)
        self.found = find_hidden(table.logits[self.rows], labels[self.rows], signals)
        self.names = _name_variables(self.found, table)
        self._table, self._labels = table, labels

    def columns(self) -> pd.DataFrame:
        """Give each variable's values for all rows of the validation table, NaN where it is unlabelled."""
        frame = pd.DataFrame(index=range(len(self._table)), columns=self.names, dtype=float)
        for name, hidden in zip(self.names, self.found, strict=True):
            frame.loc[self.rows, name] = hidden.values
        return frame

    def candidates(self, groups: NDArray[np.int64] | None) -> list[ConfounderCandidate]:
        """Test which side of the cut each sample lies on, as a metadata column; groups are those of ``rows``."""
        if not self.found:
            return []
        sides = {name: hidden.upper.astype(float) for name, hidden in zip(self.names, self.found, strict=True)}
        logits, labels = self._table.logits[self.rows], self._labels[self.rows]
        tests = self.found[0].tests
        return [
            replace(
                candidate,
                z=correct_for_count(candidate.z, tests),
                worst_z=correct_for_count(candidate.worst_z, tests),
                identifiable=True,
            )
            for candidate in find_candidates(logits, labels, {ORIGIN: pd.DataFrame(sides)}, groups=groups)
        ]

    def list(self) -> pd.DataFrame:
        """List every sample of every variable; for the columns see ``AnalysisResult.hidden``."""
        names = self._table.sample_ids[self.rows]
        parts = [
            pd.DataFrame({
                "sample_id": names, "variable": name, "value": hidden.values,
                "group": np.where(hidden.upper, "upper", "lower"),
            })
            for name, hidden in zip(self.names, self.found, strict=True)
        ]  # fmt: skip
        return pd.concat(parts, ignore_index=True) if parts else no_hidden()


def no_hidden() -> pd.DataFrame:
    """List no variable."""
    return pd.DataFrame({name: pd.Series(dtype=float if name == "value" else str) for name in HIDDEN_COLUMNS})


def _signals(table: FeatureTable, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Signal]:
    signals: list[Signal] = []
    if table.has_one_object:  # its labels are sizes, not classes that compete for the evidence
        return signals
    if table.places.shape[1]:
        evidence = table.places[rows].reshape(len(rows), table.places.shape[1], -1)
        signals.append(Signal("place", place_signals(evidence, labels[rows])))
    if table.looks.shape[1]:
        signals.append(Signal("look", table.looks[rows].astype(np.float64)))
    return signals


def _name_variables(found: Sequence[HiddenVariable], table: FeatureTable) -> list[str]:
    names: list[str] = []
    counts: Counter[str] = Counter()
    for hidden in found:
        if hidden.kind == "place":
            cell = np.unravel_index(hidden.number, table.places.shape[2:])
            name = f"hidden at cell {', '.join(str(int(place) + 1) for place in cell)}"
        else:
            name = f"hidden look of {_block_of(table, hidden.number)}"
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return names


def _block_of(table: FeatureTable, number: int) -> str:
    ends = np.cumsum([width for _, width in table.blocks])
    position = int(np.searchsorted(ends, number, side="right"))
    return table.blocks[position][0] if position < len(table.blocks) else "a block"
