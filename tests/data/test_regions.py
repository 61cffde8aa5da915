import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_ifa.data.metadata import own_metadata
from lightning_ifa.data.regions import Regions, find_regions
from lightning_ifa.errors import DataError


class Numbered(Dataset):
    """Sample i's region is row ``first + i``; it knows its own number."""

    def __init__(self, n, first=0, knows=True):
        self.n, self.first, self.asked = n, first, 0
        if knows:
            self.metadata = pd.DataFrame({"number": np.arange(n) + first})
            self.region = self._region

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return torch.zeros(1, 8, 8), 0

    def _region(self, index):
        self.asked += 1
        mask = np.zeros((8, 8), dtype=bool)
        mask[self.first + index] = True
        return mask


def rows(regions, indices):
    return [None if regions(i) is None else int(regions(i).argmax() // 8) for i in indices]


def test_a_data_set_is_asked_itself():
    regions = find_regions(None, "validation", Numbered(4))
    assert rows(regions, range(4)) == [0, 1, 2, 3]
    assert find_regions(None, "validation", Numbered(4, knows=False)) is None


def test_subset_and_concatenation_are_looked_through():
    inner = ConcatDataset([Numbered(3), Numbered(2, knows=False), Numbered(2, first=5)])
    data = Subset(inner, [6, 0, 4, 2])
    assert rows(find_regions(None, "validation", data), range(4)) == [6, 0, None, 2]
    numbers = own_metadata(data)["number"]
    assert numbers.fillna(-1).tolist() == [6, 0, -1, 2]


def test_the_users_regions_go_before_the_data_sets():
    mine = [np.eye(8, dtype=bool)] * 4
    assert find_regions({"validation": mine}, "validation", Numbered(4))(3).sum() == 8
    assert find_regions({"validation": lambda i: None}, "validation", Numbered(4))(3) is None


def test_masks_are_read_once():
    data = Numbered(3)
    regions = find_regions(None, "validation", data)
    first = regions.coverage(np.arange(3), (4, 4))
    np.testing.assert_array_equal(regions.coverage(np.arange(3), (4, 4)), first)
    assert data.asked == 3


def test_coverage_is_the_share_of_area():
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:3, :4] = 255
    found = Regions({0: mask}.get, "validation").coverage(np.arange(2), (4, 4))
    expected = np.zeros((4, 4))
    expected[0, :2], expected[1, :2] = 1.0, 0.5
    np.testing.assert_allclose(found[0], expected)
    assert np.isnan(found[1]).all()


def test_metadata_of_another_length_is_about_something_else():
    data = Numbered(4)
    data.metadata = data.metadata[:3]
    assert own_metadata(data) is None
    data.metadata = {"licence": "free"}
    assert own_metadata(data) is None


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"test": []}, "names the split 'test'"),
        ({"validation": [None] * 3}, "3 for a data set of 4 samples"),
        ({"validation": lambda i: np.ones((8, 8))}, "index 1 has dtype float64"),
        ({"validation": lambda i: np.ones((1, 8, 8), dtype=bool)}, r"shape \(1, 8, 8\), the model's input \(8, 8\)"),
    ],
)
def test_bad_regions_are_refused(given, match):
    with pytest.raises(DataError, match=match):
        find_regions(given, "validation", Numbered(4))(1, (8, 8))
