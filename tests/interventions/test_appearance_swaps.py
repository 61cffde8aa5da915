import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.appearance_swaps import appearance_swaps, swap_contrast, swap_detail
from lightning_ifa.interventions.region_swaps import swap_parts
from lightning_ifa.statistics.confounder_candidates import swap_candidates


def disc(n=6, size=20, level=1.0):
    """A disc at a place of its own on a ground that is not quite even."""
    rng = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    centres = torch.randint(6, size - 6, (n, 2), generator=rng)
    away = (rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2
    return (level * (away < 16).float() + 0.05 * torch.rand(n, size, size, generator=rng))[:, None]


def fine(x):
    """How far each pixel stands out from its neighbours."""
    return (x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1]).std((1, 2, 3))


def test_contrast_takes_the_sources_range_and_keeps_its_own_ground():
    x, source = disc(), 0.3 + disc(level=0.4)
    changed = swap_contrast(x, source)
    for share in (0.1, 0.98):
        wanted = source.flatten(1).quantile(share, 1) - source.flatten(1).quantile(0.1, 1)
        found = changed.flatten(1).quantile(share, 1) - x.flatten(1).quantile(0.1, 1)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(swap_contrast(x, x), x)


@pytest.mark.parametrize("size", [15, 20])
def test_detail_takes_the_sources_noise_and_leaves_the_content(size):
    rng = torch.Generator().manual_seed(1)
    x = disc(size=size)
    source = x.flip(0) + 0.3 * torch.randn(x.shape, generator=rng)
    changed = swap_detail(x, source)
    torch.testing.assert_close(fine(changed), fine(source), rtol=0.2, atol=0)
    blurred = [nn.functional.avg_pool2d(image, 5, 1) for image in (changed, x, x.flip(0))]
    assert (blurred[0] - blurred[1]).abs().mean() < 0.2 * (blurred[0] - blurred[2]).abs().mean()
    torch.testing.assert_close(swap_detail(x, x), x)


@pytest.mark.parametrize(("shape", "names"), [
    ((2, 1, 8, 8), ["contrast"]), ((2, 3, 16, 20), ["contrast", "sharpness"]), ((2, 5), []),
    ((2, 2, 30), ["contrast", "sharpness"]), ((2, 1, 14, 15, 16), ["contrast", "sharpness"]),
])  # fmt: skip
def test_any_number_of_axes_and_constant_images(shape, names):
    x = torch.zeros(shape)
    found = dict(appearance_swaps(x))
    assert list(found) == names
    for change in found.values():
        for source in (x, torch.randn(shape), 1e4 + x):
            assert torch.isfinite(change(x, source)).all()
            assert torch.isfinite(change(source, x)).all()


class Reads(nn.Module):
    """Two classes told by how noisy the image is, or by how bright its disc is."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise
        self.maps = nn.Conv2d(1, 1, 1, bias=False)  # which axes are space is asked of a layer
        nn.init.ones_(self.maps.weight)

    def forward(self, x):
        x = self.maps(x)
        evidence = fine(x) if self.noise else nn.functional.avg_pool2d(x, 5, 1).amax((1, 2, 3))
        return torch.stack([-10 * evidence, 10 * evidence], dim=1)


@pytest.mark.parametrize(("noise", "channel", "other"), [(True, "sharpness", "corner_top_left"),
                                                         (False, "contrast", "sharpness")])  # fmt: skip
def test_evidence_goes_with_the_property_that_the_network_decides_by(noise, channel, other):
    rng = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 2, (128,), generator=rng)
    on = labels[:, None, None, None]
    x = disc(128) * (0.6 + 0.4 * on) + 0.1 * on * torch.randn(128, 1, 20, 20, generator=rng)
    loader = DataLoader(TensorDataset(x, labels), 32)
    moved = swap_parts(FeatureExtractor(Reads(noise)), loader, np.arange(128), "multiclass")
    candidates = swap_candidates(moved.logits, moved.swapped, moved.source_logits, moved.labels, moved.source_labels)
    found = {s.source: s for s in candidates}
    assert found[channel].reliance > 0.8
    assert found[channel].z > 5
    assert abs(found[other].reliance) < 0.1
