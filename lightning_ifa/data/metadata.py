"""Metadata: what the user knows of each sample, read and brought to the rows of a FeatureTable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import ConcatDataset, Subset

from lightning_ifa.data.column_types import settle_types
from lightning_ifa.data.metadata_files import read_metadata_file
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
        frames = {str(split): _as_frame(frame, str(split)) for split, frame in source.items()}
    elif isinstance(source, (str, os.PathLike)):
        frames = read_metadata_file(Path(source))
    else:
        raise MetadataError(
            f'metadata is a {type(source).__name__}; expected {{"train": frame, "validation": frame}}, or the path of '
            "a CSV or Parquet file"
        )
    unknown = sorted(set(frames) - set(SPLITS))
    if unknown:
        raise MetadataError(f"metadata names the split {unknown[0]!r}; splits are called {' and '.join(SPLITS)}")
    return {split: settle_types(frame, split) for split, frame in frames.items()}


def _as_frame(given: Any, split: str) -> pd.DataFrame:
    try:
        return pd.DataFrame(given).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise MetadataError(f"metadata of the {split} split is no table: {error}") from error


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
    missing = np.asarray(indices)[~np.isin(indices, frame.index)]
    last = frame.index.max() if len(frame) else -1
    if len(missing) or last >= length:
        raise MetadataError(
            f"metadata of the {split} split describes {len(frame)} samples up to index {last}, the data set has "
            f"{length}" + (f"; index {missing[0]} is missing" if len(missing) else "")
        )
    return frame.loc[indices].reset_index(drop=True)
