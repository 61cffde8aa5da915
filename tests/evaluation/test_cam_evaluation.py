"""Map evaluation: planted truth in one to three dimensions, and a slow reference that runs sample by sample."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from models import MlpNet, PoolNet, ResidualNet, SegmentationNet, SignalNet, VolumeNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.cam.methods import METHODS
from lightning_ifa.errors import LayerError
from lightning_ifa.evaluation.cam_evaluation import MapEvaluation, evaluate_maps

torch.set_num_threads(1)

FAST = {"sanity_check": False, "shares": (0.25, 0.5)}


class PatchNet(nn.Module):
    """Two classes by the sign of the input inside the first quarter of each axis; blind everywhere else."""

    def __init__(self, space):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(space)]
        self.signs = nn.Sequential(conv(1, 2, 1, bias=False), nn.ReLU())
        self.signs[0].weight.data = torch.tensor([1.0, -1.0]).reshape(self.signs[0].weight.shape)
        self.register_buffer("patch", torch.zeros(space))
        self.patch[tuple(slice(0, s // 4) for s in space)] = 4 / (self.patch.numel() / 4 ** len(space))

    def forward(self, x):
        return (self.signs(x) * self.patch).flatten(2).sum(2)


def patch_data(space, n=24):
    """Inputs of one sign inside the patch, and noise outside that the network cannot see."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 1, *space, generator=generator), torch.arange(n) % 2
    patch = PatchNet(space).patch > 0
    strength = 0.5 + torch.rand(n, 1, *space, generator=generator)
    sign = (1.0 - 2 * y).reshape(-1, 1, *[1] * len(space))
    return DataLoader(TensorDataset(torch.where(patch, sign * strength, x), y), 7)


@pytest.mark.parametrize("space", [(32,), (8, 12), (8, 8, 4)])
def test_hiding_the_patch_the_net_looks_at_collapses_the_score_and_hiding_random_places_does_not(space):
    share = 1 / 4 ** len(space)
    found = evaluate_maps(PatchNet(space), patch_data(space), baseline=0.0, shares=(share, 0.5), sanity_check=False)
    curve = found.curves.set_index(["map", "mode", "share"])["score"]
    full, nothing = curve["cam", "insertion", 1.0], curve["cam", "insertion", 0.0]
    assert nothing == pytest.approx(0.5)
    assert full > 0.9
    assert curve["cam", "insertion", share] == pytest.approx(full)
    assert curve["cam", "deletion", share] == pytest.approx(0.5)
    assert curve["shuffled", "deletion", share] > 0.5 + 0.7 * (full - 0.5)
    assert curve["shuffled", "insertion", share] < 0.5 + 0.5 * (full - 0.5)
    areas = found.areas.set_index("map")
    assert areas.loc["cam", "deletion"] < areas.loc["shuffled", "deletion"] - 0.1
    assert areas.loc["cam", "insertion"] > areas.loc["shuffled", "insertion"] + 0.05
    masking = found.masking.set_index(["map", "mask"])["average_drop"]
    for mask in ("own maximum", "common scale"):
        assert masking["cam", mask] < 0.5 * masking["shuffled", mask]


def test_accuracy_after_masking_falls_to_chance_with_the_patch_and_stays_without_the_rest():
    found = evaluate_maps(PatchNet((8, 8)), patch_data((8, 8)), shares=(1 / 16,), sanity_check=False)
    accuracy = found.curves.set_index(["map", "mode", "share"])["performance"]
    assert (found.measure, found.full) == ("accuracy", 1.0)
    assert accuracy["cam", "insertion", 1 / 16] == 1.0
    assert accuracy["cam", "deletion", 1 / 16] == 0.5
    assert accuracy["shuffled", "deletion", 1 / 16] == 1.0


def slow(model, x, y, layer, grid, baseline):
    """One sample at a time on a copy of the network: hook, autograd, sorting in Python, areas by hand."""
    net = copy.deepcopy(model).eval()
    module, maps, rows = net.get_submodule(layer), [], []
    for one in x:
        held = []
        handle = module.register_forward_hook(lambda m, a, out, held=held: held.append(out) or out.clone())
        logits = net(one[None])[0]
        handle.remove()
        (G,) = torch.autograd.grad(logits.max(), held[0])
        maps.append((held[0] * G)[0].sum(0).detach())
    low = float(np.median([float(m.min()) for m in maps]))
    high = float(np.quantile([float(m.max()) for m in maps], 0.9))

    def probability(image, label):
        with torch.no_grad():
            logits = net(image[None])[0].tolist()
        powers = [math.exp(v - max(logits)) for v in logits]
        return powers[label] / sum(powers), int(np.argmax(logits))

    def shown(image, weights):
        return torch.stack([w * plane + (1 - w) * baseline for w in [weights] for plane in image])

    for one, label, coarse in zip(x, y, maps, strict=True):
        size = tuple(one.shape[1:])

        def fine(m, size=size):
            return nn.functional.interpolate(m[None, None], size, mode="bilinear", align_corners=False)[0, 0]

        before, predicted = probability(one, 0)
        before, _ = probability(one, predicted)
        row = {"before": before}
        masks = {
            "own maximum": coarse.clamp(min=0) / coarse.clamp(min=0).max(),
            "common scale": ((coarse - low) / (high - low)).clamp(0, 1),
        }
        for name, mask in masks.items():
            after, then = probability(shown(one, fine(mask)), predicted)
            row[name] = (max(0, before - after) / before, after > before, then == label)
        order = (-fine(coarse).flatten()).tolist()
        order = sorted(range(len(order)), key=order.__getitem__)
        for mode in ("insertion", "deletion"):
            curve = []
            for share in grid:
                top = torch.zeros(one[0].numel())
                top[order[: round(share * len(order))]] = 1
                keep = top if mode == "insertion" else 1 - top
                value, then = probability(shown(one, keep.reshape(size)), predicted)
                curve.append((value, then == label))
            row[mode] = curve
        rows.append(row)
    return rows


@pytest.mark.parametrize(("net", "layer"), [(PoolNet, "features.3"), (ResidualNet, "stem")])
def test_every_number_equals_the_slow_reference(net, layer):
    model, data = trained(net()), loader(30, seed=5, batch_size=7)
    inner = (0.1, 0.3, 0.8)
    found = evaluate_maps(model, data, layer=layer, baseline=0.1, shares=inner, sanity_check=False)
    grid = (0.0, *inner, 1.0)
    rows = slow(model, data.dataset.images, data.dataset.labels.tolist(), layer, grid, 0.1)
    masking = found.masking.set_index(["map", "mask"])
    for mask in ("own maximum", "common scale"):
        expected = np.mean([row[mask] for row in rows], axis=0)
        np.testing.assert_allclose(
            masking.loc[("cam", mask), ["average_drop", "average_increase", "performance"]].to_numpy(float),
            expected,
            atol=2e-5,
        )
    curves = found.curves.set_index(["map", "mode"])
    for mode in ("insertion", "deletion"):
        expected = np.mean([row[mode] for row in rows], axis=0)
        part = curves.loc[("cam", mode)]
        np.testing.assert_allclose(part[["score", "performance"]].to_numpy(float), expected, atol=2e-5)
        steps = zip(grid, grid[1:], expected[:-1, 0], expected[1:, 0], strict=False)
        by_hand = sum((b - a) * (p + q) / 2 for a, b, p, q in steps)
        assert found.areas.set_index("map").loc["cam", mode] == pytest.approx(by_hand, abs=2e-5)


def test_all_and_nothing_meet_whatever_the_map():
    curves = evaluate_maps(trained(MlpNet()), loader(20), **FAST).curves.set_index(["map", "mode", "share"])["score"]
    for end in (0.0, 1.0):
        values = {curves[name, "insertion", end] for name in ("cam", "shuffled")}
        values |= {curves[name, "deletion", 1 - end] for name in ("cam", "shuffled")}
        assert max(values) - min(values) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_evaluated_by_name(method):
    found = evaluate_maps(trained(PoolNet()), loader(12), method=method, **FAST)
    assert found.method == method
    assert np.isfinite(list(found.numbers.values())).all()


def test_a_function_of_the_user_s_is_a_method():
    def plain(A, G):
        return torch.ones_like(A)

    found = evaluate_maps(trained(PoolNet()), loader(12), method=plain, max_samples=9, shares=(0.5,))
    assert (found.method, found.samples) == ("plain", 9)
    assert set(found.check.agreement["method"]) == {"plain"}


@pytest.mark.parametrize("baseline", ["mean", "blur", 0.0])
def test_batch_size_and_baseline_are_told_and_do_not_mix(baseline):
    model = trained(PoolNet())
    one, other = (evaluate_maps(model, loader(20, batch_size=n), baseline=baseline, **FAST) for n in (3, 20))
    assert one.baseline == str(baseline)
    for name in one.numbers:
        assert one.numbers[name] == pytest.approx(other.numbers[name], abs=1e-5)


def test_baselines_differ():
    model = trained(PoolNet())
    found = [evaluate_maps(model, loader(20), baseline=b, **FAST).areas["deletion"][0] for b in ("mean", "blur", 3.0)]
    assert len({round(value, 4) for value in found}) == 3


@pytest.mark.parametrize(
    ("model", "x", "y", "task"),
    [
        (SignalNet(), torch.randn(18, 2, 20), torch.randn(18), "regression"),
        (VolumeNet(), torch.randn(10, 1, 5, 6, 4), torch.arange(10) % 2, "binary"),
        (SegmentationNet(), torch.randn(10, 1, 8, 8), torch.randint(3, (10, 8, 8)), "segmentation"),
    ],
)
def test_other_tasks_and_dimensions(model, x, y, task):
    found = evaluate_maps(model, DataLoader(TensorDataset(x, y), 4), shares=(0.3, 0.6))
    assert (found.task, found.samples) == (task, len(x))
    assert np.isfinite(found.curves["score"]).all()
    assert found.masking["average_drop"].isna().all() == (task == "regression")
    assert found.check.trust["layer"].item() == found.layer


def test_correlation_and_randomisation_come_with_it():
    found = evaluate_maps(trained(PoolNet()), loader(40), shares=(0.5,))
    assert isinstance(found, MapEvaluation)
    assert found.numbers["correlation/raw"] == pytest.approx(1, abs=1e-6)
    assert found.numbers["correlation/common scale"] == pytest.approx(1, abs=1e-6)
    assert found.numbers["correlation/per image"] < 0.9
    assert found.numbers["random weights/similarity"] < 0.5


def test_nothing_is_left_behind():
    model = trained(MlpNet()).train()
    model.zero_grad()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    evaluate_maps(model, loader(12, num_workers=0), shares=(0.5,))
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_it_works_inside_inference_mode():
    model = trained(PoolNet())
    plain = evaluate_maps(model, loader(12), **FAST).numbers
    with torch.inference_mode():
        assert evaluate_maps(model, loader(12), **FAST).numbers == plain


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 1.0), (-0.1,), (float("nan"),)])
def test_shares_outside_are_refused(shares):
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluate_maps(PoolNet(), loader(6), shares=shares)


def test_a_layer_without_the_input_s_axes_is_refused():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(12, 3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.conv(x[:, 0]).mean(2))

    with pytest.raises(LayerError, match="a map needs"):
        evaluate_maps(Rows(), loader(6), layer="conv", **FAST)
