"""The common scale: one rule, one range, robust to degenerate maps."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ifa.statistics.intensity_scale import IntensityScale, apply_by, common_scale, scales_by

CAMS = np.random.default_rng(0).normal(size=(50, 4, 5)) * np.linspace(0.5, 3, 50)[:, None, None]


def test_takes_the_papers_percentiles():
    scale = common_scale(CAMS)
    assert scale.high == pytest.approx(np.percentile([cam.max() for cam in CAMS], 90))
    assert scale.low == pytest.approx(np.percentile([cam.min() for cam in CAMS], 50))
    free = common_scale(CAMS, quantiles=(0.0, 1.0))
    assert (free.low, free.high) == pytest.approx((CAMS.min(), CAMS.max()))


def test_norm_is_linear_and_clips():
    scale = IntensityScale(-1, 3)
    np.testing.assert_allclose(scale.apply(np.array([-5, -1, 0, 1, 3, 9])), [0, 0, 0.25, 0.5, 1, 1])


def test_tanh_sends_the_ends_to_5_and_95_percent_and_keeps_the_order_beyond():
    scale = IntensityScale(-1, 3, "tanh")
    shown = scale.apply(np.array([-3, -1, 1, 3, 5]))
    np.testing.assert_allclose(shown[[1, 2, 3]], [0.05, 0.5, 0.95], atol=1e-6)
    assert (np.diff(shown) > 0).all()


def test_diverging_shows_no_evidence_in_the_middle():
    scale = common_scale(CAMS, "diverging")
    assert scale.low == -scale.high == -np.percentile([np.abs(cam).max() for cam in CAMS], 90)
    assert scale.apply(np.zeros(1)) == 0.5


@pytest.mark.parametrize("method", ["norm", "tanh", "diverging"])
@pytest.mark.parametrize("value", [0.0, -2.0, 1e9])
def test_a_degenerate_range_is_widened(method, value):
    scale = common_scale(np.full((3, 2, 2), value), method)
    assert scale.high > scale.low
    assert np.isfinite(scale.apply(np.full((2, 2), value))).all()


def test_one_scale_a_class():
    classes = np.arange(50) % 3
    scales = scales_by(CAMS, classes)
    shown = apply_by(scales, CAMS, classes)
    for i in range(50):
        np.testing.assert_array_equal(shown[i], common_scale(CAMS[classes == classes[i]]).apply(CAMS[i]))
    with pytest.raises(ValueError, match=r"no intensity scale for \[3\]"):
        apply_by(scales, CAMS[:1], np.array([3]))


def test_goes_through_json_values_and_refuses_nonsense():
    scale = common_scale(CAMS, "tanh")
    assert IntensityScale(**scale.to_dict()) == scale
    for low, high, method in ((1, 1, "norm"), (2, 1, "norm"), (np.nan, 1, "norm"), (0, 1, "cubic")):
        with pytest.raises(ValueError, match=r"expected two finite ends|choose one of"):
            IntensityScale(low, high, method)
    with pytest.raises(ValueError, match="choose one of"):
        common_scale(CAMS, "cubic")
