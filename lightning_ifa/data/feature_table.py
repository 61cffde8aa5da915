"""The FeatureTable: all that the analysis knows of a model and a split."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.several_sizes import median_size, resize
from lightning_ifa.data.untrusted_files import file_errors, read_arrays, read_table
from lightning_ifa.errors import DataError, FileError

FORMAT = 1

ONE_LABEL = ("multiclass", "binary")
"""Tasks in which one class of several is right."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of one split at one layer; rows are samples.

    Attributes:
        contributions: ``(n, c)`` float32, each channel's contribution to the explained class, units of the score.
        activations: ``(n, c)`` float32, each channel's mean activation over space.
        logits: ``(n, k)`` float32. Binary: ``(-z / 2, z / 2)``. Segmentation: mean of each class plane.
        targets: ``(n,)`` int64 class, ``-1`` where unlabelled; float32 for regression, NaN where unlabelled.
        predictions: ``(n,)``, classes or values as ``targets``.
        explained: ``(n,)`` int64, the class that contributions and map explain.
        cams: ``(n, *space)`` float32 at layer resolution, signed, unscaled.
        sample_ids: ``(n,)`` str, stable across epochs and runs.
        indices: ``(n,)`` int64, position in the data set.
        fingerprints: ``(n,)`` int64, CRC-32 of the input; equal inputs have equal fingerprints.
        metadata: What the user knows of each sample, n rows, may have no column.
        properties: Image properties measured on the input, n rows.
        layer: Name of the target layer.
        task: One of ``model.outputs.TASKS``.
        cam: Name of the CAM method.
        notes: What the reader of these features has to know: samples left out, outputs or maps changed.
        object_size: ``(n,)`` float32, segmentation only: share of the target class in the mask; NaN where unknown.
        dice: ``(n,)`` float32, segmentation only: Dice coefficient, mean over the foreground classes that are predicted
            or labelled; NaN where unknown, or where there is neither.
        gradient: ``"conservative"`` where norms and attention weights behind the layer were held fixed, or ``"plain"``.
        unplaced: ``(n,)`` float32, what of the explained score comes through class tokens, and past the layer in a
            residual stream, so that no map can show it; known, and not 0, where ``gradient`` is conservative.
        thumbnails: ``(n, 24, 24)`` float32, the inputs in little, by which copies are found; None where inputs are no
            images.
        places: ``(n, k, *cells)`` float16, what each cell adds to each class's score, in ``place_unit``; or
            ``(n, 0, 1)``.
        place_unit: Unit of ``places``, chosen by each rank for its samples.
        looks: ``(n, m)`` float32, channel means on the way to the layer; or ``(n, 0)``.
        blocks: Name and number of looks of each block on the way. Thumbnails, places, their unit, looks and blocks
            are held during the analysis only and never saved.

    Example:
        >>> table = report.tables["validation"]
        >>> table.save("validation.npz")
        >>> again = FeatureTable.load("validation.npz")
        >>> len(again), again.layer == table.layer
        (60, True)
    """

    contributions: NDArray[np.float32]
    activations: NDArray[np.float32]
    logits: NDArray[np.float32]
    targets: NDArray[Any]
    predictions: NDArray[Any]
    explained: NDArray[np.int64]
    cams: NDArray[np.float32]
    sample_ids: NDArray[np.str_]
    indices: NDArray[np.int64]
    fingerprints: NDArray[np.int64]
    metadata: pd.DataFrame
    properties: pd.DataFrame
    layer: str
    task: str
    cam: str
    notes: tuple[str, ...] = ()
    object_size: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    dice: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    gradient: str = "plain"
    unplaced: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    thumbnails: NDArray[np.float32] | None = None
    places: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0, 1), dtype=np.float16))
    place_unit: float = 1.0
    looks: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    blocks: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for name, unknown in (("object_size", np.nan), ("dice", np.nan), ("unplaced", 0)):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self), unknown, dtype=np.float32))
        for name in ("places", "looks"):
            if not len(values := getattr(self, name)):
                object.__setattr__(self, name, np.zeros((len(self), 0, *values.shape[2:]), dtype=values.dtype))
        for name in _COLUMNS:
            rows = len(getattr(self, name))
            if rows != len(self):
                raise DataError(f"FeatureTable: {name} has {rows} rows, sample_ids {len(self)}")

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which rows are labelled and classified correctly, shape ``(n,)``; all False for regression."""
        if self.targets.dtype.kind == "f":
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.targets == self.predictions)

    @property
    def has_one_label(self) -> bool:
        """Whether one class of several is right for a sample, so that classes compete."""
        return self.task in ONE_LABEL

    @property
    def has_one_object(self) -> bool:
        """Whether one class is segmented on background, so that samples differ in the object's size only."""
        return self.task == "segmentation" and self.logits.shape[1] == 2 and not np.isnan(self.object_size).all()

    @property
    def intensity(self) -> NDArray[np.float32]:
        """Sum of each map over space, shape ``(n,)``; units of the score with HiResCAM."""
        return np.asarray(self.cams.reshape(len(self), -1).sum(1))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify this data (samples, inputs, labels)."""
        content = hashlib.sha256()
        for part in (self.sample_ids.astype("U"), self.fingerprints, self.targets):
            content.update(np.ascontiguousarray(part).tobytes())
        return content.hexdigest()[:12]

    def _require_types(self) -> None:
        """Refuse arrays of another dtype or number of axes than the class documents.

        Raises:
            DataError: One has.
        """
        for name, (kinds, axes) in _FORMS.items():
            values = getattr(self, name)
            if values.dtype.kind not in kinds or (values.ndim < axes if name == "cams" else values.ndim != axes):
                raise DataError(f"{name} is {values.dtype} with shape {values.shape}")
        for name in _LABELS:
            if not isinstance(getattr(self, name), str):
                raise DataError(f"{name} is no text")
        if not isinstance(self.notes, tuple) or not all(isinstance(note, str) for note in self.notes):
            raise DataError("notes are no texts")

    def take(self, rows: NDArray[Any]) -> FeatureTable:
        """Select rows by number or mask, shape ``(m,)``."""
        picked: dict[str, Any] = {name: getattr(self, name)[rows] for name in _ARRAYS}
        picked |= {name: getattr(self, name).iloc[rows].reset_index(drop=True) for name in _FRAMES}
        picked["thumbnails"] = None if self.thumbnails is None else self.thumbnails[rows]
        return replace(self, **picked)

    def without_places(self) -> FeatureTable:
        """Give the table without places and looks, as it is saved."""
        none = np.zeros((len(self), 0, 1))
        places, looks = none.astype(np.float16), none[..., 0].astype(np.float32)
        return replace(self, places=places, place_unit=1.0, looks=looks, blocks=())

    def with_place_unit(self, unit: float) -> FeatureTable:
        """Give the table with its places in a larger unit."""
        if unit == self.place_unit:
            return self
        return replace(
            self, places=(self.places * np.float32(self.place_unit / unit)).astype(np.float16), place_unit=unit
        )

    @classmethod
    def concatenate(cls, tables: Sequence[FeatureTable]) -> FeatureTable:
        """Join tables of one layer, as from several ranks, and put the rows in data-set order.

        Raises:
            DataError: The tables are of different layers, tasks, methods or widths.
        """
        first = tables[0]
        for table in tables[1:]:
            if any(getattr(table, key) != getattr(first, key) for key in _LABELS):
                raise DataError("FeatureTables of different layers, tasks, CAM methods or gradients cannot be joined")
            if table.contributions.shape[1:] != first.contributions.shape[1:]:
                raise DataError("FeatureTables with different numbers of channels cannot be joined")
        size = median_size([table.cams for table in tables])
        if size:
            tables = [replace(table, cams=resize(table.cams, size, keep_sum=True)) for table in tables]
        if len({(table.places.shape[1:], table.looks.shape[1:]) for table in tables}) > 1:
            tables = [table.without_places() for table in tables]  # one rank could not take them
        unit = max(table.place_unit for table in tables)
        tables = [table.with_place_unit(unit) for table in tables]
        columns: dict[str, Any] = {name: np.concatenate([getattr(t, name) for t in tables]) for name in _ARRAYS}
        columns |= {name: pd.concat([getattr(t, name) for t in tables], ignore_index=True) for name in _FRAMES}
        small = [t.thumbnails for t in tables if t.thumbnails is not None]
        columns["thumbnails"] = np.concatenate(small) if len(small) == len(tables) else None
        columns["notes"] = tuple(dict.fromkeys(note for table in tables for note in table.notes))
        joined = replace(first, **columns)
        return joined.take(np.argsort(joined.indices, kind="stable"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` without pickled objects; a reader never sees half a file."""
        path = Path(path)
        content: dict[str, Any] = {name: getattr(self, name) for name in _SAVED}
        content |= {name: _frame_to_bytes(getattr(self, name)) for name in _FRAMES}
        content["header"] = np.array(json.dumps({"format": FORMAT} | {key: getattr(self, key) for key in _HEADER}))
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as file:
            np.savez_compressed(file, **content)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureTable:
        """Read what ``save`` wrote.

        Raises:
            FileError: The file is missing, damaged, or no FeatureTable of this format.
        """
        path = Path(path)
        with file_errors(path, "a readable FeatureTable (.npz)"):
            columns: dict[str, Any] = dict(read_arrays(path))
            header = json.loads(str(columns.pop("header")))
            if header.pop("format") != FORMAT:
                raise FileError(f"{path} is a FeatureTable of another format; format {FORMAT} can be read")
            if held := {*columns, *header}.intersection(_HELD):
                raise FileError(f"{path} holds {', '.join(sorted(held))}, which are never saved")
            if isinstance(header.get("notes"), list):  # JSON knows no tuples
                header["notes"] = tuple(header["notes"])
            rows = len(columns["indices"])
            columns |= {name: _frame_from_bytes(columns[name], rows, path) for name in _FRAMES}
            table = cls(**columns, **header)
            table._require_types()
        return table

    def to_frame(self) -> pd.DataFrame:
        """Flatten to one wide DataFrame, maps left out: what ``to_parquet`` writes."""
        scalars = {
            name: getattr(self, name)
            for name in ("sample_ids", "indices", "targets", "predictions", "explained", "fingerprints")
        }
        wide = [pd.DataFrame(scalars)]
        for name in ("logits", "contributions", "activations"):
            values = getattr(self, name)
            wide.append(pd.DataFrame(values, columns=[f"{name}_{i}" for i in range(values.shape[1])]))
        wide += [self.metadata.add_prefix("metadata_"), self.properties.add_prefix("property_")]
        return pd.concat(wide, axis=1)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Export for other tools: one row a sample, one column a channel; maps are left out."""
        self.to_frame().to_parquet(path)


_FRAMES = ("metadata", "properties")
_LABELS = ("layer", "task", "cam", "gradient")
_HEADER = (*_LABELS, "notes")
_HELD = ("thumbnails", "places", "place_unit", "looks", "blocks")
_ARRAYS = tuple(
    f.name for f in fields(FeatureTable) if f.name not in (*_FRAMES, *_HEADER, "thumbnails", "place_unit", "blocks")
)
_SAVED = tuple(name for name in _ARRAYS if name not in _HELD)
_COLUMNS = _ARRAYS + _FRAMES
_FORMS = {
    **dict.fromkeys(("contributions", "activations", "logits"), ("f", 2)),
    **dict.fromkeys(("targets", "predictions"), ("if", 1)),
    **dict.fromkeys(("explained", "indices", "fingerprints"), ("iu", 1)),
    **dict.fromkeys(("object_size", "dice", "unplaced"), ("f", 1)),
    "cams": ("f", 1),
    "sample_ids": ("U", 1),
}
"""Kinds of dtype and number of axes of each array; at least so many axes for maps."""


def _frame_to_bytes(frame: pd.DataFrame) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _frame_from_bytes(content: NDArray[np.uint8], rows: int, path: Path) -> pd.DataFrame:
    frame = read_table(content.tobytes(), path)
    return frame if len(frame.columns) else pd.DataFrame(index=range(rows))  # Parquet forgets rows without columns
