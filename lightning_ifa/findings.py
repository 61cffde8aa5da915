"""From FeatureTables to a FeatureReport: every indicator, and nothing that needs the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.image_properties import BACKGROUND, has_background
from lightning_ifa.errors import DataError
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.indicators.confounding import confounding
from lightning_ifa.indicators.consistency import consistency
from lightning_ifa.indicators.outliers import outliers
from lightning_ifa.indicators.overfitting import overfitting
from lightning_ifa.indicators.redundancy import redundancy
from lightning_ifa.interventions.appearance_swaps import PROPERTIES
from lightning_ifa.interventions.swaps import Swaps
from lightning_ifa.listing import confounder_rows, sample_rows
from lightning_ifa.sides import Strata, augmentation_gap, label_margins, split_sample, table_strata, without_singles
from lightning_ifa.statistics.confounder_candidates import (
    ConfounderCandidate,
    TrainingRows,
    find_candidates,
    rank_candidates,
    swap_candidates,
)
from lightning_ifa.statistics.duplicates import DuplicateInput, Duplicates, find_duplicates
from lightning_ifa.statistics.importance import Importance, importance
from lightning_ifa.statistics.intensity_scale import IntensityScale, common_scale
from lightning_ifa.statistics.localization import Localization
from lightning_ifa.statistics.metadata_columns import GROUP, read_groups
from lightning_ifa.statistics.neighbour_outliers import (
    NEIGHBOURS,
    OutlierInput,
    OutlierScores,
    outlier_scores,
    small_classes,
)

LEAST_GROUPS = 10
"""Fewer cannot reach z = 3, however they are exchanged."""

AUGMENTED = (
    "the training inputs are augmented at random, which hides a gap; augment in on_after_batch_transfer while "
    "training, or give a clean training loader (train_dataloader= of the callback)"
)

SEVERAL = "with several labels at once a value may go with another label: only swaps and regions can tell"


@dataclass(frozen=True, eq=False)
class RegionFindings:
    """What was found outside the regions where the evidence should lie.

    Attributes:
        maps: How much of each validation map lies there.
        swaps: Swaps of what lies there; None for tasks without classes to compare.
    """

    maps: Localization
    swaps: Swaps | None


def analyze_tables(
    tables: Mapping[str, FeatureTable],
    probes: Probes,
    *,
    class_names: Sequence[str] | None = None,
    scale: IntensityScale | None = None,
    swaps: Swaps | None = None,
    elsewhere: RegionFindings | None = None,
    augmented: bool = False,
    augmented_train: FeatureTable | None = None,
    seed: int = 0,
) -> FeatureReport:
    """Compute every indicator from FeatureTables.

    Args:
        tables: ``"validation"``, and ``"train"`` if there is one.
        probes: The pictured samples.
        class_names: One a class.
        scale: The intensity scale to use, as of another run; fitted to the validation maps by default.
        swaps: Of parts of the validation images, to find confounders that no metadata tell of.
        elsewhere: What lies outside the regions where the evidence should be, if those are known.
        augmented: Whether the training table was made from randomly augmented inputs.
        augmented_train: Some of the training samples again, as augmentation changes them.
        seed: Of permutations and folds.

    Raises:
        DataError: The validation split shows fewer than two classes with two samples.
    """
    warnings: list[str] = []
    groups = table_strata(tables)
    for split in tables:
        groups[split] = without_singles(groups[split], split, warnings)
    validation = tables["validation"]
    _require_two_classes(validation, groups["validation"])
    candidates = _candidates(tables, groups, swaps, elsewhere)
    warnings += _small_class_warnings(groups) + _few_groups(validation)
    scores, duplicates = _outlier_scores(tables, groups, seed), _duplicates(tables, seed)
    shares = elsewhere.maps.share if elsewhere else None
    findings: dict[str, Finding] = {}
    if "train" in tables:
        train, held_out = (split_sample(tables[split], groups[split]) for split in ("train", "validation"))
        found = overfitting(train, held_out, seed)
        if augmented_train is not None:
            found = replace(found, details={**found.details, **augmentation_gap(tables["train"], augmented_train)})
        findings["overfitting"] = undecided(AUGMENTED, found.details) if augmented and not found.alarm else found
    findings["confounding"] = confounding(candidates, elsewhere.maps.means if elsewhere else None)
    findings["outliers"] = outliers(scores["validation"], duplicates)
    findings["redundancy"] = redundancy(validation.activations, groups["validation"])
    explained_logit = validation.logits[np.arange(len(validation)), validation.explained]
    findings["consistency"] = consistency(explained_logit, validation.intensity, validation.explained)
    return FeatureReport(
        findings=findings,
        samples=sample_rows(tables, scores, duplicates, shares),
        confounders=confounder_rows(validation, groups["validation"], candidates, shares),
        importance=_importance(validation),
        tables=dict(tables),
        scale=scale or common_scale(validation.cams),
        probes=probes,
        class_names=_class_names(validation, class_names),
        warnings=tuple(warnings),
    )


def _require_two_classes(table: FeatureTable, labels: NDArray[np.int64]) -> None:
    found = np.unique(labels[labels >= 0])
    if len(found) < 2 and table.task != "custom":
        raise DataError(
            f"the validation split shows {len(found)} class{'' if len(found) == 1 else 'es'} with two labelled "
            f"samples among {len(table)} samples; two classes with two samples each are the least"
        )


def _candidates(
    tables: Mapping[str, FeatureTable], groups: Strata, moved: Swaps | None, elsewhere: RegionFindings | None
) -> list[ConfounderCandidate]:
    table, labels = tables["validation"], groups["validation"]
    if table.task == "custom":
        return []
    known = labels >= 0
    judged = moved is not None or has_background(table.properties)
    background = [name for name in table.properties if judged and str(name).startswith(BACKGROUND)]
    sources = {
        "metadata": table.metadata[known].drop(columns=GROUP, errors="ignore"),
        "background": table.properties[background][known],
        "content": table.properties.drop(columns=background)[known],
    }
    targets = table.targets[known] if table.task == "regression" else None
    units = _group_numbers(tables)
    own = units["validation"][known] if "validation" in units else None
    training = _training(tables, groups, units)
    if table.task == "multilabel":
        candidates = [
            ConfounderCandidate(str(name), origin, note=SEVERAL) for origin, frame in sources.items() for name in frame
        ]
    else:
        candidates = find_candidates(table.logits[known], labels[known], sources, targets, training, own)
    # how much there is to see may well be the target, or how many labels there are
    listed = () if table.task in ("multiclass", "binary") else PROPERTIES
    for origin, found in (("swap", moved), ("region", elsewhere.swaps if elsewhere else None)):
        if found is not None:
            source_groups = _groups_of(found.sources, table, units.get("validation"))
            candidates += _swapped(found, origin, listed, source_groups)
    if GROUP in table.metadata:
        count = table.metadata[GROUP][known].nunique()
        candidates.append(
            ConfounderCandidate(
                GROUP, "metadata", note=f"not tested: says which samples belong together ({count} groups)"
            )
        )
    return rank_candidates(candidates)


def _swapped(
    found: Swaps, origin: str, listed: Sequence[str], sources: NDArray[np.int64] | None
) -> list[ConfounderCandidate]:
    """Test what was swapped; what is only listed counts as content."""
    candidates = swap_candidates(
        found.logits, found.swapped, found.source_logits, found.labels, found.source_labels, origin, sources
    )
    return [replace(s, origin="content") if s.source in listed else s for s in candidates]


def _group_numbers(tables: Mapping[str, FeatureTable]) -> dict[str, NDArray[np.int64]]:
    """Number the groups of each split that tells them; nothing where no two samples belong together."""
    told = {split: table.metadata[GROUP] for split, table in tables.items() if GROUP in table.metadata}
    numbered = read_groups(*told.values()) if told else None
    return dict(zip(told, numbered, strict=True)) if numbered else {}


def _groups_of(
    indices: NDArray[np.int64] | None, table: FeatureTable, units: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    if indices is None or units is None:
        return None
    order = np.argsort(table.indices)
    return np.asarray(units[order[np.searchsorted(table.indices, indices, sorter=order)]])


def _training(
    tables: Mapping[str, FeatureTable], groups: Strata, units: Mapping[str, NDArray[np.int64]]
) -> TrainingRows | None:
    if "train" not in tables:
        return None
    table, known = tables["train"], groups["train"] >= 0
    own = units["train"][known] if "train" in units else None
    return TrainingRows(table.logits[known], groups["train"][known], table.metadata[known], own)


def _small_class_warnings(groups: Strata) -> list[str]:
    """Say which classes are too small to look for outliers within."""
    reference = groups.get("train", groups["validation"])
    small = small_classes(groups["validation"], reference)
    if not len(small):
        return []
    rows, classes = int(np.isin(groups["validation"], small).sum()), len(np.unique(groups["validation"]))
    return [
        f"outliers: {len(small)} of {classes} classes have {NEIGHBOURS} reference samples or fewer; their {rows} "
        "validation samples are compared with samples of any class, which hardly finds wrong labels"
    ]


def _few_groups(table: FeatureTable) -> list[str]:
    """Say that a column which is not a trait leaves nothing to find if it has few values."""
    count = table.metadata[GROUP].nunique() if GROUP in table.metadata else LEAST_GROUPS
    if count >= LEAST_GROUPS:
        return []
    return [
        f"confounding: the metadata column {GROUP!r} says which samples belong together; with {count} values nothing "
        "can be significant. If it is a trait to be tested, give it another name"
    ]


def _outlier_scores(tables: Mapping[str, FeatureTable], groups: Strata, seed: int) -> dict[str, OutlierScores]:
    samples = {
        split: OutlierInput(
            t.activations,
            t.contributions,
            t.properties.to_numpy(np.float64),
            label_margins(t, groups[split]),
            groups[split],
        )
        for split, t in tables.items()
    }
    reference = samples.get("train")
    return {split: outlier_scores(s, None if split == "train" else reference, seed) for split, s in samples.items()}


def _duplicates(tables: Mapping[str, FeatureTable], seed: int) -> Duplicates | None:
    if "train" not in tables:
        return None
    copies = [DuplicateInput(t.fingerprints, t.activations, t.cams) for t in (tables["validation"], tables["train"])]
    return find_duplicates(copies[0], copies[1], seed)


def importance_mask(table: FeatureTable) -> NDArray[np.bool_]:
    """Which rows count for the importance of features: those classified correctly, or all for regression, ``(n,)``."""
    if table.targets.dtype.kind == "f":
        return np.ones(len(table), dtype=bool)
    return np.asarray(table.correct & (table.explained == table.targets))


def _importance(table: FeatureTable) -> Importance:
    return importance(table.contributions, table.explained, importance_mask(table))


def _class_names(table: FeatureTable, names: Sequence[str] | None) -> tuple[str, ...]:
    k = table.logits.shape[1]
    if names is None:
        return tuple(map(str, range(k)))
    if len(names) != k:
        raise DataError(f"class_names has {len(names)} entries, the model tells {k} classes apart")
    return tuple(map(str, names))
