"""Dice, missed and made-up objects of a segmentation, against values counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import PoolNet, loader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import FeatureReport, analyze


class Threshold(nn.Module):
    """Segments what is brighter than a half."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        self.features[0].weight.data = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
        self.features[0].bias.data = torch.tensor([1.0, 0.0])

    def forward(self, x):
        return self.features(x)


def test_objects_are_listed_with_their_overlap_the_worst_first(tmp_path):
    x, y = torch.zeros(8, 1, 4, 4), torch.zeros(8, 4, 4, dtype=torch.int64)
    x[0, 0, :2], y[0, 1:3] = 1, 1  # half of 8 and 8: Dice 0.5
    x[1, 0, 0], y[1, 0] = 1, 1  # exact
    y[2, 0] = 1  # missed
    x[3, 0, 0] = 1  # made up; the fifth has neither
    for row in range(5, 8):
        x[row, 0, : row - 4], y[row, : row - 4] = 1, 1
    y[7, 3] = 255  # not judged
    report = analyze(Threshold(), DataLoader(TensorDataset(x, y), 3), task="segmentation", layer="features")
    report.save(tmp_path)
    for one in (report, FeatureReport.load(tmp_path)):
        objects = one.objects.set_index("sample_id")
        assert objects["dice"].to_dict() == pytest.approx(
            {"0": 0.5, "1": 1, "2": 0, "3": 0, "4": np.nan, "5": 1, "6": 1, "7": 1}, nan_ok=True
        )
        assert objects["outcome"].loc[["0", "2", "3", "4"]].to_list() == ["found", "missed", "false positive", "empty"]
        assert set(one.objects["sample_id"][:2]) == {"2", "3"}
        assert one.metrics["ifa/segmentation/dice"] == pytest.approx(4.5 / 7)
        assert one.metrics["ifa/segmentation/missed"] == pytest.approx(1 / 6)
        assert one.metrics["ifa/segmentation/false_positives"] == 0.5
    other = analyze(PoolNet(), loader(12))
    assert other.objects.empty
    assert not [key for key in other.metrics if "segmentation" in key]
