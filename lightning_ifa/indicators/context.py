"""What indicators are given: FeatureTables, what interventions found, and what follows from them, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError
from lightning_ifa.statistics.generalization_gap import margin
from lightning_ifa.statistics.localization import Localization
from lightning_ifa.statistics.strata import bin_edges, strata
from lightning_ifa.text import quote_name

if TYPE_CHECKING:
    from lightning_ifa.interventions.swaps import Swaps

Strata = dict[str, NDArray[np.int64]]


class TrendPoint(NamedTuple):
    """A family's score at one analysis of a training."""

    epoch: int
    score: float
    z: float


@dataclass(frozen=True, eq=False)
class AnalysisContext:
    """One analysis, as the indicators see it.

    Attributes:
        tables: ``"validation"``, and ``"train"`` if there is a training split.
        class_names: One name a class.
        seed: Seed of permutations and folds.
        swaps: Parts and properties swapped between the validation images, or None.
        localization: How much of each validation map lies outside the regions where it should lie, or None.
        region_swaps: What lies outside the regions, swapped between the validation images; or None.
        augmented: Whether the training table was made from randomly augmented inputs.
        augmented_train: Some of the training samples again, as augmentation changes them; or None.
        trend: Family to its scores at every analysis of this training so far.
    """

    tables: Mapping[str, FeatureTable]
    class_names: tuple[str, ...] = ()
    seed: int = 0
    swaps: Swaps | None = None
    localization: Localization | None = None
    region_swaps: Swaps | None = None
    augmented: bool = False
    augmented_train: FeatureTable | None = None
    trend: Mapping[str, Sequence[TrendPoint]] = field(default_factory=dict)

    @property
    def validation(self) -> FeatureTable:
        """The validation split."""
        return self.tables["validation"]

    @cached_property
    def strata(self) -> Strata:
        """Class or target bin of each row of each split; -1 where unlabelled, or alone in its class, ``(n,)``."""
        return {split: np.where(np.isin(rows, _singles(rows)), -1, rows) for split, rows in self._all_strata.items()}

    @cached_property
    def _all_strata(self) -> Strata:
        return table_strata(self.tables)

    @cached_property
    def both_splits(self) -> tuple[dict[str, FeatureTable], Strata]:
        """Both tables and their strata, with single samples; an empty training table where there is none."""
        both = {"train": self.validation.take(np.arange(0)), **self.tables}
        return both, table_strata(both)

    @cached_property
    def comparable_rows(self) -> list[tuple[FeatureTable, NDArray[np.int64]]]:
        """Labelled rows of the training and of the validation split, with their strata."""
        both, groups = self.both_splits
        return [(both[s].take(groups[s] >= 0), groups[s][groups[s] >= 0]) for s in ("train", "validation")]

    @property
    def warnings(self) -> list[str]:
        """Which classes have one sample only."""
        found = []
        for split, rows in self._all_strata.items():
            single, count = _singles(rows), len(np.unique(rows[rows >= 0]))
            if len(single):
                found.append(
                    f"{split}: {len(single)} of {count} classes have one sample only and cannot be judged within the "
                    f"class: {', '.join(map(str, single[:10]))}{', ...' if len(single) > 10 else ''}"
                )
        return found

    def require_two_classes(self) -> None:
        """Refuse data in which nothing can be compared.

        Raises:
            DataError: The validation split shows fewer than two classes with two samples each.
        """
        labels = self.strata["validation"]
        count = len(np.unique(labels[labels >= 0]))
        has_one_object = self.validation.has_one_object and bool((self.validation.targets > 0).any())
        if count < 2 and self.validation.task != "custom" and not has_one_object:
            raise DataError(
                f"the validation split shows {count} class{'' if count == 1 else 'es'} with two labelled "
                f"samples among {len(labels)} samples; two classes with two samples each are the least"
            )

    def class_label(self, number: int) -> str:
        """Name a class within a sentence, or a bin of a regression's targets by its position."""
        if self.validation.targets.dtype.kind == "f":
            return f"target bin {number + 1}, counted from the lowest"
        if self.validation.has_one_object:
            return f"object-size bin {number}, counted from the smallest" if number else "images without the object"
        names = self.class_names
        return f"class {quote_name(names[number])}" if 0 <= number < len(names) else f"class {number}"


def table_strata(tables: Mapping[str, FeatureTable]) -> Strata:
    """Give each split's rows their class, or a bin; -1 where unlabelled, ``(n,)``.

    A bin of the target for regression; of the object's size where one class is segmented, 0 without an object.
    """
    if all(table.task == "custom" for table in tables.values()):
        return {split: np.zeros(len(table), dtype=np.int64) for split, table in tables.items()}
    if any(table.has_one_object for table in tables.values()):
        sizes = {split: np.where(table.targets > 0, table.object_size, np.nan) for split, table in tables.items()}
        edges = bin_edges(*sizes.values())
        return {
            split: np.where(tables[split].targets > 0, strata(size, edges) + 1, tables[split].targets)
            for split, size in sizes.items()
        }
    edges = bin_edges(*(table.targets for table in tables.values()))
    return {split: strata(table.targets, edges) for split, table in tables.items()}


def evidence(table: FeatureTable) -> NDArray[Any]:
    """Give the evidence for the truth, more is better, ``(n,)``; only labelled rows mean anything.

    The margin of the true class over the next best; minus the absolute error for regression; the label's own logit for
    several labels at once; the score itself for a custom task.
    """
    if table.task == "custom":
        return np.asarray(table.logits[:, 0])
    if table.task == "regression":
        return np.asarray(-np.abs(table.targets - table.predictions))
    labels = np.maximum(table.targets, 0)
    if table.task == "multilabel":
        return np.asarray(table.logits[np.arange(len(table)), labels])
    return margin(table.logits, labels)


def importance_mask(table: FeatureTable) -> NDArray[np.bool_]:
    """Which rows count for the importance of features: those classified correctly, or all for regression, ``(n,)``."""
    if table.targets.dtype.kind == "f":
        return np.ones(len(table), dtype=bool)
    return np.asarray(table.correct & (table.explained == table.targets))


def _singles(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    return names[counts < 2]


def name_classes(table: FeatureTable, names: Sequence[str] | None) -> tuple[str, ...]:
    """Give one name a class: the user's, or numbers.

    Raises:
        DataError: There are more or fewer names than classes.
    """
    k = table.logits.shape[1]
    if names is None:
        return tuple(map(str, range(k)))
    if len(names) != k:
        raise DataError(f"class_names has {len(names)} entries, the model tells {k} classes apart")
    return tuple(map(str, names))
