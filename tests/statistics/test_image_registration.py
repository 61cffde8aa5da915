import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from lightning_ifa.statistics.duplicates import find_same_pictures
from lightning_ifa.statistics.image_registration import registered_correlation, scale_to_unit


def pictures(n, edge=96, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([gaussian_filter(rng.normal(size=(edge, edge)), 5) for _ in range(n)])


def small(images):
    return np.stack([zoom(gaussian_filter(one, 1.5), 24 / len(one), order=1, grid_mode=True, mode="nearest")
                     for one in images]).astype(np.float32)  # fmt: skip


CHANGES = {
    "cropped": lambda x: x[4:92, 1:89],
    "cropped further": lambda x: x[:88, 8:],
    "brightened": lambda x: 1.4 * x + 3,
    "noisy": lambda x: x + 0.05 * x.std() * np.random.default_rng(1).normal(size=x.shape),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_others_are_not(change):
    base, others = pictures(40), pictures(20, seed=7)
    copies = [CHANGES[change](one) for one in base[:10]]
    found = find_same_pictures(np.concatenate([small(copies), small(others)]), small(base))
    assert (found[:10] == np.arange(10)).sum() >= 9
    assert (found[10:] == -1).all()


def test_registration_lifts_the_correlation_of_a_crop_to_nearly_one():
    base = pictures(10)
    whole, cut = (scale_to_unit(small(x).reshape(10, -1)).reshape(10, 24, 24) for x in (base, base[:, 6:, 6:]))
    assert ((whole * cut).sum((1, 2)) < 0.95).mean() > 0.5
    assert (registered_correlation(cut, whole) > 0.99).mean() >= 0.9


def test_constant_pictures_match_nothing():
    assert (find_same_pictures(np.ones((3, 24, 24), np.float32), np.zeros((5, 24, 24), np.float32)) == -1).all()


def test_a_picture_in_another_colour_is_no_copy():
    base, rng = small(pictures(40)), np.random.default_rng(0)
    colours = rng.normal(size=(40, 2))
    brighter, other = 0.8 * colours, colours[::-1]
    assert (find_same_pictures(base, base, brighter, colours) == np.arange(40)).all()
    assert (find_same_pictures(base, base, other, colours) >= 0).mean() < 0.2
    gray = np.full((40, 2), 1e-4) * rng.normal(size=(40, 2))  # what a JPEG leaves of a picture without colour
    assert (find_same_pictures(base, base, gray, gray[::-1]) == np.arange(40)).all()
