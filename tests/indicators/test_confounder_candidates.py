"""Every candidate, wherever it comes from, has features, classes, examples and a sentence; every task is told."""

import numpy as np
import pandas as pd
import pytest
import torch
from models import PoolNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import IFAWarning, MetadataError
from lightning_ifa.report.examples import candidate_groups

N, SIZE = 240, 16


class Reads(nn.Module):
    """Channels: the upper left corner, a stripe in the middle for each target; linear in all of them."""

    def __init__(self, corner, targets=1):
        super().__init__()
        self.maps = nn.Identity()
        self.weight = nn.Parameter(torch.cat([torch.full((targets, 1), corner), (1 - corner) * torch.eye(targets)], 1))

    def forward(self, x):
        planes = [nn.functional.pad(x[:, 0, :3, :3], (0, SIZE - 3, 0, SIZE - 3)) * 16 / 9]
        for number in range(len(self.weight)):
            rows = slice(5 + 2 * number, 7 + 2 * number)
            planes.append(nn.functional.pad(x[:, 0, rows, 6:10], (6, 6, rows.start, SIZE - rows.stop)) * 2)
        pooled = self.maps(torch.stack(planes, 1)).mean((2, 3)) * 16
        return pooled @ self.weight.T


def regression(seed=0):
    rng = torch.Generator().manual_seed(seed)
    target = torch.randn(N, generator=rng)
    x = 0.1 * torch.rand(N, 1, SIZE, SIZE, generator=rng)
    x[:, :, 5:7, 6:10] += target[:, None, None, None]
    x[:, :, :3, :3] += (target + 0.7 * torch.randn(N, generator=rng))[:, None, None, None]
    return TensorDataset(x, target)


def multilabel(seed=0):
    rng = torch.Generator().manual_seed(seed)
    labels = (torch.rand(N, 3, generator=rng) < 0.4).float()
    x = 0.1 * torch.rand(N, 1, SIZE, SIZE, generator=rng)
    for number in range(3):
        x[:, :, 5 + 2 * number : 7 + 2 * number, 6:10] += labels[:, number, None, None, None]
    x[:, :, :3, :3] += labels[:, :1, None, None]
    return TensorDataset(x, labels)


MASK = np.zeros((SIZE, SIZE), dtype=bool)
MASK[4:12, 5:11] = True


def analysed(net, data, **more):
    regions = {"validation": lambda index: MASK}
    return analyze(net, DataLoader(data, 40), swaps=True, regions=regions, layer="maps", **more)


@pytest.mark.parametrize(("task", "make", "targets"), [("regression", regression, 1), ("multilabel", multilabel, 3)])
@pytest.mark.parametrize("corner", [0.0, 0.5])
def test_a_corner_that_the_network_reads_is_found_whatever_the_task(task, make, targets, corner):
    report = analysed(Reads(corner, targets), make(), task=task)
    assert report.findings["confounding"].alarm == (corner > 0)
    found = report.confounders.query("origin in ('swap', 'region')").set_index("source")
    for source in ("corner_top_left", "outside the region"):
        assert (found.loc[source, "score"] > 0.15) == (corner > 0)
        assert ("moves with" in found.loc[source, "note"]) == (corner > 0)
        assert ("slope" in found.loc[source, "note"]) == (corner > 0 and task == "regression")
    assert abs(found.loc["corner_bottom_right", "score"]) < 0.02


def test_a_candidate_of_any_origin_has_features_examples_and_a_sentence():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 2
    tagged = labels.bool() ^ (torch.rand(N, generator=rng) < 0.1)
    x = 0.1 * torch.rand(N, 1, SIZE, SIZE, generator=rng)
    x[:, :, 5:7, 6:10] += labels[:, None, None, None]
    x[:, :, :3, :3] += tagged[:, None, None, None]
    metadata = {"validation": pd.DataFrame({"site": np.where(tagged, "A", "B")})}
    report = analysed(Reads(0.5), TensorDataset(x, labels), metadata=metadata, task="binary")
    named = report.confounders.drop_duplicates(["source", "origin"]).set_index(["source", "origin"])
    candidates = [
        ("site", "metadata"), ("corner_top_left", "background"), ("corner_top_left", "swap"),
        ("outside the region", "region"),
    ]  # fmt: skip
    for source, origin in candidates:
        row = named.loc[(source, origin)]
        assert row["features"][0] == 0, (source, origin)
        assert row["worst_class"] in (0, 1)
        assert source in row["note"]
        ends = [[int(one) for one in row[end]] for end in ("highest", "lowest")]
        assert tagged[ends[0]].unique().numel() == tagged[ends[1]].unique().numel() == 1
        assert tagged[ends[0][0]] != tagged[ends[1][0]]
        assert len(candidate_groups(report, source)) == 2


def test_a_bad_value_is_named_by_the_users_own_row():
    values = pd.Series([0.5, np.inf, 1.0] * 100)
    data = DataLoader(TensorDataset(torch.randn(300, 1, 12, 12), torch.arange(300) % 3), 50)
    with pytest.raises(MetadataError, match=r"'age', row .*: an infinite number") as caught:
        analyze(PoolNet().eval(), data, metadata={"validation": pd.DataFrame({"age": values})}, max_samples=60)
    assert values[int(str(caught.value).split("row ")[1].split(":")[0])] == np.inf


def test_a_list_among_texts_is_taken_as_text():
    values = pd.Series(["m", "f", ["?"]] * 20, dtype=object)
    data = DataLoader(TensorDataset(torch.randn(60, 1, 12, 12), torch.arange(60) % 3), 50)
    with pytest.warns(IFAWarning, match=r"'age' .* taken as text"):
        analyze(PoolNet().eval(), data, metadata={"validation": pd.DataFrame({"age": values})})


def test_swaps_of_images_without_labels_say_what_is_missing():
    data = DataLoader(TensorDataset(torch.randn(40, 1, 12, 12), torch.full((40,), -1)), 20)
    with pytest.raises(Exception, match="two classes with two"):
        analyze(PoolNet().eval(), data, task="multiclass", swaps=True)


def test_a_class_in_two_guises_is_listed_and_scores_nothing():
    rng = torch.Generator().manual_seed(0)
    labels, guise = torch.arange(N) % 2, torch.rand(N, generator=rng) < 0.4
    x = 0.2 * torch.rand(N, 1, SIZE, SIZE, generator=rng)
    x[:, :, 5:7, 6:10] += labels[:, None, None, None]
    x[(labels == 1) & guise, :, :3, :3] += 2.0
    report = analyze(Reads(0.5), DataLoader(TensorDataset(x, labels), 40), layer="maps", task="binary")
    first = report.subpopulations.iloc[0]
    assert (first["class"], first["found"]) == (1, True)
    groups = [[bool(guise[int(one)]) for one in group] for group in first["examples"]]
    assert groups == [[False] * 3, [True] * 3]
    assert first["features"][0] == 0
    assert not report.subpopulations["found"].iloc[1]
    assert not [key for key in report.metrics if "subpop" in key]
