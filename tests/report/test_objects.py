"""Dice, missed and made-up objects of a segmentation, against values counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
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


def test_a_confounder_of_one_object_is_judged_by_the_object_s_size():
    """Bins of the size are no classes of the network; a gain that goes with the size is used by a plain threshold."""
    rng = np.random.default_rng(0)
    x, y = torch.zeros(80, 1, 12, 12), torch.zeros(80, 12, 12, dtype=torch.int64)
    for row, side in enumerate(2 + rng.integers(0, 6, 80)):
        y[row, 2 : 2 + side, 3 : 3 + side] = 1
    x[:, 0] = y + 0.05 * torch.from_numpy(rng.random((80, 12, 12))).float()
    size = y.flatten(1).sum(1).numpy()
    larger = np.where(rng.random(80) < 0.85, size > np.median(size), size <= np.median(size))
    found = {}
    for name, scanner in (("planted", larger), ("sound", rng.random(80) < 0.5)):
        gain = np.where(scanner, 1.8, 1.0) if name == "planted" else np.ones(80)
        data = DataLoader(TensorDataset(x * torch.from_numpy(gain).float().reshape(-1, 1, 1, 1), y), 20)
        metadata = {"validation": pd.DataFrame({"scanner": np.where(scanner, "B", "A")})}
        report = analyze(Threshold(), data, task="segmentation", layer="features", metadata=metadata)
        found[name] = report.confounders.set_index("source").loc["scanner"], report.findings["confounding"]
    assert not found["sound"][1].undecided
    assert found["planted"][0]["z"] > 4
    assert found["planted"][0]["score"] > 0.1
    assert found["planted"][1].alarm
    assert not found["sound"][1].alarm
