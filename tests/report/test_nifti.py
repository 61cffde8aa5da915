"""Maps of volumes lie over their images in world coordinates, in files that say whose affine it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import FeatureReport, analyze
from lightning_ifa.data.volume_grid import VolumeGrid, read_affine
from lightning_ifa.errors import DataError, IFAWarning, MetadataError
from lightning_ifa.report.files import write_pictures
from lightning_ifa.report.nifti import INDEX_FILE, NIFTI_FOLDER, UNKNOWN, resample

nibabel = pytest.importorskip("nibabel", reason="maps as NIfTI need nibabel (the extra 'medical')")
SHAPE = (12, 20, 16)


def turned(degrees, spacing=(0.7, 1.3, 3.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -30, 12.5, 80
    return affine


AFFINES = np.stack([turned((10 * i, -15, 7 * i)) for i in range(12)])


class Placed(torch.Tensor):
    """A tensor that knows its affine, as MONAI's MetaTensor."""


def collate(rows):
    batch = torch.stack([image for image, _, _ in rows]).as_subclass(Placed)
    batch.affine = torch.stack([affine for _, _, affine in rows])
    return batch, torch.stack([label for _, label, _ in rows])


class Blobs(nn.Module):
    """Its map is the image, averaged over cells of two voxels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool3d(2), nn.ReLU())
        self.head = nn.Linear(1, 2)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3, 4)))


@pytest.fixture(scope="module")
def images():
    rng, axes = np.random.default_rng(0), np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    places = rng.uniform(4, np.array(SHAPE) - 5, (12, 3))
    blobs = [np.exp(-sum((a - c) ** 2 for a, c in zip(axes, place, strict=True)) / 6) for place in places]
    return torch.tensor(np.stack(blobs)[:, None], dtype=torch.float32)


def analysed(images, collate_fn=None, **options):
    labels = torch.arange(12) % 2
    parts = (images, labels, torch.from_numpy(AFFINES)) if collate_fn else (images, labels)
    data = DataLoader(TensorDataset(*parts), 5, collate_fn=collate_fn)
    return analyze(Blobs(), data, layer="features", explain=0, probes=6, nifti=True, **options)


def world_centre(values, affine):
    weights = np.clip(values - values.max() / 2, 0, None)
    index = [float((weights * a).sum() / weights.sum()) for a in np.meshgrid(*map(np.arange, SHAPE), indexing="ij")]
    return nibabel.affines.apply_affine(affine, index)


def test_map_and_image_agree_in_the_world_under_turned_anisotropic_affines(images, tmp_path, monkeypatch):
    for name in ("overview_png", "feature_page", "gallery_page"):
        monkeypatch.setattr(f"lightning_ifa.report.files.{name}", None)  # the other pictures take seconds
    report = analysed(images, collate)
    report.save(tmp_path / "saved")
    report = FeatureReport.load(tmp_path / "saved")
    write_pictures(report, tmp_path, 0)
    files = sorted((tmp_path / NIFTI_FOLDER).glob("*.nii.gz"))
    assert len(files) == len(report.probes.table) == 6
    for row, path in enumerate(files):
        overlay, number = nibabel.load(path), report.probes.table.indices[row]
        assert overlay.shape == SHAPE
        assert overlay.get_data_dtype() == np.float32
        np.testing.assert_allclose(overlay.affine, AFFINES[number], atol=1e-5)
        values = np.asarray(overlay.dataobj)
        apart = world_centre(values, overlay.affine) - world_centre(images[number, 0].numpy(), AFFINES[number])
        assert np.linalg.norm(np.linalg.solve(AFFINES[number][:3, :3], apart)) < 0.5
        written = report.scale.position(report.probes.table.cams[row]).astype(np.float32)
        np.testing.assert_array_equal(values, resample(written, SHAPE))
        assert (overlay.header["cal_min"], overlay.header["cal_max"]) == (0, 1)
    groups = np.stack([report.probes.table.cams / 2] * 2, axis=1)
    assert len(report.to_nifti(tmp_path / "groups", groups)) == 12
    assert not [text for text in report.warnings if "NIfTI" in text]


def test_an_affine_comes_from_the_metadata_or_the_original_file_or_is_said_to_be_unknown(images, tmp_path):
    original = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINES[0])
    original.header["descrip"], original.header["db_name"] = b"Jane Doe", b"Doe"
    original.header.set_xyzt_units("micron")
    nibabel.save(original, tmp_path / "jane.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), tmp_path / "other.nii")
    rows = [{"affine": AFFINES[1]}, {"file": str(tmp_path / "jane.nii.gz")},
            {"file": str(tmp_path / "other.nii")}, {"file": str(tmp_path / "gone.nii")}, {}, {}]  # fmt: skip
    frame = pd.DataFrame([rows[i % 6] for i in range(12)])
    with pytest.warns(IFAWarning, match="'affine' .* taken as text"):
        report = analysed(images, metadata={"validation": frame})
    files = report.to_nifti(tmp_path / "maps")
    index = pd.read_csv(tmp_path / "maps" / INDEX_FILE)
    told = {number % 6: (nibabel.load(path), index["affine"][row])
            for row, (path, number) in enumerate(zip(files, report.probes.table.indices, strict=True))}  # fmt: skip
    np.testing.assert_allclose(told[0][0].affine, AFFINES[1], atol=1e-5)
    np.testing.assert_allclose(told[1][0].affine, AFFINES[0], atol=1e-5)
    assert told[1][0].header.get_xyzt_units()[0] == "micron"
    assert b"Doe" not in told[1][0].header.binaryblock
    assert "not (12, 20, 16)" in told[2][1]
    assert "cannot be read" in told[3][1]
    assert told[4][1] == UNKNOWN
    assert np.array_equal(told[4][0].affine, np.eye(4))
    assert any("no affine is known for 2 of 6 pictured volumes" in text for text in report.warnings)


def test_what_is_no_affine_or_no_volume_is_refused(images, tmp_path):
    for text in ("1 0 0 0 0 1 0 0", "0 " * 16, "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 2"):
        with pytest.raises(MetadataError, match="12 or 16 numbers"):
            read_affine(text)
    report = analysed(images)
    without = dataclasses.replace(report, probes=dataclasses.replace(report.probes, grids=None))
    with pytest.raises(DataError, match="nifti=True"):
        without.to_nifti(tmp_path)
    lost = dataclasses.replace(report.probes, grids=(VolumeGrid(SHAPE, None),) * 6)
    assert len(dataclasses.replace(report, probes=lost).to_nifti(tmp_path)) == 6
