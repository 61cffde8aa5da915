"""The suspect of a repair as a column of both splits: one of the metadata, or one that was recovered without."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError, did_you_mean
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.hidden_variables import place_signals
from lightning_ifa.statistics.metadata_columns import GROUP, read_column
from lightning_ifa.statistics.metadata_groups import list_levels

LEAST_AUC = 0.9
"""AUROC at which a hidden variable must be told in samples left out, for its values in others to be believed."""

REPAIRABLE = ("metadata", "hidden")


class SuspectColumn(NamedTuple):
    """A suspect's values.

    Attributes:
        names: Name of each level.
        levels: Split to the level of each row, -1 where unknown, ``(n,)``.
        values: Split to the values as numbers, ``(n, p)``; 0 where unknown.
    """

    names: list[str]
    levels: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.float64]]


def choose_suspect(report: AnalysisResult, wanted: str | None) -> tuple[str, str]:
    """Give name and origin of the suspect: the one asked for, or the strongest that has a column.

    Raises:
        DataError: There is none, or none of that name.
    """
    found = report.confounders
    usable = found[found["origin"].isin(REPAIRABLE)]
    if wanted is None:
        tested = usable[usable["score"].notna()]
        if tested.empty:
            raise DataError(
                "there is no suspect with a column of its own: neither the metadata nor a hidden variable; hand over "
                "what you know of each sample (metadata=)"
            )
        return str(tested.iloc[0]["source"]), str(tested.iloc[0]["origin"])
    match = usable[usable["source"] == wanted]
    if match.empty:
        raise DataError(f"there is no suspect {wanted!r} with a column{did_you_mean(wanted, usable['source'])}")
    return wanted, str(match.iloc[0]["origin"])


def metadata_column(name: str, frames: dict[str, pd.DataFrame]) -> SuspectColumn:
    """Read a metadata column of both splits; numbers are cut into three parts of one size.

    Args:
        name: The column.
        frames: Split to the metadata of its rows.

    Raises:
        DataError: A split does not have the column, or it is an identifier.
    """
    for split, frame in frames.items():
        if name not in frame:
            raise DataError(f"the {split} samples have no metadata column {name!r}; hand it over by metadata=")
    joined = pd.concat([frame[name] for frame in frames.values()], ignore_index=True)
    column, levels = read_column(joined), dict(list_levels(joined.to_frame()))
    if column.values is None or name not in levels or name == GROUP:
        raise DataError(f"the column {name!r} does not part the samples in groups that can be balanced")
    codes, names = pd.factorize(levels[name], sort=True)
    values = np.zeros((len(joined), column.values.shape[1]))
    values[column.known] = column.values
    ends = np.cumsum([len(frame) for frame in frames.values()])[:-1]
    return SuspectColumn(
        list(map(str, names)),
        dict(zip(frames, np.split(codes.astype(np.int64), ends), strict=True)),
        dict(zip(frames, np.split(values, ends), strict=True)),
    )


def hidden_column(name: str, report: AnalysisResult, tables: dict[str, FeatureTable]) -> SuspectColumn:
    """Tell in both splits on which side of a hidden variable a sample lies.

    Its groups are known for the validation samples that were searched. A logistic regression on the places and looks
    of these tells the others.

    Args:
        name: The hidden variable.
        report: The report that found it.
        tables: ``"train"`` and ``"validation"``, with places and looks.

    Raises:
        DataError: It is not told surely enough in samples that the regression has not seen.
    """
    found = report.hidden[report.hidden["variable"] == name]
    upper = pd.Series((found["group"] == "upper").to_numpy(int), found["sample_id"].to_numpy())
    known = upper.reindex(tables["validation"].sample_ids).to_numpy(float)
    signals = _signals(tables)
    rows = np.flatnonzero(~np.isnan(known))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    X, y = signals["validation"][rows], known[rows].astype(int)
    held_out = cross_val_predict(model, X, y, cv=3, method="decision_function")
    auc = float(roc_auc_score(y, held_out))
    if auc < LEAST_AUC:
        raise DataError(
            f"{name!r} cannot be told in samples that were not searched (AUROC {auc:.2f}); look at its two groups "
            "(report.hidden), give it a name and a metadata column, and repair by that"
        )
    model.fit(X, y)
    levels = {split: model.predict(values).astype(np.int64) for split, values in signals.items()}
    levels["validation"][rows] = y
    values = {split: level[:, None].astype(float) for split, level in levels.items()}
    return SuspectColumn(["lower", "upper"], levels, values)


def _signals(tables: dict[str, FeatureTable]) -> dict[str, NDArray[Any]]:
    """Looks and places of both splits, along the same directions, ``(n, m)``."""
    parts = list(tables.values())
    labels = np.concatenate([np.where(table.targets < 0, table.predictions, table.targets) for table in parts])
    unit = max(table.place_unit for table in parts)
    places = np.concatenate([table.with_place_unit(unit).places for table in parts])
    signals = [np.concatenate([table.looks for table in parts]).astype(np.float64)]
    if places.shape[1]:
        signals.append(place_signals(places.reshape(len(places), places.shape[1], -1), labels))
    joined = np.concatenate(signals, axis=1)
    return dict(zip(tables, np.split(joined, np.cumsum([len(table) for table in parts])[:-1]), strict=True))
