"""Each format is read as its standard says, and damaged files are named."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image

from examples.paper.formats import dicom, metaimage, nifti, photo
from examples.paper.formats.idx import read_idx, write_idx
from lightning_ifa.errors import FileError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
def test_idx_comes_back(tmp_path, name):
    values = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    write_idx(tmp_path / name, values)
    np.testing.assert_array_equal(read_idx(tmp_path / name), values)


def test_idx_is_the_published_layout(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 9]))
    assert read_idx(tmp_path / "x").tolist() == [[7, 9]]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\0\0\x08\x01\0\0\0\x05abc", "holds 3 bytes"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "unsigned bytes"),
        (b"\0\0", "no readable"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcde", mtime=0)[:-9], "no readable"),
    ],
)
def test_idx_that_is_damaged(tmp_path, content, word):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileError, match=word):
        read_idx(tmp_path / "x")


@pytest.fixture
def xray(stand_in, tmp_path):
    """Save a copy of a stand-in's X-ray with changed header, return its path."""
    source = sorted((stand_in("rsna") / "stage_2_train_images").iterdir())[0]

    def save(pixels, **tags):
        data = pydicom.dcmread(source)
        data.Rows, data.Columns = pixels.shape
        data.PixelData = pixels.astype("<u2").tobytes()
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(tmp_path / "x.dcm")
        return tmp_path / "x.dcm"

    return save


def test_dicom_goes_through_slope_and_intercept(xray):
    pixels = RNG.integers(0, 4000, (8, 9))
    path = xray(pixels, RescaleSlope=2, RescaleIntercept=-1024, PhotometricInterpretation="MONOCHROME2")
    values, inverted = dicom.read_values(path)
    np.testing.assert_allclose(values, pixels * 2.0 - 1024)
    assert not inverted


def test_monochrome1_is_inverted(xray):
    pixels = RNG.integers(0, 4000, (20, 20))
    shown = dicom.read_dicom(xray(4095 - pixels, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(
        shown, dicom.read_dicom(xray(pixels, PhotometricInterpretation="MONOCHROME2")), atol=1e-6
    )
    assert (shown.min(), shown.max()) == (0, 1)


def test_dicom_that_is_damaged(xray, tmp_path):
    whole = xray(RNG.integers(0, 4000, (64, 64))).read_bytes()
    (tmp_path / "short.dcm").write_bytes(whole[:3000])
    (tmp_path / "other.dcm").write_bytes(b"\0" * 500)
    for name, word in (("short", "ends within its pixels"), ("other", "no readable DICOM"), ("none", "missing")):
        with pytest.raises(FileError, match=word):
            dicom.read_header(tmp_path / f"{name}.dcm")


def mhd(path, voxels, **said):
    """Write a MetaImage file by hand."""
    lines = {
        "ObjectType": "Image", "NDims": 3, "DimSize": " ".join(map(str, voxels.shape[::-1])),
        "ElementSpacing": "0.5 0.75 2", "Offset": "-10 20 5", "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
        "ElementType": "MET_SHORT", "ElementDataFile": "x.raw",
    } | said  # fmt: skip
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))


VOXELS = RNG.integers(-1000, 1000, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (VOXELS.astype("<i2").tobytes(), {}),
        (VOXELS.astype(">i2").tobytes(), {"BinaryDataByteOrderMSB": "True"}),
        (zlib.compress(VOXELS.astype("<i2").tobytes()), {"CompressedData": "True"}),
    ],
)
def test_metaimage_voxels(tmp_path, content, said):
    mhd(tmp_path / "x.mhd", VOXELS, **said)
    (tmp_path / "x.raw").write_bytes(content)
    np.testing.assert_array_equal(metaimage.read_volume(metaimage.read_header(tmp_path / "x.mhd")), VOXELS)


def test_metaimage_world_and_voxel(tmp_path):
    """The matrix turns x into y: two steps of 0.5 mm along x are 1 mm of world y."""
    mhd(tmp_path / "x.mhd", VOXELS)
    (tmp_path / "x.raw").write_bytes(VOXELS.tobytes())
    header = metaimage.read_header(tmp_path / "x.mhd")
    np.testing.assert_allclose(header.world(np.array([2.0, 0, 0])), [-10, 21, 5])
    np.testing.assert_allclose(header.world(np.array([0, 4.0, 1])), [-13, 20, 7])
    places = RNG.normal(size=(7, 3))
    np.testing.assert_allclose(header.voxel(header.world(places)), places)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"ElementDataFile": "../x.raw"}, "beside the header"),
        ({"ElementDataFile": "LOCAL"}, "beside the header"),
        ({"ElementDataFile": "y.raw"}, "missing"),
        ({"ElementType": "MET_OTHER"}, "scalar volumes"),
        ({"DimSize": "60 5 4"}, "holds 240 bytes"),
        ({"DimSize": "none"}, "no readable"),
    ],
)
def test_metaimage_that_is_damaged(tmp_path, said, word):
    mhd(tmp_path / "x.mhd", VOXELS, **said)
    (tmp_path / "x.raw").write_bytes(VOXELS.tobytes())
    with pytest.raises(FileError, match=word):
        metaimage.read_header(tmp_path / "x.mhd")


def test_nifti_slices_come_first(tmp_path):
    stack = RNG.normal(size=(3, 8, 9)).astype(np.float32)
    nifti.write_nifti(tmp_path / "x.nii.gz", stack, (4.0, 0.5, 0.5))
    np.testing.assert_allclose(nifti.read_nifti(tmp_path / "x.nii.gz"), stack, rtol=1e-6)


def test_nifti_that_is_damaged(tmp_path):
    stack = RNG.normal(size=(3, 8, 9)).astype(np.float32)
    nifti.write_nifti(tmp_path / "x.nii", stack, (4.0, 0.5, 0.5))
    (tmp_path / "short.nii").write_bytes((tmp_path / "x.nii").read_bytes()[:600])
    (tmp_path / "other.nii").write_bytes(b"no volume" * 100)
    nifti.check_nifti(tmp_path / "x.nii")
    nifti.write_nifti(tmp_path / "x.nii.gz", stack, (4.0, 0.5, 0.5))
    nifti.check_nifti(tmp_path / "x.nii.gz")
    with pytest.raises(FileError, match=r"short\.nii cannot be decoded"):
        nifti.read_nifti(tmp_path / "short.nii")
    for name in ("other", "none", "short"):
        with pytest.raises(FileError, match=name):
            nifti.check_nifti(tmp_path / f"{name}.nii")


def test_photographs_stand_upright(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0] = 255  # the upper edge is white; orientation 6 says that it belongs to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    shown = photo.read_photo(tmp_path / "x.png")
    assert shown.shape == (3, 6, 4)
    assert (shown[:, :, -1] == 1).all()
    assert (shown[:, :, :-1] == 0).all()


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_photographs_that_are_damaged(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    photo.check_photo(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FileError, match="ends before"):
        photo.check_photo(path)
    with pytest.raises(FileError, match="cannot be decoded"):
        photo.read_photo(path)
    path.write_bytes(b"<svg/>")
    with pytest.raises(FileError, match="no JPEG or PNG"):
        photo.check_photo(path)
    path.unlink()
    with pytest.raises(FileError, match="missing"):
        photo.check_photo(path)


def test_masks_beside_an_image_are_joined(tmp_path):
    names = ("a.png", "a_mask.png", "a_mask_1.png")
    for name, column in zip(names, (0, 1, 2), strict=True):
        pixels = np.zeros((4, 4), dtype=np.uint8)
        pixels[:, column] = 255
        Image.fromarray(pixels).save(tmp_path / name)
    mask = photo.read_masks(tmp_path / "a.png")
    assert mask.sum(0).tolist() == [0, 4, 4, 0]
    assert [photo.is_mask(tmp_path / name) for name in names] == [False, True, True]
    assert photo.read_masks(tmp_path / "b.png") is None
