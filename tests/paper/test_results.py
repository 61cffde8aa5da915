"""Localisation, the printed table, and the nested runs."""

from __future__ import annotations

import itertools

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from examples.paper.results.localisation import localisation
from examples.paper.results.measure import CURVES, METHODS, Cost, measure, value
from examples.paper.results.record import record
from examples.paper.results.render import figure, markdown
from lightning_ifa.analysis import analyze


class Spots(Dataset):
    """A bright (1) or dark (0) spot in one quarter, whose place is known; or said to be the opposite one."""

    def __init__(self, told_wrong):
        rng = np.random.default_rng(0)
        self.y = np.arange(120) % 2
        self.x = torch.tensor(0.1 * rng.standard_normal((120, 1, 16, 16)), dtype=torch.float32)
        self.regions = np.zeros((120, 16, 16), dtype=bool)
        for image, region, label, (r, c) in zip(
            self.x, self.regions, self.y, rng.integers(0, 2, (120, 2)), strict=True
        ):
            image[0, 8 * r + 2 : 8 * r + 6, 8 * c + 2 : 8 * c + 6] += 3 * (2 * label - 1)
            row, column = (1 - r, 1 - c) if told_wrong else (r, c)
            region[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = True

    def __len__(self):
        return 120

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])

    def region(self, index):
        return self.regions[index]


class Bright(nn.Module):
    """Counts bright and dark positions, and pools."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.features[0].weight[:] = torch.tensor([-1.0, 1.0])[:, None, None, None]
            self.features[0].bias[:] = -1
            self.head.weight[:] = torch.eye(2)
            self.head.bias[:] = 0

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize(("told_wrong", "inside"), [(False, 1.0), (True, 0.0)])
def test_energy_and_pointing_tell_a_right_place_from_a_wrong_one(told_wrong, inside):
    loader = DataLoader(Spots(told_wrong), 40)
    found = localisation(analyze(Bright(), loader), loader)
    assert found == {
        "energy": pytest.approx(inside),
        "area": pytest.approx(0.25),
        "pointing": inside,
        "pointing_chance": pytest.approx(0.25),
        "near": inside,
        "near_chance": pytest.approx(81 / 256),
    }


def test_no_region_no_localisation():
    spots = Spots(False)
    loader = DataLoader([(spots.x[i], int(spots.y[i])) for i in range(120)], 40)
    assert localisation(analyze(Bright(), loader), loader) == {}


@pytest.fixture(scope="module")
def numbers():
    loader = DataLoader(Spots(False), 40)
    net = Bright().eval()
    return measure(net, loader, analyze(net, loader, loader), Cost(maps=40, masked=24, draws=2))


def test_every_number_of_the_table_is_measured(numbers):
    expected = {"insertion", "deletion", "average_drop", "average_increase", "random_weights", "correlation/common",
                "correlation/relu", "correlation/per_image"}  # fmt: skip
    for method in METHODS:
        assert expected <= set(numbers.loc[numbers["method"] == method, "name"])
    assert {f"enough/{name}" for name in CURVES.values()} <= set(numbers["name"])
    assert value(numbers, "correlation/common", "hirescam") == pytest.approx(1, abs=1e-4)
    assert value(numbers, "performance") == 1
    assert value(numbers, "localisation/energy") == pytest.approx(1)
    assert value(numbers, "insertion", "hirescam") > value(numbers, "insertion_shuffled", "hirescam")
    assert np.isnan(value(numbers, "no such name"))


def test_the_table_prints_what_was_measured(numbers):
    rows = {"rsna": "stand-in", "lite0": "real"}
    both = pd.concat([numbers.assign(row=row, data=data, layer="net.features") for row, data in rows.items()])
    text = markdown(both)
    assert "| RSNA pneumonia | stand-in | 1.00 / " in text
    assert "| ImageNet weights | real | 1.00 / " in text
    assert all(len({line.count("|") for line in lines}) == 1 for lines in _tables(text))
    assert figure(both).axes[0].get_yticklabels()[0].get_text() == "RSNA pneumonia"


def _tables(text):
    for is_table, lines in itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            yield list(lines)


def test_methods_become_runs_inside_the_rows_run(numbers, store):
    client = mlflow.MlflowClient(store)
    parent = client.create_run(client.create_experiment("paper")).info
    more = pd.DataFrame({"method": ["", "hirescam"], "name": ["nothing", "nothing"], "value": [np.nan, np.nan]})
    record(client, parent.run_id, pd.concat([numbers, more]), row="rsna", data="stand-in")
    children = client.search_runs([parent.experiment_id], f"tags.mlflow.parentRunId = '{parent.run_id}'")
    assert {run.data.tags["paper.method"] for run in children} == set(METHODS)
    assert all(run.info.status == "FINISHED" and "paper/insertion" in run.data.metrics for run in children)
    run = client.get_run(parent.run_id)
    assert run.data.metrics["paper/localisation/area"] == pytest.approx(0.25)
    assert run.data.tags["paper.data"] == "stand-in"
    assert "paper/nothing" not in run.data.metrics
