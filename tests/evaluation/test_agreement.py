"""Cascade, mean map over layers, groups of outputs, map quality from a network, and their figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from models import PoolNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import analyze, analyze_layers, check_maps, evaluate_maps
from lightning_ifa.errors import DataError, OutputError
from lightning_ifa.evaluation import agreement_figures as figures
from lightning_ifa.evaluation.cascade import randomise_cascade
from lightning_ifa.evaluation.layers import mean_map
from lightning_ifa.model.output_groups import OutputGroup
from lightning_ifa.statistics.bland_altman import bland_altman
from lightning_ifa.statistics.importance import importance
from lightning_ifa.statistics.intensity_scale import scale_percentiles
from lightning_ifa.statistics.output_clusters import cluster_outputs


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return trained(PoolNet())


@pytest.fixture(scope="module")
def report(model):
    return analyze(model, loader(60, seed=5), loader(90, seed=1))


def test_a_cascade_starts_at_the_trained_maps_and_leaves_the_network_as_it_was(model, report):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = randomise_cascade(model, loader(60, seed=5), report, samples=24)
    layers = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    assert list(found["layer"]) == ["", *reversed(layers)]
    assert found.iloc[0, 1:].to_list() == pytest.approx([1, 1, 1])
    assert found["absolute_similarity"].iloc[-1] < 0.9
    whole = check_maps(model, loader(60, seed=5), report, methods=("hirescam",), samples=24)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert figures.cascade_figure(found).axes
    drawn = figures.level_figure(whole, "hirescam")
    assert len(drawn.axes) == len(set(whole.levels["class"]))
    assert "r = 1.00" in drawn.axes[0].get_title(loc="left") + drawn.axes[0].get_title()
    with pytest.raises(DataError, match="no method"):
        figures.level_figure(whole, "gradcam")


def test_a_mean_map_keeps_the_mean_of_the_sums_at_the_finest_resolution():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
            self.coarse = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.coarse(self.fine(x)).mean((2, 3)))

    torch.manual_seed(0)
    data = loader(30, seed=2)
    reports = analyze_layers(Two(), data, layers=["fine", "coarse"])
    found = mean_map(reports)
    tables = [one.tables["validation"] for one in reports.values()]
    assert found.shape == tables[0].cams.shape
    sums = np.mean([table.intensity for table in tables], axis=0)
    np.testing.assert_allclose(found.reshape(len(found), -1).sum(1), sums, rtol=1e-3, atol=1e-4)
    assert len(figures.layers_figure(reports).axes) == 3 * 6
    other = tables[1].take(np.arange(5))
    for wrong in ({}, {"fine": tables[0], "coarse": other}):
        with pytest.raises(DataError, match="layer"):
            mean_map(wrong)


def test_a_group_of_outputs_has_the_mean_of_their_maps_and_groups_are_found_by_correlation():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 43))
    data = DataLoader(torch.randn(12, 1, 8, 8), 6)
    singles = [analyze(net, data, task=OutputGroup((k,)), probes=1).tables["validation"].cams for k in (3, 7)]
    together = analyze(net, data, task=OutputGroup((3, 7)), probes=1).tables["validation"].cams
    np.testing.assert_allclose(together, np.mean(singles, axis=0), atol=1e-5)
    for columns, text in (((), "names no output"), ((43,), r"network's output is \(")):
        with pytest.raises(OutputError, match=text):
            OutputGroup(columns)(torch.zeros(2, 43), None)
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((80, 3))
    truth = np.arange(43) % 3
    scores = causes[:, truth] + 0.4 * rng.standard_normal((80, 43))
    np.testing.assert_array_equal(cluster_outputs(scores, 3), truth)
    with pytest.raises(ValueError, match="between 1 and"):
        cluster_outputs(scores, 44)


def test_importance_agrees_between_splits_and_the_percentiles_hold_the_scale(report):
    table = report.tables["validation"]
    percentiles = scale_percentiles(table.cams)
    assert percentiles.loc["maxima", 90] == pytest.approx(report.scale.high)
    assert percentiles.loc["minima", 50] == pytest.approx(report.scale.low)
    found = importance(table.contributions, table.explained, table.correct)
    expected = bland_altman(found.matrix[0], found.matrix[1])
    assert expected.bias == pytest.approx((found.matrix[0] - found.matrix[1]).mean())
    assert figures.percentile_figure(report).axes
    assert len(figures.bland_altman_figure(report).axes) == len(report.importance.classes)
    assert len(figures.bland_altman_figure(report, (0, 1)).axes) == 1
    without = dataclasses.replace(report, tables={"validation": table})
    with pytest.raises(DataError, match="no training split"):
        figures.bland_altman_figure(without)


def test_a_map_of_a_linear_network_is_as_sensitive_as_its_input_and_lies_where_the_region_is(model):
    class Located(TensorDataset):
        def region(self, index):
            region = np.zeros((8, 8), dtype=bool)
            region[:4, :4] = True
            return region if index % 2 else None

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.features.weight)

        def forward(self, x):
            return torch.stack([self.features(x).sum((1, 2, 3)), torch.zeros(len(x))], 1)

    x = torch.zeros(8, 1, 8, 8)
    x[:, 0, 1:3, 1:3] = 1 + torch.rand(8, 2, 2, generator=torch.Generator().manual_seed(0))
    data = DataLoader(Located(x, torch.arange(8) % 2), 3)
    found = evaluate_maps(Linear(), data, layer="features", explain=0, sanity_check=False, shares=(0.5,)).numbers
    assert found["cam/relevance_mass"] == found["cam/pointing"] == 1
    assert found["cam/relevance_rank"] < found["cam/relevance_mass"]
    assert found["shuffled/relevance_mass"] < 0.6
    assert found["cam/sparseness"] == pytest.approx(1 - 4 / 64, abs=0.02)
    norms = x.flatten(1).norm(dim=1) / x.flatten(1).std(1)
    assert 0.5 < found["cam/max_sensitivity"] / float((0.1 * np.sqrt(64 / 3) / norms).mean()) < 1.5
    again = evaluate_maps(Linear(), DataLoader(data.dataset, 8), layer="features", explain=0, sanity_check=False,
                          shares=(0.5,)).numbers  # fmt: skip
    assert again["cam/max_sensitivity"] == pytest.approx(found["cam/max_sensitivity"])
