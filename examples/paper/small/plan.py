"""Which sample shows what: classes, patients, and a mark that may travel with the class."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TRAVELS = 0.85
"""How often the planted mark agrees with the class where it confounds; one half where it does not."""

DISAGREE = 0.12
"""How often the label is another one than what the image shows, as readers disagree; the mark goes with the label."""


class Plan(NamedTuple):
    """What is to be drawn.

    Attributes:
        classes: ``(n,)`` labels.
        shown: ``(n,)`` classes that the images show.
        marked: ``(n,)`` bool.
        rng: For everything else.
    """

    classes: NDArray[np.int64]
    shown: NDArray[np.int64]
    marked: NDArray[np.bool_]
    rng: np.random.Generator


def plan(count: int, classes: int, confounded: bool, seed: int, *, each: int = 1, disagree: float = DISAGREE) -> Plan:
    """Draw classes and marks.

    The mark is on half of all samples in either case, so that only its company changes.

    Args:
        count: Samples.
        classes: How many; the mark goes with the upper half of them.
        confounded: Whether the mark travels with the class.
        seed: Of the draw.
        each: Samples that share a mark, as of one patient.
        disagree: How often the label is wrong.
    """
    rng = np.random.default_rng(seed)
    of_group = np.arange(-(-count // each)) % classes
    rng.shuffle(of_group)
    agree = rng.random(len(of_group)) < (TRAVELS if confounded else 0.5)
    marked = (of_group >= classes / 2) == agree
    other = (of_group + rng.integers(1, classes, len(of_group))) % classes
    shown = np.where(rng.random(len(of_group)) < disagree, other, of_group)
    return Plan(*(np.repeat(values, each)[:count] for values in (of_group, shown, marked)), rng)


def write_extra(folder: Path, names: list[str], **columns: NDArray[np.generic]) -> None:
    """Write what is known of the samples beyond the published files."""
    pd.DataFrame({"id": names, **columns}).to_csv(folder / "metadata.csv", index=False)
