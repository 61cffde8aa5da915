"""A small report made by hand: every label, chosen row and file of it can be told in advance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.statistics.importance import Importance
from lightning_ifa.statistics.intensity_scale import IntensityScale

MARKUP = "<b>cat</b>"
NAMES = (MARKUP, "dog")
SITES = ["A", "A", "A", "B", "B", None]
BRIGHTNESS = [0.9, 0.1, 0.5, 0.2, 0.8, 0.3]


def small_table(split, targets, predictions, **changes):
    """Samples named ``validation0``, ...; the maps of row i sum to i + 1, and channel 0 responds most to row 0."""
    rows, targets, predictions = np.arange(len(targets)), np.array(targets), np.array(predictions)
    activations = np.column_stack([rows[::-1] + 1, rows + 1, np.ones(len(rows))]).astype(np.float32)
    table = FeatureTable(
        contributions=activations - 1,
        activations=activations,
        logits=np.eye(2, dtype=np.float32)[predictions],
        targets=targets,
        predictions=predictions,
        explained=targets.clip(0),
        cams=np.repeat((rows + 1) / 4, 4).reshape(-1, 2, 2).astype(np.float32),
        sample_ids=np.array([f"{split}{row}" for row in rows]),
        indices=rows,
        fingerprints=rows,
        metadata=pd.DataFrame(index=rows),
        properties=pd.DataFrame(index=rows),
        layer="features",
        task="multiclass",
        cam="hirescam",
    )
    return replace(table, **changes)


def small_samples():
    """Three suspicious validation samples, one of them a copy of ``train2``, and one of the training."""
    return pd.DataFrame({
        "sample_id": [f"validation{row}" for row in range(6)] + [f"train{row}" for row in range(4)],
        "split": ["validation"] * 6 + ["train"] * 4,
        "score": [0.1, 1.0, 9.0, 0.0, 5.0, 0.2, 8.0, 0.0, 0.0, 0.0],
        "label_score": [0.01] * 4 + [0.97] + [0.01] * 5,
        "suggested_label": [0, 1, 0, 1, 1, 1, 0, 1, 0, -1],
        "kind": ["", "duplicate", "corrupted", "", "mislabelled", "", "foreign", "", "", ""],
        "target": [0, 1, 0, 1, 0, 1, 0, 1, 0, -1],
        "prediction": [0, 1, 1, 1, 0, 0, 0, 1, 0, 1],
        "evidence": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0],
        "duplicate_of": ["", "train2", *[""] * 8],
        "outside": np.nan,
    })  # fmt: skip


def small_confounders():
    """One of the content first, two that are judged, and one that could not be tested."""
    return pd.DataFrame({
        "source": ["shape", "site", "brightness", "<i>age</i>"],
        "origin": ["content", "metadata", "background", "metadata"],
        "score": [0.9, 0.3, 0.1, np.nan],
        "z": [20.0, 9.0, 4.0, np.nan],
        "features": [[1], [2, 0], [1], []],
        "worst_class": [0, 1, -1, -1],
        "worst_score": [0.95, 0.5, 0.1, np.nan],
        "association": [0.9, 0.4, 0.2, np.nan],
        "accuracy_aligned": [0.9, 0.8, 0.7, np.nan],
        "accuracy_conflicting": [0.9, 0.4, 0.6, np.nan],
        "conflicting": [3, 2, 2, 0],
        "highest": [[], ["validation0"], ["validation0"], []],
        "lowest": [[], ["validation3"], ["validation1"], []],
        "note": ["", "site goes with the class", "", "too few values"],
    })  # fmt: skip


def small_report(**changes):
    """Two classes, one whose name is markup; six validation and four training samples; confounding alarms."""
    columns = {"metadata": pd.DataFrame({"site": SITES}), "properties": pd.DataFrame({"brightness": BRIGHTNESS})}
    validation = small_table("validation", [0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0], **columns)
    train = small_table("train", [0, 1, 0, -1], [0, 1, 0, 1])
    pictured = validation.take(np.array([0, 2]))
    quiet = Finding(0.01, 0.5, 0.9, limit=0.35)
    report = FeatureReport(
        findings={
            "overfitting": replace(quiet, details={"margin_gap": 0.01, "shift_auc": 0.5}),
            "confounding": Finding(
                0.3, 9.0, 0.1, subject="site", limit=0.02, tables={"confounders": small_confounders()}
            ),
            "outliers": replace(quiet, tables={"samples": small_samples()}),
            "redundancy": undecided("there are too few samples"),
            "consistency": quiet,
        },
        importance=Importance(
            classes=np.array([0, 1]),
            counts=np.array([2, 2]),
            matrix=np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 4.0]]),
            overall=np.array([0.5, 0.25, 3.0]),
            standard_error=np.full((2, 3), 0.1),
        ),
        tables={"validation": validation, "train": train},
        scale=IntensityScale(0.0, 2.0),
        probes=Probes(
            pictured,
            replace(pictured, explained=pictured.predictions, cams=2 * pictured.cams),
            np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4),
        ),
        class_names=NAMES,
        warnings=("<u>age</u> has too few values",),
    )
    return replace(report, **changes)
