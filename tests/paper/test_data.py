"""Every row reads its published layout: shapes, patients, metadata, regions, and files that are damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from examples.paper.data.base import validation_rows
from examples.paper.data.cats_dogs import CatsDogs
from examples.paper.data.esmira import Esmira
from examples.paper.data.ilsvrc import Ilsvrc
from examples.paper.data.luna import Luna, cut_cube
from examples.paper.data.melanoma import Melanoma
from examples.paper.data.mnist import Mnist
from examples.paper.data.rsna import Pneumonia
from examples.paper.data.ultrasound import Ultrasound
from examples.paper.formats.metaimage import read_header, write_volume
from lightning_ifa.errors import DataError, IFAWarning

ROWS = {
    "mnist": (Mnist, (1, 28, 28), {"size": 28}, ["tag"]),
    "ilsvrc": (Ilsvrc, (3, 48, 48), {"size": 48}, ["stamp"]),
    "cats_dogs": (CatsDogs, (3, 48, 48), {"size": 48}, ["date"]),
    "rsna": (Pneumonia, (1, 48, 48), {"size": 48}, ["sex", "age", "view", "institution"]),
    "melanoma": (Melanoma, (3, 48, 48), {"size": 48}, ["group", "sex", "age", "site", "ruler"]),
    "ultrasound": (Ultrasound, (1, 48, 48), {"size": 48}, ["calipers"]),
    "luna": (Luna, (1, 16, 16, 16), {"size": 16}, ["group", "scanner"]),
    "esmira": (Esmira, (10, 32, 32), {"size": 32}, ["site", "sex", "age"]),
}


@pytest.fixture(params=ROWS)
def row(request, stand_in):
    """A row's data module, set up, with what is expected of it."""
    kind, shape, options, known = ROWS[request.param]
    data = kind(str(stand_in(request.param)), **options)
    data.setup("fit")
    return data, shape, known


def test_what_a_sample_is(row):
    data, shape, known = row
    for split in (data.train, data.validation):
        image, target = split[len(split) - 1]
        assert image.shape == shape
        assert image.dtype == torch.float32
        assert bool(image.isfinite().all())
        assert float(image.std()) > 0.01
        assert target.dtype == torch.int64
        assert list(split.metadata) == known
        assert len(split.metadata) == len(split) == len(set(split.sample_ids))
        assert split.metadata[known[-1] if known[-1] != "institution" else "view"].notna().all()


def test_no_patient_is_in_both_splits(row):
    data, *_ = row
    assert not set(data.train.frame["patient"]) & set(data.validation.frame["patient"])
    assert set(data.train.frame["target"]) == set(data.validation.frame["target"])


def test_regions_lie_on_the_input_and_hold_a_part_of_it(row):
    data, shape, _ = row
    if isinstance(data, Mnist):
        assert not hasattr(data.validation, "region")  # nobody says where the evidence of a digit lies
        return
    found = [region for i in range(len(data.validation)) if (region := data.validation.region(i)) is not None]
    assert all(region.shape == shape[1:] and region.dtype == bool for region in found)
    shares = np.array([region.mean() for region in found])
    assert (shares > 0).any()
    assert (shares < 0.6).all()


def test_the_same_split_every_time(row):
    data, *_ = row
    ids = list(data.validation.sample_ids)
    data.setup("validate")
    assert list(data.validation.sample_ids) == ids


def test_patients_of_several_samples_stay_together():
    frame = pd.DataFrame({"target": np.tile([0, 1, 1], 40), "patient": np.repeat(np.arange(30), 4)})
    held_out = validation_rows(frame, 0.25, seed=0)
    assert held_out.mean() == pytest.approx(0.25, abs=0.05)
    assert not set(frame["patient"][held_out]) & set(frame["patient"][~held_out])
    assert frame["target"][held_out].mean() == pytest.approx(2 / 3, abs=0.05)


def test_too_few_patients_are_said():
    with pytest.raises(DataError, match="3 patients are too few"):
        validation_rows(pd.DataFrame({"target": [0, 1, 0], "patient": [1, 2, 3]}), 0.25, seed=0)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("ilsvrc", "train/*/*.JPEG"),
        ("cats_dogs", "train/*.jpg"),
        ("rsna", "stage_2_train_images/*.dcm"),
        ("melanoma", "train/ISIC_*0.jpg"),
        ("ultrasound", "benign/benign*).png"),
        ("luna", "subset0/*.raw"),
        ("esmira", "*/axial.nii.gz"),
    ],
)
def test_damaged_and_missing_files_are_named_counted_and_skipped_or_refused(name, pattern, stand_in, tmp_path):
    kind, _, options, _ = ROWS[name]
    root = tmp_path / "copy"
    shutil.copytree(stand_in(name), root)
    victims = sorted(root.glob(pattern))[:2]
    victims[0].write_bytes(victims[0].read_bytes()[:-400])
    listed = name in ("rsna", "melanoma", "luna", "esmira")  # a file that nothing lists is not missed
    if listed:
        victims[1].unlink()
    count = 1 + listed
    with pytest.raises(DataError, match=rf"^{count} of \d+ files cannot be used.*on_damaged: skip") as refused:
        kind(str(root), **options).setup("fit")
    assert all(victim.stem in str(refused.value) for victim in victims[:count])
    data = kind(str(root), on_damaged="skip", **options)
    with pytest.warns(IFAWarning, match=f"{count} of .* samples left out"):
        data.setup("fit")
    whole = kind(str(stand_in(name)), **options)
    whole.setup("fit")
    lost = len(whole.train) + len(whole.validation) - len(data.train) - len(data.validation)
    assert lost == sum(v in files for v in victims[:count] for files in data_files(whole, root))


def data_files(data, root):
    """Files of every sample of a data set, as if it lay elsewhere."""
    frame = pd.concat([data.train.frame, data.validation.frame])
    for files in frame["files"]:
        moved = [root / path.relative_to(data.root) for path in files]
        yield [*moved, *(path.with_suffix(".raw") for path in moved if path.suffix == ".mhd")]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (Mnist, "four files of MNIST"),
        (Ilsvrc, "a folder a synset"),
        (CatsDogs, "there are no"),
        (Pneumonia, "labels of RSNA"),
        (Melanoma, "SIIM-ISIC"),
        (Ultrasound, "0 folders"),
        (Luna, "candidates"),
        (Esmira, "one line a patient"),
    ],
)
def test_an_empty_folder_is_said(kind, word, tmp_path):
    (tmp_path / "train").mkdir(exist_ok=True) if kind is CatsDogs else None
    with pytest.raises(DataError, match=word):
        kind(str(tmp_path)).setup("fit")


def test_cats_and_dogs_in_two_folders(stand_in, tmp_path):
    for path in (stand_in("cats_dogs") / "train").glob("*.jpg"):
        folder = tmp_path / {"cat": "Cat", "dog": "Dog"}[path.name[:3]]
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / path.name.split(".", 1)[1])
    data = CatsDogs(str(tmp_path), size=32)
    data.setup("fit")
    folders = [name.split("/")[0] for name in data.train.sample_ids]
    assert set(zip(folders, data.train.frame["target"], strict=True)) == {("Cat", 0), ("Dog", 1)}
    assert not hasattr(data.train, "region")


def test_synset_words(stand_in):
    data = Ilsvrc(str(stand_in("ilsvrc")))
    assert data.class_names == ["koala", "tabby", "zebra", "lemon"]


def test_several_boxes_of_a_patient_are_one_sample(stand_in):
    root = stand_in("rsna")
    lines = pd.read_csv(root / "stage_2_train_labels.csv", dtype={"patientId": str})
    several = lines["patientId"].value_counts().idxmax()
    assert (lines["patientId"] == several).sum() == 2
    frame = Pneumonia(str(root)).samples()
    assert frame["id"].is_unique
    row = frame[frame["id"] == several].iloc[0]
    assert row["boxes"].shape == (2, 4)
    data = Pneumonia(str(root), size=96)  # as the stand-in is stored
    x, y, width, height = row["boxes"][0]
    assert data.region(row)[int(y + height / 2), int(x + width / 2)]
    inside = data.image(row)[0][data.region(row)].mean()
    assert not data.region(frame[frame["target"] == 0].iloc[0]).any()
    assert inside > 0.3  # an opacity in a dark lung


def test_a_cube_lies_around_its_world_position(tmp_path):
    """One bright voxel at a known place, in a scan with coarse slices, comes to the middle of the cube."""
    scan = np.full((10, 20, 20), -1000, dtype=np.int16)
    scan[4, 12, 7] = 400
    spacing, origin = np.array([0.5, 0.5, 2.0]), np.array([-30.0, 4.0, 100.0])
    write_volume(tmp_path / "x.mhd", scan, spacing, origin)
    header = read_header(tmp_path / "x.mhd")
    world = origin + spacing * np.array([7, 12, 4])
    cube = cut_cube(header, world, size=9, spacing=1.0)
    assert np.unravel_index(cube.argmax(), cube.shape) == (4, 4, 4)
    assert cube[4, 4, 4] == pytest.approx(400)
    assert cube[3, 4, 4] == pytest.approx(-300)  # half-way to the next slice
    edge = cut_cube(header, origin, size=9, spacing=1.0)
    assert (edge[:4] == -1000).all()  # what lies outside of the scan is air
    with pytest.raises(DataError, match="outside of the scan"):
        cut_cube(header, origin - 1000, size=9, spacing=1.0)


def test_hounsfield_units_are_clipped_to_zero_and_one(stand_in):
    data = Luna(str(stand_in("luna")), size=16)
    data.setup("fit")
    images = torch.stack([data.train[i][0] for i in range(len(data.train))])
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.median() == pytest.approx((-850 + 1000) / 1400, abs=0.1)  # lung, on either scanner


def test_scores_are_floats_for_regression(stand_in):
    data = Esmira(str(stand_in("esmira")), size=32, target="score")
    data.setup("fit")
    assert data.train[0][1].dtype == torch.float32
    assert len(set(data.train.frame["target"])) > 10


def test_stacks_stand_in_the_order_of_the_groups(stand_in):
    one, other = (
        Esmira(str(stand_in("esmira")), size=32, stacks=s) for s in (("coronal", "axial"), ("axial", "coronal"))
    )
    row = one.samples().iloc[0]
    np.testing.assert_array_equal(one.image(row)[:5], other.image(other.samples().iloc[0])[5:])
