import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.property_transplants import exchange_contrast, exchange_detail, property_transplants
from lightning_ifa.features.transplants import transplant_parts
from lightning_ifa.indicators.confounding import transplant_suspects


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


def test_contrast_takes_the_donors_range_and_keeps_its_own_ground():
    x, donor = disc(), 0.3 + disc(level=0.4)
    changed = exchange_contrast(x, donor)
    for share in (0.1, 0.98):
        wanted = donor.flatten(1).quantile(share, 1) - donor.flatten(1).quantile(0.1, 1)
        found = changed.flatten(1).quantile(share, 1) - x.flatten(1).quantile(0.1, 1)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(exchange_contrast(x, x), x)


@pytest.mark.parametrize("size", [15, 20])
def test_detail_takes_the_donors_noise_and_leaves_the_content(size):
    rng = torch.Generator().manual_seed(1)
    x = disc(size=size)
    donor = x.flip(0) + 0.3 * torch.randn(x.shape, generator=rng)
    changed = exchange_detail(x, donor)
    torch.testing.assert_close(fine(changed), fine(donor), rtol=0.2, atol=0)
    blurred = [nn.functional.avg_pool2d(image, 5, 1) for image in (changed, x, x.flip(0))]
    assert (blurred[0] - blurred[1]).abs().mean() < 0.2 * (blurred[0] - blurred[2]).abs().mean()
    torch.testing.assert_close(exchange_detail(x, x), x)


@pytest.mark.parametrize(("shape", "names"), [
    ((2, 1, 8, 8), ["contrast"]), ((2, 3, 16, 20), ["contrast", "sharpness"]), ((2, 5), []),
    ((2, 2, 30), ["contrast", "sharpness"]), ((2, 1, 14, 15, 16), ["contrast", "sharpness"]),
])  # fmt: skip
def test_any_number_of_axes_and_constant_images(shape, names):
    x = torch.zeros(shape)
    found = dict(property_transplants(x))
    assert list(found) == names
    for change in found.values():
        for donor in (x, torch.randn(shape), 1e4 + x):
            assert torch.isfinite(change(x, donor)).all()
            assert torch.isfinite(change(donor, x)).all()


class Reads(nn.Module):
    """Two classes told by how noisy the image is, or by how bright its disc is."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x):
        evidence = fine(x) if self.noise else nn.functional.avg_pool2d(x, 5, 1).amax((1, 2, 3))
        return torch.stack([-10 * evidence, 10 * evidence], dim=1)


@pytest.mark.parametrize(("noise", "carrier", "other"), [(True, "sharpness", "corner_top_left"),
                                                         (False, "contrast", "sharpness")])  # fmt: skip
def test_evidence_goes_with_the_property_that_the_network_decides_by(noise, carrier, other):
    rng = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 2, (128,), generator=rng)
    on = labels[:, None, None, None]
    x = disc(128) * (0.6 + 0.4 * on) + 0.1 * on * torch.randn(128, 1, 20, 20, generator=rng)
    loader = DataLoader(TensorDataset(x, labels), 32)
    moved = transplant_parts(Extraction(Reads(noise)), loader, np.arange(128), "multiclass")
    suspects = transplant_suspects(moved.logits, moved.moved, moved.donor_logits, moved.labels, moved.donor_labels)
    found = {s.source: s for s in suspects}
    assert found[carrier].reliance > 0.8
    assert found[carrier].z > 5
    assert abs(found[other].reliance) < 0.1
