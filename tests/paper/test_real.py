"""Rows on real images, on small sets in the same layout: who stays together, what is left out, what is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from examples.paper.data import real
from examples.paper.results.real import REAL

RNG = np.random.default_rng(0)


def write(root, source, images, masks=None, **columns):
    folder = root / source
    folder.mkdir()
    n = len(images)
    columns = {"split": ["train"] * n, "label": np.arange(n) % 2} | columns
    pd.DataFrame(columns).to_csv(folder / "index.csv", index=False)
    more = {} if masks is None else {"masks": masks}
    np.savez(folder / "data.npz", images=images.astype(np.uint8), **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    flat = RNG.integers(0, 256, (48, 20, 20))
    twins = np.concatenate([flat[:24], flat[:24] + RNG.integers(-1, 2, (24, 20, 20))]).clip(0, 255)
    files = [f"image_{i if i < 36 else 1_000_000 + i}.jpg" for i in range(48)]
    volumes, masks = RNG.integers(0, 256, (48, 48, 64, 48)), np.zeros((48, 48, 64, 48), dtype=np.uint8)
    masks[:, 20:28, 28:36, 20:28] = 1
    write(folder, "mnist", flat, split=["train"] * 30 + ["test"] * 18)
    write(folder, "chestxray_pneumonia", flat, group=[f"p{i // 4}" for i in range(48)], kind="x")
    write(folder, "busi", twins, file=files, label=[0, 1, 2] * 16)
    write(folder, "luna16_2d", flat, file=files)
    write(folder, "hippocampus_mri_3d", volumes, masks, raw_p99=RNG.random(48))
    dx = np.repeat(["nv", "mel", "bkl", "bcc"], [24, 8, 10, 6])
    write(folder, "ham10000", RNG.integers(0, 256, (48, 12, 16, 3)), np.ones((48, 12, 16)), dx=dx,
          dx_type="histo", age=["50.0", ""] * 24, sex="male", localization="back",
          group=np.arange(48) // 2)  # fmt: skip
    return folder


@pytest.mark.parametrize("name", REAL)
def test_a_row_reads_its_set_and_keeps_apart_what_must_be(name, root):
    row = REAL[name]
    data = row.data(str(root), row.size, row.net is None, most=(20, 1000), batch_size=4)
    data.setup("fit")
    train, validation = data.train, data.validation
    assert len(train) <= 20
    assert len(train.metadata) == len(train.sample_ids) == len(train)
    image, _ = train[0]
    assert image.shape[0] == {"real_stacks": 15}.get(name, 3 if row.net is None else 1)
    if row.size:
        assert tuple(image.shape[1:]) == row.size
    if name == "real_mnist":
        assert len(validation) == 18
    elif name not in ("real_nodules", "real_hippocampus", "real_stacks"):
        assert not set(train.frame["patient"]) & set(validation.frame["patient"])
    if row.source in ("hippocampus_mri_3d", "ham10000"):
        region = validation.region(0)
        assert region.shape == tuple(image.shape[1:])
        assert region.any()
    if row.net is not None:
        assert row.net()(image[None]).shape == (1, row.classes)


def test_copies_stay_together_and_rotated_ones_are_left_out(root):
    twins = real.BreastUltrasound(str(root)).samples()
    assert (twins["patient"][:24].to_numpy() == twins["patient"][24:].to_numpy()).all()
    assert len(real.NoduleCrops(str(root)).samples()) == 36
    skin = real.Skin(str(root)).samples()
    assert skin["target"].value_counts().max() <= 1.3 * skin["target"].value_counts().min()
    assert skin["age"].isna().any()
