"""Stand-in for RSNA pneumonia: made chest X-rays as DICOM; the mark is a lead marker AP, of portable devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .paint import Array, ellipse, letters_ap, stripes, texture
from .plan import plan

SHAPE = (96, 96)
XRAY = "1.2.840.10008.5.1.4.1.1.1"


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write the DICOM files and the labels, one line a box."""
    drawn = plan(count, 2, confounded, seed)
    (folder / "stage_2_train_images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        patient = f"{seed:04x}{number:06x}"
        image, boxes = _chest(drawn.rng, int(shown))
        if marked:
            image[letters_ap(SHAPE)] = 1.0
        _save(folder / "stage_2_train_images" / f"{patient}.dcm", patient, image, bool(marked), drawn.rng)
        lines += [[patient, *box, label] for box in (boxes if label else None) or [[np.nan] * 4]]
    columns = ["patientId", "x", "y", "width", "height", "Target"]
    pd.DataFrame(lines, columns=columns).to_csv(folder / "stage_2_train_labels.csv", index=False)


def _chest(rng: np.random.Generator, label: int) -> tuple[Array, list[list[float]]]:
    """Body, two dark lungs, ribs, and opacities in one or both lungs."""
    lungs = [np.array([48 + rng.normal(0, 2), 48 + side * rng.normal(18, 1)]) for side in (-1, 1)]
    body = ellipse(SHAPE, np.array([55.0, 48]), np.array([60.0, 40]), 4)
    image = 0.1 + 0.5 * body - 0.4 * np.maximum(*(ellipse(SHAPE, lung, np.array([30.0, 12.0]), 3) for lung in lungs))
    image += 0.05 * stripes(SHAPE, 11, np.pi / 2) + 0.04 * texture(rng, SHAPE, 1.5)
    boxes = []
    for lung in lungs if label and rng.random() < 0.4 else [lungs[int(rng.integers(2))]] * label:
        centre, radii = lung + rng.uniform((-14, -3), (14, 3)), rng.uniform(6, 9, 2)
        image += 0.22 * ellipse(SHAPE, centre, radii, 4) * (1 + 0.3 * texture(rng, SHAPE, 2))
        boxes.append([centre[1] - radii[1], centre[0] - radii[0], 2 * radii[1], 2 * radii[0]])
    return np.clip(image, 0, 1), boxes


def _save(path: Path, patient: str, image: Array, portable: bool, rng: np.random.Generator) -> None:
    """Half of the files are stored inverted, and devices differ in their rescaling."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = XRAY, generate_uid(entropy_srcs=[patient])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    inverted, slope = rng.random() < 0.5, float(rng.choice([1.0, 2.0]))
    stored = np.round((1 - image if inverted else image) * 4095 / slope).astype("<u2")
    data.PatientID, data.Modality, data.ViewPosition = patient, "CR", "AP" if portable else "PA"
    data.PatientSex, data.PatientAge = str(rng.choice(["F", "M"])), f"{rng.integers(20, 90):03d}Y"
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept = slope, -100
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.Rows, data.Columns = stored.shape
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)
