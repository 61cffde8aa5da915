import pandas as pd
import pytest
import torch

from lightning_ifa.data.image_properties import BACKGROUND, has_background, image_properties


def painted(where, level=1.0, size=28):
    x = torch.zeros(2, 1, size, size)
    x[1][where] = level
    return image_properties(x)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ((slice(None), slice(0, 4), slice(0, 4)), "corner_top_left"),
        ((slice(None), slice(-4, None), slice(-4, None)), "corner_bottom_right"),
        ((slice(None), slice(0, 4)), "side_top"),
        ((slice(None), slice(None), slice(-4, None)), "side_right"),
        ((slice(None), slice(10, 14), slice(0, 4)), "edge_peak"),
        (slice(None), "background"),
    ],
)
def test_a_property_sees_what_is_there(where, name):
    found = painted(where)[name]
    assert found[0] == 0
    assert found[1] == pytest.approx(1.0)


def test_a_dark_spot_on_a_bright_border():
    x = torch.ones(1, 1, 28, 28)
    x[:, :, :4, 12:16] = 0
    assert image_properties(x)["edge_pit"][0] == pytest.approx(1.0)


def test_what_happens_in_the_middle_is_no_background():
    found = painted((slice(None), slice(8, 20), slice(8, 20)))
    assert all(float(v[1]) == 0 for name, v in found.items() if name.startswith(BACKGROUND))
    assert found["brightness"][1] > 0


def test_colour_and_extent():
    x = torch.zeros(1, 3, 28, 28)
    x[:, 0] = 0.6
    x[:, 0, 4:24, 12:16] = 0.9
    found = image_properties(x)
    assert found["border_colour_0"][0] == pytest.approx(0.4)
    assert found["aspect"][0] > 0.5


@pytest.mark.parametrize(
    "shape", [(3, 1, 40), (3, 2, 8, 8), (3, 1, 16, 15, 20), (3, 1, 5, 6, 7), (3, 12), (3, 1, 1, 1)]
)
def test_any_number_of_axes(shape):
    found = image_properties(torch.rand(shape))
    assert all(v.shape == (3,) and bool(v.isfinite().all()) for v in found.values())


def test_an_object_that_reaches_into_the_border_does_not_move_its_level():
    x = torch.full((2, 1, 28, 28), 0.25)
    x[1, :, 2:16, 10:18] = 1.0  # two rows of the strip's four
    found = image_properties(x)
    assert found["border"].tolist() == [0.25, 0.25]
    assert found["side_top"][1] > found["side_top"][0]


def test_small_images_have_no_border():
    assert "border" not in image_properties(torch.rand(3, 1, 8, 8))


def test_a_plain_border_is_background_and_a_textured_one_is_not():
    generator = torch.Generator().manual_seed(0)
    textured = torch.rand(20, 1, 28, 28, generator=generator)
    framed = torch.zeros(20, 1, 28, 28)
    framed[:, :, 6:-6, 6:-6] = textured[:, :, 6:-6, 6:-6]
    noisy = framed + 0.02 * torch.randn(framed.shape, generator=generator)
    found = [has_background(pd.DataFrame(image_properties(x))) for x in (textured, framed, noisy)]
    assert found == [False, True, True]


@pytest.mark.parametrize("space", [(40,), (20, 31), (15, 17, 20)])
def test_edge_spots_are_the_means_of_all_windows_that_touch_the_edge(space):
    x = torch.randn(3, 2, *space, generator=torch.Generator().manual_seed(0))
    gray, width = x.mean(1), [max(1, round(size / 7)) for size in space]
    window = max(1, max(1, round(min(space) / 7)) * 3 // 4)
    inside = tuple(slice(w, size - w) for w, size in zip(width, space, strict=True))
    found = image_properties(x)
    for i in range(3):
        strip = torch.ones(space, dtype=torch.bool)
        strip[inside] = False
        middle = float(gray[i][strip].median())
        starts = torch.cartesian_prod(*(torch.arange(size - window + 1) for size in space)).reshape(-1, len(space))
        means = [
            float(gray[i][tuple(slice(s, s + window) for s in start)].mean())
            for start in starts.tolist()
            if any(s in (0, size - window) for s, size in zip(start, space, strict=True))
        ]
        assert found["edge_peak"][i] == pytest.approx(max(means) - middle, abs=1e-5)
        assert found["edge_pit"][i] == pytest.approx(middle - min(means), abs=1e-5)
