"""From a model and its loaders to a FeatureReport; knows neither Lightning nor MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.errors import DataError
from lightning_ifa.exhibits import exhibits
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.cam import Method
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.gallery import take_gallery
from lightning_ifa.features.interventions import Transplants, transplant_backgrounds, transplant_outside
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.metadata import metadata_rows, own_metadata, read_metadata
from lightning_ifa.features.place import Reshape
from lightning_ifa.features.probes import Probes, take_probes
from lightning_ifa.features.properties import BACKGROUND, has_background
from lightning_ifa.features.regions import Regions, RegionSource, find_regions
from lightning_ifa.features.sampling import choose_probes, reference_indices
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.targets import ScoreFunction
from lightning_ifa.indicators.confounding import (
    Suspect,
    Training,
    confounding,
    find_suspects,
    ranked,
    transplant_suspects,
)
from lightning_ifa.indicators.consistency import consistency
from lightning_ifa.indicators.finding import Finding, undecided
from lightning_ifa.indicators.importance import Importance, importance
from lightning_ifa.indicators.leakage import Copies, Twins, find_twins
from lightning_ifa.indicators.outliers import (
    NEIGHBOURS,
    OutlierScores,
    Samples,
    outlier_scores,
    outliers,
    small_classes,
)
from lightning_ifa.indicators.outside import Outside, outside
from lightning_ifa.indicators.overfitting import overfitting
from lightning_ifa.indicators.redundancy import redundancy
from lightning_ifa.indicators.scale import IntensityScale, common_scale
from lightning_ifa.indicators.strata import bin_edges, strata
from lightning_ifa.listing import confounder_rows, sample_rows
from lightning_ifa.sides import Strata, augmentation_gap, side, table_strata, without_singles

AUGMENTED = (
    "the training inputs are augmented at random, which hides a gap; augment in on_after_batch_transfer while "
    "training, or give a clean training loader (train_dataloader= of the callback)"
)
TRANSPLANTABLE = ("multiclass", "binary")


def analyze(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None = None,
    *,
    layer: str | None = None,
    task: str | ScoreFunction = "auto",
    explain: str | int = "target",
    cam: str | Method = "hirescam",
    max_samples: int = 1024,
    probes: int = 8,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    regions: Mapping[str, RegionSource] | None = None,
    class_names: Sequence[str] | None = None,
    batch_fn: BatchFunction | None = None,
    reshape: Reshape | None = None,
    transplants: bool = False,
    seed: int = 0,
) -> FeatureReport:
    """Look inside a trained network: overfitting, confounding, outliers, redundancy, comparable maps.

    Args:
        model: The network, called as ``model(x)``; weights, modes, hooks and random states stay as they are.
        val_loader: Loader over a map-style validation set; only its data set and settings are used.
        train_loader: The same for the training set, best without augmentation; None leaves overfitting out.
        layer: Target layer as in ``model.named_modules()``; by default the last one with spatial output. Of a module
            that runs more than once, ``"name#0"`` is the first call.
        task: ``"multiclass"``, ``"binary"`` (one logit), ``"multilabel"``, ``"regression"``, ``"segmentation"``,
            a function ``(output, target) -> (n,)`` that gives the explained score, or ``"auto"``.
        explain: ``"target"`` (the label where there is one, else the prediction), ``"prediction"``, or a class.
        cam: ``"hirescam"``, ``"gradcam"``, ``"gradcam++"``, ``"xgradcam"``, ``"layercam"``, ``"eigencam"``,
            ``"eigengradcam"``, ``"random"`` (a control), ``"scorecam"`` and ``"ablationcam"`` (a forward pass a
            channel), or a function ``(A, G) -> weights``.
        max_samples: At most that many samples a split, a fixed random subset.
        probes: How many samples are pictured.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i. A split
            left out takes it from its data set's attribute ``metadata``, if that is such a DataFrame.
        regions: ``"validation"`` to a sequence of masks, or to a function from the data-set index to a mask: boolean,
            of the input's spatial shape, True where the evidence should lie, all False where there is nothing to
            see, None where nothing is known. Left out, the data set's method ``region(index)`` is asked, if it has
            one. Costs two forward passes of 256 samples.
        class_names: One a class.
        batch_fn: Takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual names.
        reshape: Takes maps ``(n, c, *space)`` from the named layer's output, by picking and moving entries, where its
            form is not recognised: neither maps, nor tokens of a transformer, nor channels last.
        transplants: Also look for confounders by exchanging borders, corners and background level between images:
            ten more forward passes of 256 samples. Only for images that have a background; see docs/indicators.md.
        seed: Of every random draw.

    Returns:
        The report; ``report.metrics`` are the numbers, ``report.alarms`` the families whose fault was found.

    Raises:
        IFAError: Layer, batch, output, data or metadata do not allow the analysis; the message says what would.
    """
    extraction = Extraction(model, layer, task, explain, cam, batch_fn, seed, reshape=reshape)
    known = read_metadata(metadata)
    loaders = {"train": train_loader, "validation": val_loader}
    tables = {
        split: with_metadata(
            extraction(loader, reference_indices(loader, max_samples, seed, split)), loader, known.get(split), split
        )
        for split, loader in loaders.items()
        if loader is not None
    }
    validation = tables["validation"]
    pictured = take_probes(extraction, val_loader, validation, probe_rows(validation, probes))
    moved = transplant(extraction, val_loader, validation) if transplants else None
    located = find_regions(regions, "validation", val_loader.dataset)
    elsewhere = look_outside(extraction, val_loader, validation, located)
    augmented = train_loader is not None and extraction.is_augmented(train_loader, tables["train"].indices)
    report = analyze_tables(
        tables,
        pictured,
        class_names=class_names,
        transplants=moved,
        elsewhere=elsewhere,
        augmented=augmented,
        seed=seed,
    )
    return with_gallery(
        report, {split: (extraction, loader) for split, loader in loaders.items() if loader is not None}
    )


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """What was found outside the regions where the evidence should lie.

    Attributes:
        maps: How much of each validation map lies there.
        moved: Transplants of what lies there; None for tasks without classes to compare.
    """

    maps: Outside
    moved: Transplants | None


def analyze_tables(
    tables: Mapping[str, FeatureTable],
    probes: Probes,
    *,
    class_names: Sequence[str] | None = None,
    scale: IntensityScale | None = None,
    transplants: Transplants | None = None,
    elsewhere: Elsewhere | None = None,
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
        transplants: Of parts of the validation images, to find confounders that no metadata tell of.
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
    suspects = _suspects(tables, groups, transplants, elsewhere)
    warnings += _pooled(groups)
    scores, twins = _outlier_scores(tables, groups, seed), _twins(tables, seed)
    shares = elsewhere.maps.share if elsewhere else None
    findings: dict[str, Finding] = {}
    if "train" in tables:
        train, held_out = (side(tables[split], groups[split]) for split in ("train", "validation"))
        found = overfitting(train, held_out, seed)
        if augmented_train is not None:
            found = replace(found, details={**found.details, **augmentation_gap(tables["train"], augmented_train)})
        findings["overfitting"] = undecided(AUGMENTED, found.details) if augmented and not found.alarm else found
    findings["confounding"] = confounding(suspects, elsewhere.maps.means if elsewhere else None)
    findings["outliers"] = outliers(scores["validation"], twins)
    findings["redundancy"] = redundancy(validation.activations, groups["validation"])
    explained_logit = validation.logits[np.arange(len(validation)), validation.explained]
    findings["consistency"] = consistency(explained_logit, validation.intensity, validation.explained)
    return FeatureReport(
        findings=findings,
        samples=sample_rows(tables, scores, twins, shares),
        confounders=confounder_rows(validation, groups["validation"], suspects, shares),
        importance=_importance(validation),
        tables=dict(tables),
        scale=scale or common_scale(validation.cams),
        probes=probes,
        class_names=_class_names(validation, class_names),
        warnings=tuple(warnings),
    )


def with_gallery(report: FeatureReport, sources: Mapping[str, tuple[Extraction, DataLoader[Any]]]) -> FeatureReport:
    """Add the inputs of the samples that the report speaks of, from the splits that are given."""
    gallery: dict[tuple[str, int], NDArray[np.float32]] = {}
    for split, rows in exhibits(report).items():
        if split in sources:
            taken = take_gallery(*sources[split], report.tables[split], rows)
            gallery |= {(split, row): image for row, image in taken.items()}
    return replace(report, gallery=gallery)


def with_metadata(table: FeatureTable, loader: DataLoader[Any], frame: pd.DataFrame | None, split: str) -> FeatureTable:
    """Put the user's knowledge of the samples, or else the data set's own, beside their features."""
    frame = own_metadata(loader.dataset) if frame is None else frame
    if frame is None:
        return table
    length = len(loader.dataset)  # type: ignore[arg-type]  # reference_indices has checked it
    return replace(table, metadata=metadata_rows(frame, table.indices, length, split))


def transplant(extraction: Extraction, loader: DataLoader[Any], table: FeatureTable) -> Transplants | None:
    """Exchange backgrounds between a table's images; None for tasks without classes to compare."""
    if table.task not in TRANSPLANTABLE:
        return None
    return transplant_backgrounds(extraction, loader, table.indices, table.task)


def look_outside(
    extraction: Extraction, loader: DataLoader[Any], table: FeatureTable, regions: Regions | None
) -> Elsewhere | None:
    """See what lies outside the regions where the evidence should be; None without regions.

    Raises:
        DataError: A region that does not fit the input.
    """
    if regions is None:
        return None
    with undisturbed(extraction.model, extraction.seed):  # the user's code reads the masks
        maps = outside(table.cams, regions.coverage(table.indices, table.cams.shape[1:]))
        moved = None
        if table.task in TRANSPLANTABLE:
            moved = transplant_outside(extraction, loader, table.indices, table.task, regions)
    return Elsewhere(maps, moved)


def probe_rows(table: FeatureTable, count: int) -> NDArray[np.int64]:
    """Choose the rows to picture, class by class."""
    return choose_probes(strata(table.targets, bin_edges(table.targets)), count)


def _require_two_classes(table: FeatureTable, labels: NDArray[np.int64]) -> None:
    found = np.unique(labels[labels >= 0])
    if len(found) < 2 and table.task != "custom":
        raise DataError(
            f"the validation split shows {len(found)} class{'' if len(found) == 1 else 'es'} with two labelled "
            f"samples among {len(table)} samples; two classes with two samples each are the least"
        )


def _suspects(
    tables: Mapping[str, FeatureTable], groups: Strata, moved: Transplants | None, elsewhere: Elsewhere | None
) -> list[Suspect]:
    table, labels = tables["validation"], groups["validation"]
    if table.task == "custom":
        return []
    known = labels >= 0
    judged = moved is not None or has_background(table.properties)
    background = [name for name in table.properties if judged and str(name).startswith(BACKGROUND)]
    sources = {
        "metadata": table.metadata[known],
        "background": table.properties[background][known],
        "content": table.properties.drop(columns=background)[known],
    }
    targets = table.targets[known] if table.task == "regression" else None
    suspects = find_suspects(table.logits[known], labels[known], sources, targets, _training(tables, groups))
    for origin, found in (("transplant", moved), ("region", elsewhere.moved if elsewhere else None)):
        if found is not None:
            suspects += transplant_suspects(
                found.logits, found.moved, found.donor_logits, found.labels, found.donor_labels, origin
            )
    return ranked(suspects)


def _training(tables: Mapping[str, FeatureTable], groups: Strata) -> Training | None:
    if "train" not in tables:
        return None
    table, known = tables["train"], groups["train"] >= 0
    return Training(table.logits[known], groups["train"][known], table.metadata[known])


def _pooled(groups: Strata) -> list[str]:
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


def _outlier_scores(tables: Mapping[str, FeatureTable], groups: Strata, seed: int) -> dict[str, OutlierScores]:
    samples = {
        split: Samples(t.activations, t.contributions, t.properties.to_numpy(np.float64), groups[split])
        for split, t in tables.items()
    }
    reference = samples.get("train")
    return {split: outlier_scores(s, None if split == "train" else reference, seed) for split, s in samples.items()}


def _twins(tables: Mapping[str, FeatureTable], seed: int) -> Twins | None:
    if "train" not in tables:
        return None
    copies = [Copies(t.fingerprints, t.activations, t.cams) for t in (tables["validation"], tables["train"])]
    return find_twins(copies[0], copies[1], seed)


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
