"""Metadata: by mapping or file, and what is said where it does not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lightning_ifa.data.metadata import metadata_rows, read_metadata
from lightning_ifa.errors import MetadataError

FRAME = pd.DataFrame({"split": ["train", "train", "validation"], "index": [0, 1, 0], "site": ["a", "b", "a"]})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_file(tmp_path, suffix):
    path = tmp_path / f"metadata.{suffix}"
    FRAME.to_csv(path, index=False) if suffix == "csv" else FRAME.to_parquet(path)
    found = read_metadata(path)
    assert found["train"]["site"].tolist() == ["a", "b"]
    assert metadata_rows(found["train"], np.array([1]), 2, "train")["site"].tolist() == ["b"]


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (FRAME.drop(columns="split"), "no column 'split'"),
        (pd.concat([FRAME, FRAME]), "train index 0 more than once"),
        (FRAME.replace("validation", "val"), "split 'val'"),
    ],
)
def test_file_of_another_form(tmp_path, frame, match):
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(MetadataError, match=match):
        read_metadata(tmp_path / "metadata.csv")


def test_missing_file(tmp_path):
    with pytest.raises(MetadataError, match=r"nowhere\.csv cannot be read"):
        read_metadata(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(("rows", "match"), [(3, "index 3 is missing"), (9, "up to index 8, the data set has 5")])
def test_wrong_length(rows, match):
    frame = read_metadata({"train": pd.DataFrame({"site": range(rows)})})["train"]
    with pytest.raises(MetadataError, match=match):
        metadata_rows(frame, np.arange(5), 5, "train")
