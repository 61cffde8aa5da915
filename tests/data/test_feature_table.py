"""The table's file: everything comes back, nothing foreign gets in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from models import PoolNet, loader, trained

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError, FileError
from lightning_ifa.features.extractor import FeatureExtractor


@pytest.fixture(scope="module")
def table():
    source = loader(12)
    found = FeatureExtractor(trained(PoolNet()), search=True)(source, np.arange(12))
    metadata = pd.DataFrame({"site": ["Leiden", None, "Paris"] * 4, "age": np.arange(12.0)})
    return dataclasses.replace(found, metadata=metadata)


def test_file_gives_everything_back(table, tmp_path):
    table.save(tmp_path / "table.npz")
    found = FeatureTable.load(tmp_path / "table.npz")
    saved = dataclasses.replace(table.without_places(), thumbnails=None)
    for field in dataclasses.fields(FeatureTable):
        left, right = getattr(saved, field.name), getattr(found, field.name)
        if isinstance(left, pd.DataFrame):
            pd.testing.assert_frame_equal(left, right)
        else:
            np.testing.assert_array_equal(left, right, field.name)
    assert found.digest == table.digest
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


@pytest.mark.parametrize("name", ["places", "looks", "thumbnails"])
def test_what_is_never_saved_is_not_read(table, tmp_path, name):
    path = tmp_path / "table.npz"
    table.save(path)
    with np.load(path) as stored:
        np.savez(path, **stored, **{name: np.zeros((12, 3), dtype=np.float32)})
    with pytest.raises(FileError, match=f"holds {name}, which"):
        FeatureTable.load(path)


def test_joined_tables_keep_places_only_where_all_have_them(table):
    halves = [table.take(np.arange(6)), table.take(np.arange(6, 12))]
    assert np.array_equal(FeatureTable.concatenate(halves).places, table.places)
    coarse = dataclasses.replace(halves[1], places=halves[1].places / 2, place_unit=2 * table.place_unit)
    np.testing.assert_allclose(FeatureTable.concatenate([halves[0], coarse]).places, table.places / 2, atol=1e-6)
    assert table.places.shape[1] == 3
    assert table.looks.shape[1] == sum(width for _, width in table.blocks) > 0
    assert not FeatureTable.concatenate([halves[0], halves[1].without_places()]).places.shape[1]


def test_pickled_objects_are_not_read(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, header=np.array([print], dtype=object))
    with pytest.raises(FileError, match=r"evil.npz .* holds Python objects"):
        FeatureTable.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", None])
def test_damaged_and_missing_files(tmp_path, content):
    path = tmp_path / "table.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=r"table.npz"):
        FeatureTable.load(path)


def test_digest_tells_data_apart(table):
    assert table.take(np.arange(11)).digest != table.digest
    flipped = dataclasses.replace(table, targets=table.targets[::-1].copy())
    assert flipped.digest != table.digest


def test_take_by_mask_keeps_rows_together(table):
    mask = table.targets == 1
    taken = table.take(mask)
    assert len(taken) == mask.sum() == len(taken.metadata)
    assert taken.metadata["age"].tolist() == table.indices[mask].tolist()


def test_columns_of_different_length_are_refused(table):
    with pytest.raises(DataError, match="metadata has 3 rows"):
        dataclasses.replace(table, metadata=table.metadata.head(3))


def test_tables_of_different_layers_do_not_join(table):
    with pytest.raises(DataError, match="different layers"):
        FeatureTable.concatenate([table, dataclasses.replace(table, layer="conv")])


def test_parquet_holds_a_row_a_sample(table, tmp_path):
    table.to_parquet(tmp_path / "features.parquet")
    frame = pd.read_parquet(tmp_path / "features.parquet")
    assert len(frame) == 12
    assert {"contributions_7", "activations_0", "metadata_site", "property_background", "sample_ids"} <= set(frame)
