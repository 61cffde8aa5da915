"""What channels see: their maps sum to their contributions, and a position's field is that of the convolutions."""

import numpy as np
import pytest
import torch
from models import PoolNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.features.channel_maps import receptive_field
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.report.examples import driving_rows, shown_channels
from lightning_ifa.report.feature_report import FeatureReport


def test_maps_sum_to_contributions_and_are_kept(tmp_path):
    report = analyze(trained(PoolNet(), 20), loader(40, seed=5), loader(40, seed=1), max_samples=40)
    found, table = report.channel_maps, report.tables["validation"]
    assert set(found.maps) == {(c, row) for c in shown_channels(report) for row in driving_rows(report, c)}
    for (channel, row), values in found.maps.items():
        assert values.sum() == pytest.approx(table.contributions[row, channel], abs=1e-4)
        assert ("validation", row) in report.gallery
    report.save(tmp_path)
    again = FeatureReport.load(tmp_path)
    assert again.channel_maps.receptive_field == found.receptive_field
    assert all(np.array_equal(again.channel_maps.maps[key], values) for key, values in found.maps.items())
    assert again.slices.equals(report.slices)


class Stack(nn.Module):
    """Convolutions of which each position sees 15 of 64 pixels of a row."""

    def __init__(self):
        super().__init__()
        parts = [nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)]
        self.maps = nn.Sequential(*parts, nn.Identity())
        for part in parts:
            nn.init.constant_(part.weight, 0.1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.maps(x).mean((2, 3)))


def test_the_receptive_field_is_measured():
    images = TensorDataset(torch.rand(4, 1, 64, 64), torch.tensor([0, 1, 0, 1]))
    extraction = FeatureExtractor(Stack())
    with extraction.session():
        batch = next(iter(extraction.batches(DataLoader(images, 4), np.arange(4))))
        found = receptive_field(batch)
    assert found is not None
    assert all(0.1 < share <= 0.3 for share in found)  # 15 / 64, in steps of a position
