"""Masks, position by position."""

import pytest
import torch
from torch.nn import AdaptiveAvgPool2d, Conv2d, Flatten, ReLU, Sequential
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.masking import blend, blur, keep_top, make_baseline, ranks, remove_top, upscale

SPACES = ((15,), (5, 6), (3, 4, 5))


def positions(space):
    return list(torch.cartesian_prod(*(torch.arange(s) for s in space)).reshape(-1, len(space)).tolist())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 1.0])
def test_insertion_and_deletion_equal_a_loop_over_positions(space, share):
    torch.manual_seed(1)
    x, maps = torch.randn(4, 3, *space), torch.randn(4, *space)
    fill = torch.randn(1, 3, *[1] * len(space))
    kept, removed = (f(x, fill, ranks(maps, 0), share) for f in (keep_top, remove_top))
    places = positions(space)
    for i in range(4):
        best = sorted(places, key=lambda p: -maps[(i, *p)].item())[: round(share * len(places))]
        for p in places:
            for c in range(3):
                own, other = x[(i, c, *p)], fill[0, c].reshape(())
                assert kept[(i, c, *p)] == (own if p in best else other)
                assert removed[(i, c, *p)] == (other if p in best else own)


def test_ties_are_broken_at_random_the_same_way_in_every_batch():
    maps = torch.zeros(3, 8, 8)
    maps[:, 2, 2] = 1
    order = ranks(maps, 0)
    assert (order[:, 2, 2] == 0).all()
    assert torch.equal(order[0], order[2])
    assert torch.equal(ranks(maps[1:2], 0)[0], order[1])
    assert sorted(order[0].flatten().tolist()) == list(range(64))
    top_half = order[0].flatten()[:32] < 32
    assert 8 < int(top_half.sum()) < 24, "the first positions must not win every tie"
    assert not torch.equal(order, ranks(maps, 1))


def test_the_order_of_a_map_does_not_depend_on_the_tie_seed():
    maps = torch.randn(5, 7, 7)
    assert torch.equal(ranks(maps, 0), ranks(maps, 3))


@pytest.mark.parametrize("space", SPACES)
def test_a_soft_mask_is_a_weighted_mean_of_input_and_baseline(space):
    x, mask, fill = torch.randn(2, 3, *space), torch.rand(2, *space), torch.tensor(0.7)
    shown = blend(x, fill, mask)
    for c in range(3):
        torch.testing.assert_close(shown[:, c], mask * x[:, c] + (1 - mask) * 0.7)


@pytest.mark.parametrize("space", SPACES)
def test_blur_leaves_constants_and_takes_detail_away(space):
    constant = torch.full((2, 3, *space), 1.5)
    torch.testing.assert_close(blur(constant), constant)
    noise = torch.randn(2, 3, *[4 * s for s in space])
    assert blur(noise).shape == noise.shape
    assert blur(noise).std() < 0.5 * noise.std()


def test_upscaling_keeps_a_map_s_corners_and_refuses_other_axes():
    coarse = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    fine = upscale(coarse, (4, 4))
    assert (fine[0, 0, 0], fine[0, 3, 3], fine[0, 0, 3]) == (1, 2, 0)
    with pytest.raises(DataError, match="as many spatial axes"):
        upscale(coarse, (4,))


def test_the_mean_baseline_is_each_channel_s_mean_over_the_chosen_samples():
    torch.manual_seed(0)
    x = torch.randn(20, 3, 4, 5) + torch.tensor([1.0, -2.0, 50.0]).reshape(3, 1, 1)
    loader, chosen = DataLoader(TensorDataset(x, torch.zeros(20)), 3), torch.arange(1, 20, 2).numpy()
    net = Sequential(Conv2d(3, 4, 1), ReLU(), AdaptiveAvgPool2d(1), Flatten())  # which axis is channels is asked of it
    fill = make_baseline("mean", FeatureExtractor(net), loader, chosen)(x[:2])
    for c in range(3):
        mean = sum(x[i, c].double().mean().item() for i in chosen) / len(chosen)
        assert fill.expand_as(x[:2])[0, c, 0, 0] == pytest.approx(mean, rel=1e-6)


def test_a_number_is_a_baseline_and_an_unknown_name_is_none():
    loader = DataLoader(TensorDataset(torch.zeros(2, 1, 3)), 2)
    fill = make_baseline(0.25, FeatureExtractor(torch.nn.Identity()), loader, torch.arange(2).numpy())
    assert (fill(torch.zeros(2, 1, 3)).expand(2, 1, 3) == 0.25).all()
    with pytest.raises(ValueError, match="'mean', 'blur' or a number"):
        make_baseline("black", FeatureExtractor(torch.nn.Identity()), loader, torch.arange(2).numpy())
