"""What the rows share: splits that keep patients apart, metadata, regions, and loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ifa.errors import DataError

from .files import OnDamaged, read_table, sound_rows

HELD = 2**28
"""Bytes of decoded images that a split keeps in memory; the others are decoded again."""

EXTRA = "metadata.csv"


class PaperData(pl.LightningDataModule, ABC):
    """A data set of the paper, read from the files as published.

    A row says how: ``samples`` lists them, ``check`` looks at a file's header, ``image`` decodes one, ``region`` tells
    where the evidence lies. A file ``metadata.csv`` in the folder, with a column ``id``, adds columns to any row. Where
    patients have several samples, the column ``group`` tells the analysis so.

    Args:
        root: The folder.
        size: Sides of the input in pixels (voxels).
        batch_size: Samples a batch.
        validation_share: Of the patients; only where the data set is published without a split.
        on_damaged: ``"refuse"`` stops at missing or damaged files and names them, ``"skip"`` names them and goes on.
        num_workers: Of the loaders.
        seed: Of the split.

    Raises:
        DataError: The layout is another, or files are damaged.
    """

    metadata_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of ``samples`` that go to the analysis of confounders."""

    def __init__(
        self,
        root: str,
        size: int = 64,
        batch_size: int = 32,
        validation_share: float = 0.35,
        on_damaged: OnDamaged = "refuse",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.size, self.batch_size = Path(root), size, batch_size
        self.validation_share, self.on_damaged = validation_share, on_damaged
        self.num_workers, self.seed = num_workers, seed

    @abstractmethod
    def samples(self) -> pd.DataFrame:
        """List the samples: ``id``, ``files`` (a tuple of paths), ``target``, ``patient``, and what the row needs.

        A column ``split`` (``"train"``, ``"validation"``) says how the data set was published, a column ``located``
        for which samples it is known where the evidence lies.
        """

    @abstractmethod
    def check(self, path: Path) -> Any:
        """Look at a file's header; raises ``FileError`` if it is missing or damaged."""

    @abstractmethod
    def image(self, row: pd.Series) -> NDArray[np.float32]:
        """Decode one sample to ``(channels, *space)``."""

    def region(self, row: pd.Series) -> NDArray[np.bool_] | None:
        """Where the evidence of a sample should lie, of the image's spatial shape; None where nobody knows."""
        return None

    def setup(self, stage: str) -> None:
        """List, check and split."""
        frame = sound_rows(self.samples(), self.check, self.on_damaged)
        known = [name for name in self.metadata_columns if name in frame]
        if (self.root / EXTRA).is_file():
            extra = read_table(self.root / EXTRA, "metadata", "id").drop_duplicates("id").set_index("id")
            frame = frame.join(extra[[name for name in extra if name not in frame]], on="id")
            known += [name for name in extra if name not in known]
        if "group" not in frame and frame["patient"].duplicated().any():
            frame, known = frame.assign(group=frame["patient"]), ["group", *known]
        held_out = validation_rows(frame, self.validation_share, self.seed)
        kind = LocatedSet if "located" in frame and frame["located"].any() else PaperSet
        self.train = kind(self, frame[~held_out].reset_index(drop=True), known)
        self.validation = kind(self, frame[held_out].reset_index(drop=True), known)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training samples, shuffled, as they are: what augments them belongs into ``on_after_batch_transfer``."""
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation samples."""
        return DataLoader(self.validation, self.batch_size, num_workers=self.num_workers)


def validation_rows(frame: pd.DataFrame, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the rows of the validation split: as published, else whole patients, classes balanced.

    Args:
        frame: With ``target``, ``patient`` and perhaps ``split``.
        share: Of the patients.
        seed: Of the draw.

    Raises:
        DataError: There are too few patients.
    """
    if "split" in frame:
        return np.asarray(frame["split"] == "validation")
    folds = round(1 / share) if share <= 0.5 else 2
    if frame["patient"].nunique() < 2 * folds:
        raise DataError(f"{frame['patient'].nunique()} patients are too few to hold {share:.0%} of them out")
    whole = pd.api.types.is_integer_dtype(frame["target"])
    draw = (
        StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        if whole
        else GroupShuffleSplit(1, test_size=share, random_state=seed)
    )
    _, held_out = next(draw.split(np.zeros(len(frame)), frame["target"], frame["patient"]))
    return np.isin(np.arange(len(frame)), held_out)


class PaperSet(Dataset[tuple[Tensor, Tensor]]):
    """One split; what was decoded stays in memory up to ``HELD`` bytes.

    Attributes:
        frame: One row a sample.
        sample_ids: As the data set names them.
        metadata: What it tells of each, for the analysis of confounders.
    """

    def __init__(self, data: PaperData, frame: pd.DataFrame, known: list[str]) -> None:
        self.data, self.frame = data, frame
        self.sample_ids = list(frame["id"])
        self.metadata = frame[known]
        self._held: dict[int, Tensor] = {}
        self._left = HELD

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._decoded(index), torch.tensor(self.frame["target"].iloc[index])

    def take(self, rows: NDArray[np.int64]) -> None:
        """Keep some rows only."""
        self.frame, self.metadata = (part.iloc[rows].reset_index(drop=True) for part in (self.frame, self.metadata))
        self.sample_ids = list(self.frame["id"])
        self._held.clear()

    def _decoded(self, index: int) -> Tensor:
        if index in self._held:
            return self._held[index]
        image = torch.from_numpy(np.ascontiguousarray(self.data.image(self.frame.iloc[index])))
        if image.nbytes <= self._left:
            self._held[index] = image
            self._left -= image.nbytes
        return image


class LocatedSet(PaperSet):
    """A split of which is known where the evidence lies."""

    def region(self, index: int) -> NDArray[np.bool_] | None:
        """Mask of the input's spatial shape: empty where there is nothing to see, None where nobody knows."""
        return self.data.region(self.frame.iloc[index])
