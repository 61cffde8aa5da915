"""Maps of volumes as NIfTI files that lie over their images in any viewer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import zoom

from lightning_ifa.data.volume_grid import VolumeGrid
from lightning_ifa.errors import DataError

if TYPE_CHECKING:
    from lightning_ifa.report.result import AnalysisResult

NIFTI_FOLDER, INDEX_FILE = "ifa_nifti", "volumes.csv"
WITHOUT_NIBABEL = "maps as NIfTI need nibabel; pip install 'lightning-ifa[medical]'"
UNKNOWN = "identity: no affine is known, so the file has index and no world coordinates"


class _Place(NamedTuple):
    """An affine, the header that goes with it, and whose it is."""

    affine: NDArray[np.float64]
    header: Any
    origin: str


def write_nifti(report: AnalysisResult, folder: Path, groups: NDArray[np.float32] | None = None) -> list[Path]:
    """Write the map of each pictured volume as a NIfTI file on the grid of its image.

    Values are positions on the common intensity scale: 0 at its lower end, 1 at its upper end, linear and not clipped,
    so that files compare among samples and runs; viewers find the two ends in the header (``cal_min``, ``cal_max``).
    The map's cells tile the image, and values between their centres are interpolated linearly.

    The affine is that of the input tensor, or of the metadata column ``affine``, or of the original file if its grid is
    the input's; else the identity. From the original file's header come units and codes, but none of its texts and
    extensions, which may name a patient. ``volumes.csv`` says which file is whose, and where its affine is from.

    Args:
        report: A report of volumes, made with ``nifti=True``.
        folder: Folder that receives the files.
        groups: Maps of each probe by group of channels, ``(p, g, *space)``, as of
            ``features.channel_groups.group_maps``: one file a group instead of one a sample.

    Returns:
        The files, one a pictured sample, or one a sample and group.

    Raises:
        DataError: The report knows no grid of its volumes.
        ModuleNotFoundError: nibabel is not installed.
    """
    grids = report.probes.grids
    if grids is None:
        raise DataError("the report knows no grid of its volumes; analyse 3-D inputs with nifti=True")
    nibabel = _import_nibabel()
    folder.mkdir(parents=True, exist_ok=True)
    table, names = report.probes.table, report.class_names
    written: list[Path] = []
    rows = []
    for number, grid in enumerate(grids):
        place = _place(nibabel, grid)
        label = names[table.explained[number]] if table.explained[number] < len(names) else ""
        maps = table.cams[number][None] if groups is None else groups[number]
        for part, cam in enumerate(maps):
            end = "" if groups is None else f"_group{part}"
            path = folder / f"{number:03d}_{_plain(str(table.sample_ids[number]))}{end}.nii.gz"
            values = resample(report.scale.position(cam).astype(np.float32), grid.shape)
            nibabel.save(_image(nibabel, values, place, f"{table.cam}: {label}"), path)
            written.append(path)
            rows.append({"file": path.name, "sample_id": table.sample_ids[number], "explained": label,
                         "prediction": table.predictions[number], "affine": place.origin})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / INDEX_FILE, index=False)
    return written


def resample(cam: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate a map whose cells tile a volume at the volume's voxels.

    Args:
        cam: The map, ``(*cells)``.
        shape: Voxels along each axis.

    >>> resample(np.array([0.0, 4.0], dtype=np.float32), (4,))
    array([0., 1., 3., 4.], dtype=float32)
    """
    factors = [wide / cells for wide, cells in zip(shape, cam.shape, strict=True)]
    return np.asarray(zoom(cam, factors, order=1, mode="nearest", grid_mode=True))


def _place(nibabel: Any, grid: VolumeGrid) -> _Place:
    """Settle affine and header; a file that cannot be read, or has another grid, is said and left alone."""
    header, why = None, ""
    if grid.file:
        try:
            source = nibabel.load(grid.file)
            header = nibabel.Nifti1Header.from_header(source.header)
            why = "" if source.shape[:3] == grid.shape else f", the file's grid is {source.shape}, not {grid.shape}"
            if grid.affine is None and not why:
                return _Place(source.affine, _nameless(header), f"file {grid.file}")
        except Exception as error:  # whatever a foreign file makes nibabel raise
            why = f", {grid.file} cannot be read: {type(error).__name__}"
    if grid.affine is None:
        return _Place(np.eye(4), None, UNKNOWN + why)
    return _Place(grid.affine, _nameless(header), "input or metadata")


def _nameless(header: Any) -> Any:
    """Keep of a header what speaks of space; texts and extensions may name a patient."""
    if header is not None:
        header.extensions.clear()
        for name in ("descrip", "aux_file", "db_name", "intent_name"):
            header[name] = b""
    return header


def _image(nibabel: Any, values: NDArray[np.float32], place: _Place, text: str) -> Any:
    image = nibabel.Nifti1Image(values, place.affine, place.header)
    image.header.set_data_dtype(np.float32)
    image.header["cal_min"], image.header["cal_max"] = 0, 1
    image.header["descrip"] = text.encode("ascii", "replace")[:79]
    if place.header is None:
        image.header.set_xyzt_units("mm")
    return image


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:60]


def _import_nibabel() -> Any:
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(WITHOUT_NIBABEL, name="nibabel") from error
    return nibabel
