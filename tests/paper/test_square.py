"""Images become squares without being squeezed, and masks go the same way."""

from __future__ import annotations

import numpy as np
import pytest

from examples.paper.data.square import boxes_to_mask, mask_to_square, to_square


def test_crop_keeps_the_middle_and_pad_keeps_everything():
    image = np.arange(12, dtype=np.float32).reshape(1, 2, 6)
    np.testing.assert_array_equal(to_square(image, 2, "crop")[0], [[2, 3], [8, 9]])
    padded = to_square(image, 6, "pad")[0]
    np.testing.assert_array_equal(padded[2:4], image[0])
    assert padded[:2].sum() == padded[4:].sum() == 0


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (51, 50)])
def test_a_mask_stays_on_its_object(shape, fit):
    image = np.zeros((1, *shape), dtype=np.float32)
    image[0, shape[0] // 2 - 5 : shape[0] // 2 + 5, shape[1] // 2 - 5 : shape[1] // 2 + 5] = 1
    mask = mask_to_square(image[0], 32, fit)
    assert (to_square(image, 32, fit)[0][mask] > 0.4).all()
    assert mask.sum() > 15


def test_a_tiny_lesion_keeps_a_pixel():
    mask = np.zeros((512, 512), dtype=np.float32)
    mask[100:102, 200:202] = 1
    assert mask_to_square(mask, 32, "pad").sum() >= 1
    assert mask_to_square(np.zeros((9, 9), dtype=np.float32), 3, "pad").sum() == 0


def test_boxes_are_x_y_width_height():
    mask = boxes_to_mask(np.array([[1.0, 2, 3, 1], [0, 0, 1, 1]]), (4, 6))
    assert np.argwhere(mask).tolist() == [[0, 0], [2, 1], [2, 2], [2, 3]]
