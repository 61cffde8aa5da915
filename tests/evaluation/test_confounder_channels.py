import numpy as np
import pandas as pd
import pytest
import torch
from models import CLASSES, PoolNet, SignalNet, Squares
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import DataError
from lightning_ifa.evaluation.confounder_channels import confounder_channel_maps


@pytest.fixture(scope="module")
def found():
    """A network that reads the tag in the corner through a channel of its own."""
    torch.manual_seed(0)
    model = PoolNet().eval()
    data = Squares(120, seed=1)
    tagged = (data.labels == 2) ^ (torch.rand(120) < 0.15)
    data.images[tagged, :, :3, -3:] += 4.0
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data.images), data.labels).backward()
        optimizer.step()
    site = pd.DataFrame({"site": np.where(tagged, "A", "B"), "name": [f"n{i}" for i in range(120)]})
    source = DataLoader(data, 50)
    return model, source, analyze(model, source, metadata={"validation": site}), tagged.numpy()


def test_maps_sum_to_the_channels_contributions_and_images_are_the_inputs(found):
    model, source, report, _ = found
    seen = confounder_channel_maps(model, source, report, "site", examples=3)
    table = report.tables["validation"]
    rows = [table.sample_ids.tolist().index(one) for one in seen.samples["sample_id"]]
    np.testing.assert_allclose(seen.maps.sum((2, 3)), table.contributions[rows][:, seen.channels], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(seen.images, source.dataset.images[rows].numpy())
    assert seen.samples["side"].tolist() == ["aligned"] * 3 + ["conflicting"] * 3


def test_sides_say_whether_the_tag_fits_the_class_and_the_channels_look_at_it(found):
    model, source, report, tagged = found
    seen = confounder_channel_maps(model, source, report, "site")
    rows = seen.samples["sample_id"].astype(int).to_numpy()
    fits = tagged[rows] == (seen.samples["target"] == CLASSES - 1)
    assert fits.tolist() == [True] * 4 + [False] * 4
    energy = np.abs(seen.maps[tagged[rows]]).sum((0, 1))
    assert energy[:4, -4:].mean() > 3 * energy[4:, :-4].mean()


@pytest.mark.parametrize(("source", "match"), [("nothing", "no metadata column"), ("name", "120 different values")])
def test_what_cannot_be_compared_is_refused(found, source, match):
    model, data, report, _ = found
    with pytest.raises(DataError, match=match):
        confounder_channel_maps(model, data, report, source)


def test_a_regression_has_no_sides():
    data = DataLoader(TensorDataset(torch.randn(40, 2, 20), torch.randn(40)), 20)
    model = SignalNet().eval()
    with pytest.raises(DataError, match="no classes"):
        confounder_channel_maps(model, data, analyze(model, data), "brightness")
