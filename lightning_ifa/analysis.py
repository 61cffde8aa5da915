"""From a model and its loaders to a FeatureReport; knows neither Lightning nor MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from lightning_ifa.features.cam import Weights
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.gallery import take_gallery
from lightning_ifa.features.interventions import Transplants, transplant_backgrounds
from lightning_ifa.features.metadata import metadata_rows, read_metadata
from lightning_ifa.features.probes import Probes, take_probes
from lightning_ifa.features.properties import BACKGROUND, has_background
from lightning_ifa.features.sampling import choose_probes, reference_indices
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.targets import ScoreFunction
from lightning_ifa.indicators.columns import read_column
from lightning_ifa.indicators.confounding import Suspect, confounding, find_suspects, ranked, transplant_suspects
from lightning_ifa.indicators.consistency import consistency
from lightning_ifa.indicators.finding import Finding, undecided
from lightning_ifa.indicators.importance import Importance, importance
from lightning_ifa.indicators.leakage import Copies, Twins, find_twins
from lightning_ifa.indicators.outliers import OutlierScores, Samples, outlier_kinds, outlier_scores, outliers
from lightning_ifa.indicators.overfitting import Side, margin, overfitting
from lightning_ifa.indicators.redundancy import redundancy
from lightning_ifa.indicators.reliance import channel_reliance
from lightning_ifa.indicators.scale import IntensityScale, common_scale
from lightning_ifa.indicators.strata import bin_edges, strata

Strata = dict[str, NDArray[np.int64]]

AUGMENTED = (
    "the training inputs are augmented at random, which hides a gap; augment in on_after_batch_transfer while "
    "training, or give a clean training loader (train_dataloader= of the callback)"
)
CARRIERS = 5  # channels named for each suspect
TRANSPLANTABLE = ("multiclass", "binary")
EXAMPLES = 3  # samples named for each suspect


def analyze(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None = None,
    *,
    layer: str | None = None,
    task: str | ScoreFunction = "auto",
    explain: str | int = "target",
    cam: str | Weights = "hirescam",
    max_samples: int = 1024,
    probes: int = 8,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    class_names: Sequence[str] | None = None,
    batch_fn: BatchFunction | None = None,
    transplants: bool = False,
    seed: int = 0,
) -> FeatureReport:
    """Look inside a trained network: overfitting, confounding, outliers, redundancy, comparable maps.

    Args:
        model: The network, called as ``model(x)``; weights, modes, hooks and random states stay as they are.
        val_loader: Loader over a map-style validation set; only its data set and settings are used.
        train_loader: The same for the training set, best without augmentation; None leaves overfitting out.
        layer: Target layer as in ``model.named_modules()``; by default the last one with spatial output.
        task: ``"multiclass"``, ``"binary"`` (one logit), ``"multilabel"``, ``"regression"``, ``"segmentation"``,
            a function ``(output, target) -> (n,)`` that gives the explained score, or ``"auto"``.
        explain: ``"target"`` (the label where there is one, else the prediction), ``"prediction"``, or a class.
        cam: ``"hirescam"``, ``"gradcam"``, ``"gradcam++"``, ``"xgradcam"``, ``"layercam"``, or a function
            ``(A, G) -> weights``.
        max_samples: At most that many samples a split, a fixed random subset.
        probes: How many samples are pictured.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i.
        class_names: One a class.
        batch_fn: Takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual names.
        transplants: Also look for confounders by exchanging borders, corners and background level between images:
            ten more forward passes of 256 samples. Only for images that have a background; see docs/indicators.md.
        seed: Of every random draw.

    Returns:
        The report; ``report.metrics`` are the numbers, ``report.alarms`` the families whose fault was found.

    Raises:
        IFAError: Layer, batch, output, data or metadata do not allow the analysis; the message says what would.
    """
    extraction = Extraction(model, layer, task, explain, cam, batch_fn, seed)
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
    augmented = train_loader is not None and extraction.is_augmented(train_loader, tables["train"].indices)
    report = analyze_tables(
        tables, pictured, class_names=class_names, transplants=moved, augmented=augmented, seed=seed
    )
    return with_gallery(report, extraction, loaders)


def analyze_tables(
    tables: Mapping[str, FeatureTable],
    probes: Probes,
    *,
    class_names: Sequence[str] | None = None,
    scale: IntensityScale | None = None,
    transplants: Transplants | None = None,
    augmented: bool = False,
    seed: int = 0,
) -> FeatureReport:
    """Compute every indicator from FeatureTables.

    Args:
        tables: ``"validation"``, and ``"train"`` if there is one.
        probes: The pictured samples.
        class_names: One a class.
        scale: The intensity scale to use, as of another run; fitted to the validation maps by default.
        transplants: Of parts of the validation images, to find confounders that no metadata tell of.
        augmented: Whether the training table was made from randomly augmented inputs.
        seed: Of permutations and folds.

    Raises:
        DataError: The validation split shows fewer than two classes with two samples.
    """
    warnings: list[str] = []
    groups = _strata(tables)
    for split in tables:
        groups[split] = _without_singles(groups[split], split, warnings)
    validation = tables["validation"]
    _require_two_classes(validation, groups["validation"])
    suspects = _suspects(validation, groups["validation"], transplants)
    scores, twins = _outlier_scores(tables, groups, seed), _twins(tables, seed)
    findings: dict[str, Finding] = {}
    if "train" in tables:
        sides = [_side(tables[split], groups[split]) for split in ("train", "validation")]
        found = overfitting(sides[0], sides[1], seed)
        findings["overfitting"] = undecided(AUGMENTED, found.details) if augmented and not found.alarm else found
    findings["confounding"] = confounding(suspects)
    findings["outliers"] = outliers(scores["validation"], twins)
    findings["redundancy"] = redundancy(validation.activations, groups["validation"])
    explained_logit = validation.logits[np.arange(len(validation)), validation.explained]
    findings["consistency"] = consistency(explained_logit, validation.intensity, validation.explained)
    return FeatureReport(
        findings=findings,
        samples=_sample_rows(tables, scores, twins),
        confounders=_confounder_rows(validation, groups["validation"], suspects),
        importance=_importance(validation),
        tables=dict(tables),
        scale=scale or common_scale(validation.cams),
        probes=probes,
        class_names=_class_names(validation, class_names),
        warnings=tuple(warnings),
    )


def with_gallery(
    report: FeatureReport, extraction: Extraction, loaders: Mapping[str, DataLoader[Any] | None]
) -> FeatureReport:
    """Add the inputs of the samples that the report speaks of."""
    gallery: dict[tuple[str, int], NDArray[np.float32]] = {}
    for split, rows in exhibits(report).items():
        loader = loaders.get(split)
        if loader is not None:
            taken = take_gallery(extraction, loader, report.tables[split], rows)
            gallery |= {(split, row): image for row, image in taken.items()}
    return replace(report, gallery=gallery)


def with_metadata(table: FeatureTable, loader: DataLoader[Any], frame: pd.DataFrame | None, split: str) -> FeatureTable:
    """Put the user's knowledge of the samples beside their features; None leaves the table as it is."""
    if frame is None:
        return table
    length = len(loader.dataset)  # type: ignore[arg-type]  # reference_indices has checked it
    return replace(table, metadata=metadata_rows(frame, table.indices, length, split))


def transplant(extraction: Extraction, loader: DataLoader[Any], table: FeatureTable) -> Transplants | None:
    """Exchange backgrounds between a table's images; None for tasks without classes to compare."""
    if table.task not in TRANSPLANTABLE:
        return None
    return transplant_backgrounds(extraction, loader, table.indices, table.task)


def probe_rows(table: FeatureTable, count: int) -> NDArray[np.int64]:
    """Choose the rows to picture, class by class."""
    return choose_probes(strata(table.targets, bin_edges(table.targets)), count)


def _strata(tables: Mapping[str, FeatureTable]) -> Strata:
    if all(table.task == "custom" for table in tables.values()):
        return {split: np.zeros(len(table), dtype=np.int64) for split, table in tables.items()}
    edges = bin_edges(*(table.targets for table in tables.values()))
    return {split: strata(table.targets, edges) for split, table in tables.items()}


def _without_singles(labels: NDArray[np.int64], split: str, warnings: list[str]) -> NDArray[np.int64]:
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    single = names[counts < 2]
    if len(single):
        warnings.append(
            f"{split}: {len(single)} of {len(names)} classes have one sample only and cannot be judged within the "
            f"class: {', '.join(map(str, single[:10]))}{', ...' if len(single) > 10 else ''}"
        )
    return np.where(np.isin(labels, single), -1, labels)


def _require_two_classes(table: FeatureTable, labels: NDArray[np.int64]) -> None:
    found = np.unique(labels[labels >= 0])
    if len(found) < 2 and table.task != "custom":
        raise DataError(
            f"the validation split shows {len(found)} class{'' if len(found) == 1 else 'es'} with two labelled "
            f"samples among {len(table)} samples; two classes with two samples each are the least"
        )


def _evidence(table: FeatureTable) -> NDArray[Any]:
    """Evidence for the truth, more is better, ``(n,)``; only labelled rows mean anything."""
    if table.task == "custom":
        return np.asarray(table.logits[:, 0])
    if table.task == "regression":
        return np.asarray(-np.abs(table.targets - table.predictions))
    labels = np.maximum(table.targets, 0)
    if table.task == "multilabel":
        return np.asarray(table.logits[np.arange(len(table)), labels])
    return margin(table.logits, labels)


def _side(table: FeatureTable, labels: NDArray[np.int64]) -> Side:
    known = labels >= 0
    return Side(_evidence(table)[known], table.intensity[known], table.activations[known], labels[known])


def _suspects(table: FeatureTable, labels: NDArray[np.int64], moved: Transplants | None) -> list[Suspect]:
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
    suspects = find_suspects(table.logits[known], labels[known], sources, targets)
    if moved is not None:
        suspects += transplant_suspects(moved.logits, moved.moved, moved.donor_logits, moved.labels, moved.donor_labels)
    return ranked(suspects)


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


def _sample_rows(
    tables: Mapping[str, FeatureTable], scores: Mapping[str, OutlierScores], twins: Twins | None
) -> pd.DataFrame:
    parts = []
    for split, table in tables.items():
        kinds, twin = outlier_kinds(scores[split]), np.full(len(table), "", dtype=object)
        if split == "validation" and twins is not None:
            kinds = np.where((kinds == "") & (twins.twin >= 0), twins.kind, kinds)
            twin = np.where(twins.twin >= 0, tables["train"].sample_ids[twins.twin], "")
        parts.append(
            pd.DataFrame(
                {
                    "sample_id": table.sample_ids,
                    "split": split,
                    "score": scores[split].score,
                    "kind": kinds,
                    "target": table.targets,
                    "prediction": table.predictions,
                    "evidence": _evidence(table),
                    "twin": twin,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _confounder_rows(table: FeatureTable, labels: NDArray[np.int64], suspects: list[Suspect]) -> pd.DataFrame:
    return pd.DataFrame([_confounder_row(table, labels, suspect) for suspect in suspects], columns=CONFOUNDER_COLUMNS)


CONFOUNDER_COLUMNS = [
    "source", "origin", "score", "z", "features", "worst_class", "worst_score", "association",
    "accuracy_aligned", "accuracy_conflicting", "conflicting", "highest", "lowest", "note",
]  # fmt: skip


def _confounder_row(table: FeatureTable, labels: NDArray[np.int64], suspect: Suspect) -> dict[str, Any]:
    frame = table.metadata if suspect.origin == "metadata" else table.properties
    channels, highest, lowest = [], [], []
    if suspect.source in frame:  # a user's region has no property of its name
        values = frame[suspect.source]
        channels = _carriers(table, labels, values)
        if pd.api.types.is_numeric_dtype(values):
            order = values.dropna().astype(float).sort_values(kind="stable").index
            highest, lowest = list(table.sample_ids[order[::-1][:EXAMPLES]]), list(table.sample_ids[order[:EXAMPLES]])
    return {
        "source": suspect.source,
        "origin": suspect.origin,
        "score": suspect.reliance,
        "z": suspect.z,
        "features": ", ".join(map(str, channels)),
        "worst_class": suspect.worst_class,
        "worst_score": suspect.worst_reliance,
        "association": suspect.association,
        "accuracy_aligned": suspect.accuracy_aligned,
        "accuracy_conflicting": suspect.accuracy_conflicting,
        "conflicting": suspect.conflicting,
        "highest": ", ".join(highest),
        "lowest": ", ".join(lowest),
        "note": suspect.note or suspect.sentence(),
    }


def _carriers(table: FeatureTable, labels: NDArray[np.int64], values: pd.Series[Any]) -> list[int]:
    """The channels that carry a suspect into the decision, strongest first."""
    column = read_column(values)
    known = column.known & (labels >= 0)
    if column.values is None or len(np.unique(labels[known])) < 2:
        return []
    rows = known[column.known]
    part = channel_reliance(table.contributions[known], table.activations[known], labels[known], column.values[rows])
    return [int(k) for k in np.argsort(-part, kind="stable")[:CARRIERS] if part[k] > 0]


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
