"""Judge every network of the folder at every checkpoint: false alarms, clean samples flagged, wrong labels found.

``COLUMNS`` holds what is measured of one network at one checkpoint; another column is one more function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.planted.tables import to_markdown
from benchmarks.real.train import CHECKPOINTS, Training, load_net, load_training
from lightning_ifa.analysis import analyze
from lightning_ifa.indicators.outliers import label_margins
from lightning_ifa.report.feature_report import FeatureReport

MOST_ROWS = 1024


class Judged(NamedTuple):
    """A report, and which of its validation labels are wrong, ``(n,)`` bool."""

    report: FeatureReport
    wrong: np.ndarray


def alarms(judged: Judged) -> dict[str, Any]:
    """Tell whether each family alarms."""
    return {f"alarm {name}": name in judged.report.alarms for name in judged.report.findings}


def samples(judged: Judged) -> dict[str, Any]:
    """Give the share of clean samples flagged, and the quality of the labels called wrong."""
    rows = judged.report.samples
    rows = rows[rows["split"] == "validation"]
    kinds, wrong = rows["kind"].to_numpy(), judged.wrong
    found: dict[str, Any] = {"clean flagged": float(((kinds != "") & (rows["duplicate_of"] == "") & ~wrong).mean())}
    if wrong.any():
        table, called = judged.report.tables["validation"], kinds == "mislabelled"
        found |= {
            "called": int(called.sum()),
            "called and wrong": int((called & wrong).sum()),
            "wrong": int(wrong.sum()),
            "AP label_score": average_precision_score(wrong, rows["label_score"].fillna(0)),
            "AP margin": average_precision_score(wrong, -label_margins(table, table.targets)),
        }
    return found


COLUMNS: tuple[Callable[[Judged], dict[str, Any]], ...] = (alarms, samples)


def judge(trainings: Iterator[Training], root: Path, folder: Path) -> pd.DataFrame:
    """Judge what has been trained, one row a network and checkpoint."""
    found = []
    for training in trainings:
        if not (folder / training.name / "accuracy.json").exists():
            continue
        parts, wrong = load_training(training, root)
        loaders = [
            DataLoader(TensorDataset(parts[split].images[:MOST_ROWS], parts[split].labels[:MOST_ROWS]), batch_size=128)
            for split in ("validation", "train")
        ]
        for checkpoint in range(CHECKPOINTS):
            report = analyze(load_net(training, parts, folder, checkpoint), *loaders)
            planted = wrong["validation"].numpy()[report.tables["validation"].indices]
            row = {
                "task": training.task.name, "purpose": training.task.purpose, "head": training.head,
                "planted": training.noise, "checkpoint": checkpoint,
            }  # fmt: skip
            for column in COLUMNS:
                row |= column(Judged(report, planted))
            found.append(row)
    return pd.DataFrame(found)


def tables(rows: pd.DataFrame) -> str:
    """Write one table of the sound networks and one of the planted labels, each by task and head, as Markdown."""
    keys = ["purpose", "task", "head"]
    sound = rows[rows["planted"] == 0].groupby(keys, sort=False)
    names = [name for name in rows if name.startswith("alarm ")]
    first = sound.agg({**dict.fromkeys(names, "sum"), "clean flagged": "mean", "checkpoint": "size"})
    parts = [first.rename(columns={"checkpoint": "judged"}).reset_index()]
    noisy = rows[rows["planted"] > 0].groupby([*keys, "planted"], sort=False)
    if len(noisy):
        second = noisy[["called", "called and wrong", "wrong"]].sum()
        second["precision"] = second["called and wrong"] / second["called"]
        second["recall"] = second["called and wrong"] / second["wrong"]
        second = second.join(noisy[["AP label_score", "AP margin", "alarm outliers"]].mean())
        parts.append(second.reset_index())
    return "\n\n".join(to_markdown(part) for part in parts)
