import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.ablation import ablate_channels
from lightning_ifa.interventions.region_swaps import SWAP_SAMPLES, swap_parts
from lightning_ifa.statistics.confounder_candidates import swap_candidates


class Looks(nn.Module):
    """Two channels: the mean of the upper left corner, and of the middle; a linear head for three classes."""

    def __init__(self, corner: float, middle: float) -> None:
        super().__init__()
        self.maps = nn.Identity()
        self.pick = nn.Parameter(torch.tensor([corner, middle]), requires_grad=False)

    def forward(self, x):
        planes = torch.zeros(len(x), 2, *x.shape[2:])
        planes[:, 0, :4, :4] = x[:, 0, :4, :4]
        planes[:, 1, 6:10, 6:10] = x[:, 0, 6:10, 6:10]
        level = (self.maps(planes).mean((2, 3)) * 16) @ self.pick
        return torch.stack([-2 * level, torch.zeros_like(level) - level**2, 2 * level], dim=1)


def data(n=300):
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (n,), generator=rng)
    images = 0.1 * torch.randn(n, 1, 16, 16, generator=rng)
    images[:, :, :4, :4] += (labels - 1.0)[:, None, None, None]
    images[:, :, 6:10, 6:10] += (labels - 1.0)[:, None, None, None]
    return TensorDataset(images, labels)


def found(model, batch_size=50, regions=None):
    moved = swap_parts(FeatureExtractor(model), DataLoader(data(), batch_size), np.arange(300), "multiclass", regions)
    candidates = swap_candidates(moved.logits, moved.swapped, moved.source_logits, moved.labels, moved.source_labels)
    return {s.source: s.reliance for s in candidates}


@pytest.mark.parametrize(("corner", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_evidence_travels_with_the_corner_that_the_network_looks_at(corner, share):
    shares = found(Looks(corner, 1 - corner))
    assert shares["corner_top_left"] == pytest.approx(share, abs=0.02)
    assert shares["corner_bottom_right"] == pytest.approx(0.0, abs=0.02)


def test_the_users_region_is_tested():
    middle = np.zeros((16, 16), dtype=bool)
    middle[6:10, 6:10] = True
    assert found(Looks(0.0, 1.0), regions={"middle": middle})["middle"] == pytest.approx(1.0)


def test_a_region_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"'lesion' has shape \(3, 3\)"):
        found(Looks(0.0, 1.0), regions={"lesion": np.ones((3, 3), dtype=bool)})


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_batch_size_does_not_choose_the_sources(batch_size):
    assert found(Looks(0.5, 0.5), batch_size) == pytest.approx(found(Looks(0.5, 0.5)), abs=1e-5)


def test_it_is_bounded_and_leaves_no_trace():
    model = Looks(0.5, 0.5).train()
    state = torch.random.get_rng_state()
    moved = swap_parts(FeatureExtractor(model), DataLoader(data(), 50), np.arange(300), "multiclass")
    assert len(moved.labels) == SWAP_SAMPLES
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_ablation_puts_a_channel_at_its_mean_and_leaves_no_hook():
    model, loader = Looks(1.0, 1.0), DataLoader(data(), 50)
    table = FeatureExtractor(model, "maps")(loader, np.arange(300))
    logits = ablate_channels(FeatureExtractor(model), loader, table, np.array([0]))
    by_hand = 2 * 16 * (table.activations[:, 1] + table.activations[:, 0].mean())
    np.testing.assert_allclose(logits[:, 2], by_hand, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())
