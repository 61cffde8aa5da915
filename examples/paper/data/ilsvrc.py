"""ILSVRC2012: one folder a synset below ``train`` and ``val``, names in ``LOC_synset_mapping.txt``, boxes in XML."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.errors import DataError

from ..formats.photo import read_photo
from .files import require
from .photographs import Photographs, one_a_sample, photographs_below
from .square import boxes_to_mask, mask_to_square

WORDS = ("LOC_synset_mapping.txt", "synset_words.txt")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Ilsvrc(Photographs):
    """Photographs; classes are the folders of ``train`` in the order of their names, as ImageNet counts them.

    Boxes of ``Annotations/<split>/<synset>/<image>.xml`` are the regions, where they are there.
    """

    def samples(self) -> pd.DataFrame:
        """One row a photograph of ``train`` and ``val``."""
        synsets = self.synsets
        frames = []
        for split, part in (("train", "train"), ("validation", "val")):
            paths = photographs_below(require(self.root / part, "a folder a synset below train and val"))
            strange = [path for path in paths if path.parent.name not in synsets]
            if strange:
                raise DataError(f"{strange[0]} lies in no folder of {self.root / 'train'}")
            targets = [synsets.index(path.parent.name) for path in paths]
            frames.append(one_a_sample(paths, targets, self.root).assign(split=split))
        frame = pd.concat(frames, ignore_index=True)
        return frame.assign(located=[self._annotation(files[0]).is_file() for files in frame["files"]])

    def region(self, row: pd.Series) -> NDArray[np.bool_] | None:
        """The boxes around the photographed object."""
        path = self._annotation(row["files"][0])
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8")
        corners = np.array([re.findall(rf"<{name}>\s*(\d+)", text) for name in CORNERS], dtype=np.float64).T
        boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        shape = read_photo(row["files"][0], "L").shape[1:]
        return mask_to_square(boxes_to_mask(boxes, (shape[0], shape[1])), self.size, self.fit)

    @cached_property
    def synsets(self) -> list[str]:
        """Folder names in the order of their classes."""
        return sorted(p.name for p in require(self.root / "train", "a folder a synset").iterdir() if p.is_dir())

    @property
    def class_names(self) -> list[str]:
        """First word of each class, from the file of synset words; the folder's name without one."""
        found = [self.root / name for name in WORDS if (self.root / name).is_file()]
        lines = found[0].read_text(encoding="utf-8").splitlines() if found else []
        words = {key: text.split(",")[0] for key, _, text in (line.partition(" ") for line in lines)}
        return [words.get(name, name) for name in self.synsets]

    def _annotation(self, path: Path) -> Path:
        inside = path.relative_to(self.root).with_suffix(".xml")
        return self.root / "Annotations" / inside
