"""Batches of the usual forms are read, others are refused with what was found."""

from __future__ import annotations

import pytest
import torch

from lightning_ifa.data.batches import read_batch, read_with
from lightning_ifa.errors import BatchError

X, Y = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "batch",
    [
        (X, Y),
        [X, Y],
        (X, Y, "path"),
        {"image": X, "label": Y},
        {"Pixel_Values": X, "labels": Y},
        {"meta": 1, "x": X, "y": Y},
    ],
)
def test_usual_forms(batch):
    x, y = read_batch(batch)
    assert x is X
    assert y is Y


def test_without_target():
    assert read_batch(X)[1] is None
    assert read_batch({"image": X})[1] is None


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"scan": X}, r"keys \['scan'\].*batch_fn"),
        ("text", "type str cannot be read"),
        ((), "type tuple cannot be read"),
        ((Y, Y), r"input is a tensor \(2,\) torch.int64"),
        ((X, "label"), "target is a str"),
    ],
)
def test_unusual_forms(batch, match):
    with pytest.raises(BatchError, match=match):
        read_batch(batch)


def test_own_function():
    assert read_with(lambda b: (b["scan"], b["grade"]), {"scan": X, "grade": Y}) == (X, Y)
    with pytest.raises(BatchError, match=r"batch_fn returned Tensor"):
        read_with(lambda b: b["scan"], {"scan": X})
