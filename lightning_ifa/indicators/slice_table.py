"""The table of slices: samples that err too often together, described by what is known of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.outliers import read_logits
from lightning_ifa.statistics.group_differences import Difference, higher_within, list_differences
from lightning_ifa.statistics.metadata_columns import GROUP
from lightning_ifa.statistics.slices import LEAST_SAMPLES, WeakSlice, find_slices
from lightning_ifa.statistics.subgroups import wilson
from lightning_ifa.text import join_words, quote_name

COLUMNS = [
    "slice", "size", "accuracy", "low", "high", "expected", "p", "mistakes", "words", "channels", "samples",
]  # fmt: skip
MOST_CHANNELS = 3
MOST_MISTAKES = 2
LOUD = 0.8
"""Chance that a sample of the slice activates a channel more (or less) than another one, from which on it is named."""


def list_slices(table: FeatureTable, class_names: tuple[str, ...]) -> pd.DataFrame:
    """List the slices of a table, the worst first; for the columns see ``AnalysisResult.slices``."""
    known = np.flatnonzero(table.targets >= 0) if table.has_one_label else np.arange(0)
    part = table.take(known)
    features, properties = part.activations, part.properties.to_numpy(np.float64)
    found = find_slices(features, properties, read_logits(part), part.targets) if len(known) else []
    rows = [_describe(number, part, weak, class_names) for number, weak in enumerate(found, 1)]
    return pd.DataFrame(rows, columns=COLUMNS)


def slice_metrics(table: FeatureTable, slices: pd.DataFrame) -> dict[str, float]:
    """Give ``found`` (how many slices) and ``worst`` (excess share of errors of the worst, 0 without any).

    Empty where classes do not compete, or too few samples are labelled to tell.
    """
    if not table.has_one_label or int((table.targets >= 0).sum()) < LEAST_SAMPLES:
        return {}
    excess = slices["expected"] - slices["accuracy"]
    return {"found": float(len(slices)), "worst": float(excess.max()) if len(slices) else 0.0}


def slice_rows(table: FeatureTable, samples: list[str]) -> NDArray[np.int64]:
    """Give the row of each of a slice's samples, in their order."""
    row = {str(name): number for number, name in enumerate(table.sample_ids)}
    return np.array([row[name] for name in samples if name in row], dtype=np.int64)


def _describe(number: int, table: FeatureTable, weak: WeakSlice, names: tuple[str, ...]) -> list[object]:
    inside, wrong = weak.inside, ~table.correct
    size, errors = int(inside.sum()), int((wrong & inside).sum())
    low, high = wilson(size - errors, size)
    metadata = table.metadata.drop(columns=GROUP, errors="ignore")
    told = [*list_differences(table.properties, inside), *list_differences(metadata, inside)]
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(~wrong[rows], kind="stable")]
    return [
        number, size, 1 - errors / size, low, high, 1 - weak.expected, weak.p,
        _mistakes(table, wrong & inside, names), join_words([_say(each) for each in told]),
        _channels(table, inside), [str(name) for name in table.sample_ids[rows]],
    ]  # fmt: skip


def _mistakes(table: FeatureTable, rows: NDArray[np.bool_], names: tuple[str, ...]) -> str:
    """Say which classes are taken for which most often."""
    pairs = Counter(zip(table.targets[rows].tolist(), table.predictions[rows].tolist(), strict=True))
    name = {label: quote_name(text) for label, text in enumerate(names)}
    return join_words(
        [f"{name.get(a, a)} taken for {name.get(b, b)} ({count})" for (a, b), count in pairs.most_common(MOST_MISTAKES)]
    )


def _channels(table: FeatureTable, inside: NDArray[np.bool_]) -> list[int]:
    """Name the channels that respond otherwise in the slice, the clearest first."""
    away = np.abs(higher_within(table.activations, inside) - 0.5)
    best = np.argsort(-away, kind="stable")[:MOST_CHANNELS]
    return [int(channel) for channel in best if away[channel] >= LOUD - 0.5]


def _say(difference: Difference) -> str:
    name = quote_name(difference.name)
    if difference.category:
        share, other = f"{difference.inside:.0%}", f"{difference.outside:.0%}"
        return f"{name} is {quote_name(difference.category)} in {share} (elsewhere {other})"
    word = "higher" if difference.chance > 0.5 else "lower"
    return f"{word} {name} (median {difference.inside:.3g}, elsewhere {difference.outside:.3g})"
