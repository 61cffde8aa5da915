"""Metadata: what the user knows of each sample, read and brought to the rows of a FeatureTable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import ConcatDataset, Subset

from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import MetadataError
from lightning_ifa.options import SPLITS


def read_metadata(source: Mapping[str, pd.DataFrame] | str | os.PathLike[str] | None) -> dict[str, pd.DataFrame]:
    """Read metadata by split.

    Args:
        source: DataFrames by split name, whose row i describes data-set index i; or a CSV or Parquet file with
            the columns ``split`` and ``index``; or None.

    Returns:
        DataFrames by split name, indexed by data-set index.

    Raises:
        MetadataError: The file or table is not of this form; the message names what is wrong.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        frames = {split: pd.DataFrame(frame).reset_index(drop=True) for split, frame in source.items()}
    else:
        frames = _read_file(Path(source))
    unknown = sorted(set(frames) - set(SPLITS))
    if unknown:
        raise MetadataError(f"metadata names the split {unknown[0]!r}; splits are called {' and '.join(SPLITS)}")
    return frames


def own_metadata(dataset: Any) -> pd.DataFrame | None:
    """Read what a data set itself knows of its samples: its attribute ``metadata``, a DataFrame.

    Row i describes index i. Looked for inside ``Subset`` and ``ConcatDataset`` as well. A DataFrame of another length
    than the data set is about something else and is left alone.

    Returns:
        One row a sample, or None.
    """
    frame = getattr(dataset, "metadata", None)
    if isinstance(frame, pd.DataFrame) and len(frame) == len(dataset):
        return frame.reset_index(drop=True)
    if isinstance(dataset, Subset):
        inner = own_metadata(dataset.dataset)
        return None if inner is None else inner.iloc[list(dataset.indices)].reset_index(drop=True)
    if not isinstance(dataset, ConcatDataset):
        return None
    parts = [own_metadata(part) for part in dataset.datasets]
    if all(part is None for part in parts):
        return None
    lengths = [len(part) for part in dataset.datasets]  # type: ignore[arg-type]
    filled = [pd.DataFrame(index=range(n)) if part is None else part for part, n in zip(parts, lengths, strict=True)]
    return pd.concat(filled, ignore_index=True)


def metadata_rows(frame: pd.DataFrame, indices: Indices, length: int, split: str) -> pd.DataFrame:
    """Select the rows of some samples.

    Args:
        frame: One split's metadata, indexed by data-set index.
        indices: Wanted data-set indices, ``(n,)``.
        length: Number of samples in the whole data set.
        split: Name of the split, for messages.

    Raises:
        MetadataError: The table has another length than the data set, or lacks a wanted row.
    """
    missing = [int(i) for i in indices if i not in frame.index]
    if missing or int(frame.index.max()) >= length:
        raise MetadataError(
            f"metadata of the {split} split describes {len(frame)} samples up to index {frame.index.max()}, the data "
            f"set has {length}" + (f"; index {missing[0]} is missing" if missing else "")
        )
    return frame.loc[indices].reset_index(drop=True)


def _read_file(path: Path) -> dict[str, pd.DataFrame]:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise MetadataError(f"metadata file {path} cannot be read as CSV or Parquet: {error}") from error
    lacking = [name for name in ("split", "index") if name not in table.columns]
    if lacking:
        raise MetadataError(f"metadata file {path} has no column {lacking[0]!r}; it has {list(table.columns)}")
    repeats = table[table.duplicated(["split", "index"])]
    if len(repeats):
        row = repeats.iloc[0]
        raise MetadataError(f"metadata file {path} describes {row['split']} index {row['index']} more than once")
    return {str(split): rows.drop(columns="split").set_index("index") for split, rows in table.groupby("split")}
