"""What a person does next: weights that part class and suspect, samples to look at, whether more data would help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError, did_you_mean
from lightning_ifa.indicators.sample_table import CONFLICT
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.label_noise import CERTAIN
from lightning_ifa.statistics.learning_curve import LearningCurve, Split, learning_curve
from lightning_ifa.statistics.metadata_groups import list_levels

FILE_NAME = r"\.[A-Za-z][A-Za-z0-9]{1,4}$"
"""End of what is taken for the name of a file."""

LEAST_NAMED = 0.9  # share of a column's values that must look like names of files
REVIEW_COLUMNS = [
    "reason", "sample_id", "split", "file", "target", "prediction", "suggested_label", "label_score", "duplicate_of",
]  # fmt: skip
COPY, DOUBT, GROUP_ERROR = "copy with two labels", "label in doubt", "wrong in a group that does worse: "
MISLABELLED = "mislabelled"


def weigh_samples(
    report: AnalysisResult, suspect: str, targets: NDArray[Any] | None, values: Any | None
) -> pd.Series[float]:
    """Weigh training samples so that a suspect's levels are equally frequent in each class; see ``sample_weights``."""
    table = report.tables.get("train")
    if targets is None or values is None:
        if table is None:
            raise DataError("the report has no training split; pass targets= and values= of the training samples")
        if suspect not in table.metadata:
            raise DataError(
                f"the training samples have no metadata column {suspect!r}"
                f"{did_you_mean(suspect, map(str, table.metadata))}; pass targets= and values= of the training samples"
            )
        targets, values, index = table.targets, table.metadata[suspect], table.indices
    else:
        index = np.arange(len(targets))
    column = pd.Series(np.asarray(values), name=suspect)
    targets = np.asarray(targets)
    if targets.dtype.kind == "f" or len(column) != len(targets):
        raise DataError(
            f"targets are {targets.dtype}, {len(targets)}, and values {len(column)}; one class a sample is needed"
        )
    levels = dict(list_levels(column.to_frame())).get(suspect)
    if levels is None:
        raise DataError(f"the values of {suspect!r} do not part the samples in groups that can be balanced")
    frame = pd.DataFrame({"target": targets, "level": levels.to_numpy()})
    known = frame["level"].notna() & (frame["target"] >= 0)
    by_class = frame[known].groupby("target")["level"]
    share = by_class.transform("size") / by_class.transform("nunique")
    weights = (share / frame[known].groupby(["target", "level"])["level"].transform("size")).reindex(frame.index)
    doubt = doubt_training_labels(report, index)
    found = weights.fillna(1.0).where(frame["target"] >= 0, 0.0).to_numpy() * (
        1 - np.where(doubt > CERTAIN, doubt, 0.0)
    )
    return pd.Series(found, index=index, name="weight")


def doubt_training_labels(report: AnalysisResult, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the probability that the label of each training sample is wrong, ``(n,)``; 0 where nothing is known of it.

    Args:
        report: The report.
        indices: Data-set indices of the samples, ``(n,)``.
    """
    table = report.tables.get("train")
    if table is None:
        return np.zeros(len(indices))
    scores = report.samples.loc[report.samples["split"] == "train", "label_score"].to_numpy(float)
    return pd.Series(scores, table.indices).reindex(indices).fillna(0.0).to_numpy()


def list_for_review(report: AnalysisResult) -> pd.DataFrame:
    """List the samples to look at first; for the columns see ``FeatureReport.samples_to_review``."""
    samples = report.samples
    doubt = samples["label_score"].fillna(0.0).to_numpy(float)
    kind, split = samples["kind"].to_numpy(), samples["split"].to_numpy()
    wrong = ((samples["target"] != samples["prediction"]) & (samples["target"] >= 0)).to_numpy()
    groups = pd.Series(_worse_groups(report), report.tables["validation"].sample_ids)
    group = groups[~groups.index.duplicated()].reindex(samples["sample_id"]).fillna("").to_numpy()
    masks = [
        kind == CONFLICT,
        (doubt > CERTAIN) | (kind == MISLABELLED),
        wrong & (group != "") & (split == "validation"),
    ]
    turn = np.select(masks, range(len(masks)), len(masks))
    listed = samples.assign(
        file=_files(report),
        reason=np.select(masks, [np.full(len(doubt), COPY), np.full(len(doubt), DOUBT), GROUP_ERROR + group], ""),
    )
    order = np.lexsort((-doubt, turn))
    return listed.iloc[order[turn[order] < len(masks)]][REVIEW_COLUMNS].reset_index(drop=True)


def _files(report: AnalysisResult) -> NDArray[Any]:
    """File name of each sample of the table of samples, empty where the metadata have none."""
    parts = []
    for table in report.tables.values():
        named = [column for column in table.metadata if _names_files(table.metadata[column])]
        files = table.metadata[named[0]].fillna("").astype(str).to_numpy() if named else np.full(len(table), "")
        parts.append(pd.Series(files, table.sample_ids))
    known = pd.concat(parts)
    known = known[~known.index.duplicated()]
    return np.asarray(known.reindex(report.samples["sample_id"]).fillna(""))


def _names_files(column: pd.Series[Any]) -> bool:
    known = column.dropna()
    if not len(known) or not pd.api.types.is_string_dtype(known.astype(object)):
        return False
    return bool(known.astype(str).str.contains(FILE_NAME).mean() >= LEAST_NAMED)


def _worse_groups(report: AnalysisResult) -> NDArray[Any]:
    """The worst group that does worse than its classes explain, of each validation sample; empty if it is in none."""
    table = report.tables["validation"]
    found = np.full(len(table), "", dtype=object)
    worse = report.subgroups[report.subgroups["judgement"] == "worse"] if len(report.subgroups) else report.subgroups
    levels = dict(list_levels(table.metadata)) if len(worse) else {}
    for column, group in zip(worse["column"].astype(str), worse["group"].astype(str), strict=True):
        if column in levels:
            inside = (levels[column].astype(object) == group).to_numpy()
            found[inside & (found == "")] = f"{column} {group}"
    return found


def grow(report: AnalysisResult, column: str | None, group: str | None, times: float, seed: int) -> LearningCurve:
    """Extrapolate what more training samples would bring; see ``FeatureReport.learning_curve``."""
    train, validation = report.tables.get("train"), report.tables["validation"]
    if train is None or not validation.has_one_label:
        raise DataError("a learning curve needs training samples, and one class a sample")
    (A, first), (B, second) = ((table.activations, table.targets) for table in (train, validation))
    rows = [first >= 0, second >= 0]
    varied, what = None, "the training samples"
    if column is not None:
        joined = pd.concat([table.metadata.reindex(columns=[column])[column] for table in (train, validation)])
        levels = dict(list_levels(joined.reset_index(drop=True).to_frame())).get(column)
        if levels is None or group not in set(levels.dropna()):
            names = [] if levels is None else sorted(set(levels.dropna()))
            raise DataError(
                f"column {column!r} of the metadata has no group {group!r}{did_you_mean(str(group), names)}"
            )
        inside = (levels == group).to_numpy()
        varied = inside[: len(train)][rows[0]]
        rows[1] &= inside[len(train) :]
        what = f"the training samples of {column} {group}"
        if not varied.any() or not rows[1].any():
            raise DataError(f"{column} {group} is not in both splits")
    return learning_curve(
        Split(A[rows[0]], first[rows[0]]), Split(B[rows[1]], second[rows[1]]), varied, times, what, seed
    )
