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
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.cam import Weights
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.metadata import metadata_rows, read_metadata
from lightning_ifa.features.probes import Probes, take_probes
from lightning_ifa.features.properties import BACKGROUND
from lightning_ifa.features.sampling import choose_probes, reference_indices
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.targets import ScoreFunction
from lightning_ifa.indicators.confounding import Suspect, carriers, confounding, find_suspects
from lightning_ifa.indicators.consistency import consistency
from lightning_ifa.indicators.finding import Finding
from lightning_ifa.indicators.importance import Importance, importance
from lightning_ifa.indicators.outliers import OutlierScores, outlier_kinds, outlier_scores, outliers
from lightning_ifa.indicators.overfitting import Side, margin, overfitting
from lightning_ifa.indicators.redundancy import redundancy
from lightning_ifa.indicators.scale import IntensityScale, common_scale
from lightning_ifa.indicators.strata import bin_edges, strata

Strata = dict[str, NDArray[np.int64]]


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
    return analyze_tables(tables, pictured, class_names=class_names, seed=seed)


def analyze_tables(
    tables: Mapping[str, FeatureTable],
    probes: Probes,
    *,
    class_names: Sequence[str] | None = None,
    scale: IntensityScale | None = None,
    seed: int = 0,
) -> FeatureReport:
    """Compute every indicator from FeatureTables.

    Args:
        tables: ``"validation"``, and ``"train"`` if there is one.
        probes: The pictured samples.
        class_names: One a class.
        scale: The intensity scale to use, as of another run; fitted to the validation maps by default.
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
    suspects = _suspects(validation, groups["validation"], seed)
    scores = _outlier_scores(tables, groups)
    findings: dict[str, Finding] = {}
    if "train" in tables:
        sides = [_side(tables[split], groups[split]) for split in ("train", "validation")]
        findings["overfitting"] = overfitting(sides[0], sides[1], seed)
    findings["confounding"] = confounding(suspects)
    findings["outliers"] = outliers(scores["validation"])
    findings["redundancy"] = redundancy(validation.activations, groups["validation"])
    explained_logit = validation.logits[np.arange(len(validation)), validation.explained]
    findings["consistency"] = consistency(explained_logit, validation.intensity, validation.explained)
    return FeatureReport(
        findings=findings,
        samples=_sample_rows(tables, scores),
        confounders=_confounder_rows(validation, groups["validation"], suspects),
        importance=_importance(validation),
        tables=dict(tables),
        scale=scale or common_scale(validation.cams),
        probes=probes,
        class_names=_class_names(validation, class_names),
        warnings=tuple(warnings),
    )


def with_metadata(table: FeatureTable, loader: DataLoader[Any], frame: pd.DataFrame | None, split: str) -> FeatureTable:
    """Put the user's knowledge of the samples beside their features; None leaves the table as it is."""
    if frame is None:
        return table
    length = len(loader.dataset)  # type: ignore[arg-type]  # reference_indices has checked it
    return replace(table, metadata=metadata_rows(frame, table.indices, length, split))


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


def _suspects(table: FeatureTable, labels: NDArray[np.int64], seed: int) -> list[Suspect]:
    if table.task == "custom":
        return []
    known = labels >= 0
    background = [name for name in table.properties if str(name).startswith(BACKGROUND)]
    sources = {
        "metadata": table.metadata[known],
        "background": table.properties[background][known],
        "content": table.properties.drop(columns=background)[known],
    }
    targets = table.targets[known] if table.task == "regression" else None
    return find_suspects(table.logits[known], labels[known], sources, targets, seed)


def _outlier_scores(tables: Mapping[str, FeatureTable], groups: Strata) -> dict[str, OutlierScores]:
    reference = tables.get("train", tables["validation"])
    base = groups["train" if "train" in tables else "validation"]
    known = base >= 0
    found = {}
    for split, table in tables.items():
        if table is reference:
            found[split] = outlier_scores(table.activations, groups[split])
        else:
            found[split] = outlier_scores(table.activations, groups[split], reference.activations[known], base[known])
    return found


def _sample_rows(tables: Mapping[str, FeatureTable], scores: Mapping[str, OutlierScores]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "sample_id": table.sample_ids,
                "split": split,
                "score": scores[split].score,
                "kind": outlier_kinds(scores[split]),
                "target": table.targets,
                "prediction": table.predictions,
                "evidence": _evidence(table),
            }
        )
        for split, table in tables.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _confounder_rows(table: FeatureTable, labels: NDArray[np.int64], suspects: list[Suspect]) -> pd.DataFrame:
    known = labels >= 0
    rows = []
    for suspect in suspects:
        column = (table.metadata if suspect.origin == "metadata" else table.properties)[suspect.source]
        channels = carriers(table.contributions[known], labels[known], column[known])
        rows.append(
            {
                "source": suspect.source,
                "origin": suspect.origin,
                "score": suspect.reliance,
                "z": suspect.z,
                "features": ", ".join(map(str, channels)),
                "worst_class": suspect.worst_class,
                "worst_score": suspect.worst_reliance,
                "association": suspect.association,
                "note": suspect.note,
            }
        )
    columns = ["source", "origin", "score", "z", "features", "worst_class", "worst_score", "association", "note"]
    return pd.DataFrame(rows, columns=columns)


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
