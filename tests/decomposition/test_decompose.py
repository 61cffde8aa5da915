"""Decomposition and map check end to end on a small trained network; every task has a form or says it has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.decomposition import decompose
from lightning_ifa.decomposition.figures import principal_figure, selection_figure, spectrum_figure
from lightning_ifa.errors import DataError, OutputError
from lightning_ifa.evaluation.cam_check import check_maps
from lightning_ifa.evaluation.figures import importance_figure, scale_figure, trust_figure

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


class Net(nn.Module):
    """Convolutions and a head to order."""

    def __init__(self, head, channels=12, outputs=3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, channels, 3, padding=1), nn.ReLU()
        )
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
        flat = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * channels, outputs))
        norm = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels), nn.Linear(channels, outputs)
        )
        self.head = {"pool": pool, "flat": flat, "norm": norm, "planes": nn.Conv2d(channels, outputs, 1)}[head]

    def forward(self, x):
        return self.head(self.features(x))


def squares(n, seed):
    """A bright square whose size is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = 0.2 * torch.randn(n, 1, 8, 8, generator=generator)
    corner = torch.randint(0, 3, (n, 2), generator=generator)
    for image, label, (row, column) in zip(images, labels, corner, strict=True):
        image[0, row : row + 2 + label, column : column + 2 + label] += 1
    return images, labels


def fitted(head="pool", target=None, loss=nn.functional.cross_entropy, outputs=3):
    torch.manual_seed(0)
    model = Net(head, outputs=outputs)
    images, labels = squares(150, 1)
    wanted = labels if target is None else target(images, labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss(model(images), wanted).backward()
        optimizer.step()
    return model


def loaders(target=None):
    for n, seed in ((120, 2), (150, 1)):
        images, labels = squares(n, seed)
        yield DataLoader(TensorDataset(images, labels if target is None else target(images, labels)), 50)


@pytest.fixture(scope="module", params=["pool", "flat"])
def case(request):
    model = fitted(request.param)
    validation, train = loaders()
    report = analyze(model, validation, train, layer="features", probes=4)
    ways = {"shares": SHARES, "draws": 3, "components": 3, "channels": range(12)}
    return model, validation, report, decompose(model, validation, report, **ways)


def test_channels_chosen_by_number_are_kept_alone(case):
    model, validation, report, found = case
    assert list(found.chosen["rule"]) == ["zero", "mean", "refill"]
    assert found.chosen["kept"].to_list() == [12] * 3
    assert found.chosen["performance"].to_list() == pytest.approx([found.full] * 3)
    assert found.chosen["similarity"].to_list() == pytest.approx([1.0] * 3, abs=1e-4)
    with pytest.raises(ValueError, match="0 to 11"):
        decompose(model, validation, report, channels=(12,))


def curve(found, name):
    return found.curves[found.curves["curve"] == name].set_index("share")


def test_everything_kept_is_the_full_network(case):
    _, _, report, found = case
    table = report.tables["validation"]
    rows = slice(None) if found.scope == "pooled" else slice(1, None, 2)
    assert found.full == pytest.approx(table.correct[rows].mean())
    assert found.full > 0.8
    last = found.curves[found.curves["share"] == 1.0]
    np.testing.assert_allclose(last["performance"], found.full, atol=0.02)
    np.testing.assert_allclose(last["similarity"], 1, atol=1e-3)


def test_masking_equals_running_the_network_with_zeros(case):
    model, validation, report, found = case
    train = report.tables["train"]
    included = train.correct
    own = [train.contributions[included & (train.targets == k)].mean(0) for k in range(3)]
    strength = np.abs(np.array(own) - train.contributions[included].mean(0)).max(0)
    kept = np.argsort(-strength)[:6]
    images, labels = validation.dataset.tensors
    with torch.no_grad():
        A = model.features(images)
        mask = torch.zeros(12).index_fill(0, torch.from_numpy(kept), 1.0)
        right = model.head(A * mask[:, None, None]).argmax(1) == labels
    rows = slice(None) if found.scope == "pooled" else slice(1, None, 2)
    expected = right[rows].float().mean().item()
    assert curve(found, "channels, difference, zero")["performance"][0.5] == pytest.approx(expected)


def test_components_need_fewer_than_channels_and_the_control_has_a_band(case):
    _, _, _, found = case
    assert found.enough["both"]["components, joint, mean"] <= found.enough["both"]["channels, random, zero"]
    band = curve(found, "channels, random, zero")
    assert (band["performance_low"] <= band["performance"]).all()
    assert (band["performance_high"] > band["performance_low"]).any()
    fixed = curve(found, "channels, difference, zero")
    assert (fixed["performance_high"] == fixed["performance_low"]).all()


def test_what_is_called_redundant_can_go(case):
    _, _, _, found = case
    strict = found.pruning.iloc[0]
    assert strict["performance"] >= found.full - 0.05
    assert found.pruning["kept"].is_monotonic_decreasing


def test_the_model_is_left_as_it_was(case):
    model, validation, report, _ = case
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    decompose(model, validation, report, shares=(0.5, 1.0), draws=1, components=2)
    check_maps(model, validation, report, samples=20)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(m.training and "forward" not in m.__dict__ and not m._forward_hooks for m in model.modules())
    model.eval()


def test_the_same_seed_gives_the_same_numbers(case):
    model, validation, report, found = case
    again = decompose(model, validation, report, shares=SHARES, draws=3, components=3)
    np.testing.assert_array_equal(again.curves["performance"], found.curves["performance"])


def test_maps_are_checked_layer_by_layer(case):
    model, validation, report, _ = case
    check = check_maps(model, validation, report, layers=("features", "features.0"), methods=("hirescam", "layercam"))
    trust = check.trust.set_index(["layer", "method"])
    assert trust["trustworthy"]["features", "hirescam"]
    assert trust["pearson"]["features", "hirescam"] == pytest.approx(1, abs=1e-4)
    random = check.randomised.set_index(["layer", "method"])
    assert random["pearson"]["features", "hirescam"] > 0.99
    assert abs(random["similarity"]["features", "hirescam"]) < 0.3


def test_figures_are_drawn(case, tmp_path):
    model, validation, report, found = case
    check = check_maps(model, validation, report, samples=30)
    figures = [
        selection_figure(found),
        spectrum_figure(report),
        principal_figure(report, found),
        principal_figure(report, found, "nmf"),
        scale_figure(report),
        importance_figure(report),
        trust_figure(check),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png", dpi=40)
        assert (tmp_path / f"{number}.png").stat().st_size > 2000


def test_principal_features_come_with_maps_and_samples(case):
    _, _, report, found = case
    for one in found.principal.values():
        assert one.maps.shape == (4, 3, 8, 8)
        np.testing.assert_allclose(
            one.maps.sum((2, 3)), report.probes.table.contributions @ one.components.directions.T, atol=1e-3
        )
        assert one.images.shape == (3, 3, 1, 8, 8)
        assert set(one.strongest.ravel()) <= set(report.tables["validation"].sample_ids)


@pytest.mark.parametrize("gradient", ["plain", "conservative"])
def test_a_layernorm_head_makes_no_method_trustworthy_by_plain_gradients(gradient):
    model = fitted("norm")
    validation, _ = loaders()
    report = analyze(model, validation, layer="features", gradient=gradient)
    assert report.tables["validation"].gradient == gradient
    trust = check_maps(model, validation, report).trust.set_index("method")["trustworthy"]
    assert trust["hirescam"] == (gradient == "conservative")
    assert gradient == "conservative" or not trust.any()


def size(images, labels):
    return labels.float()[:, None] + images.mean((1, 2, 3))[:, None]


def plane(images, labels):
    return (images[:, 0] > 0.5).long() * (1 + labels[:, None, None].clamp(max=1))


@pytest.mark.parametrize(
    ("head", "target", "loss", "outputs", "task", "measure"),
    [
        ("pool", size, nn.functional.mse_loss, 1, "regression", "R2"),
        ("planes", plane, nn.functional.cross_entropy, 3, "segmentation", "accuracy"),
    ],
)
def test_regression_and_segmentation_have_a_form(head, target, loss, outputs, task, measure):
    model = fitted(head, target, loss, outputs)
    validation, train = loaders(target)
    report = analyze(model, validation, train, layer="features", task=task, probes=3)
    found = decompose(model, validation, report, shares=SHARES, draws=2, components=2)
    assert found.measure == measure
    assert curve(found, "components, joint, mean")["performance"][1.0] == pytest.approx(found.full, abs=1e-3)
    check = check_maps(model, validation, report, samples=60)
    has_prediction = "predicted" in set(check.agreement["reading"])
    assert has_prediction == (task != "regression")
    assert check.trust["trustworthy"].any()


def test_a_custom_score_needs_its_function_again():
    model = fitted()
    validation, train = loaders()
    score = lambda output, target: output[:, 0] - output[:, 1]  # noqa: E731
    report = analyze(model, validation, train, layer="features", task=score)
    for ask in (decompose, check_maps):
        with pytest.raises(OutputError, match="task="):
            ask(model, validation, report)
    found = decompose(model, validation, report, task=score, shares=(0.5, 1.0), draws=1, components=2)
    assert found.measure == "R2 of the full network"
    assert found.full == 1


def test_refuses_another_model_and_a_network_that_is_never_right():
    model = fitted()
    validation, train = loaders()
    report = analyze(model, validation, train, layer="features")
    with pytest.raises(DataError, match="do not give the logits"):
        decompose(fitted("flat"), validation, report)
    images = validation.dataset.tensors[0]
    wrong = DataLoader(TensorDataset(images, (model(images).argmax(1) + 1) % 3), 50)
    hopeless = analyze(model, wrong, layer="features")
    with pytest.raises(DataError, match="no sample is classified correctly"):
        decompose(model, wrong, hopeless)


def test_keeps_no_pixel_if_the_report_keeps_none():
    model = fitted()
    validation, train = loaders()
    report = analyze(model, validation, train, layer="features", probes=3)
    blind = replace(report, probes=replace(report.probes, images=None))
    found = decompose(model, validation, blind, shares=(0.5, 1.0), draws=1, components=2)
    assert found.principal["pca"].images is None
    principal_figure(blind, found)
