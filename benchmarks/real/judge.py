"""Judge every network of the folder at every checkpoint by the default analysis and by the gate's default policy.

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

from benchmarks.real.train import CHECKPOINTS, Training, load_net, load_training
from lightning_ifa.analysis import analyze
from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.model_metrics import ModelMetrics
from lightning_ifa.gate.policy import Policy, load_policy
from lightning_ifa.indicators.outliers import label_margins
from lightning_ifa.report.feature_report import FeatureReport

MOST_ROWS = 1024
POLICY = Path(__file__).parents[2] / "configs" / "gate.yaml"
FOUND = "judged.csv"


class Judged(NamedTuple):
    """A report, and which of its validation labels are wrong, ``(n,)`` bool."""

    report: FeatureReport
    wrong: np.ndarray


def families(judged: Judged) -> dict[str, Any]:
    """Tell whether each family alarms, cannot be told, or could only have found what lies above its own limit."""
    found: dict[str, Any] = {}
    for name, finding in judged.report.findings.items():
        found |= {f"alarm {name}": bool(finding.alarm), f"undecided {name}": bool(finding.undecided)}
        found |= {f"score {name}": finding.score, f"z {name}": finding.z, f"detectable {name}": finding.detectable}
    return found


def verdicts(judged: Judged) -> dict[str, Any]:
    """Tell whether the default policy passes the model, as it is and where it accepts what cannot be told."""
    policy, numbers = load_policy(POLICY), ModelMetrics("a model", "a model", metrics=judged.report.metrics)
    accepting = Policy.model_validate(policy.model_dump() | {"undecided": "accept"})
    return {"passes": decide(policy, numbers, None).passed, "passes accepting": decide(accepting, numbers, None).passed}


def samples(judged: Judged) -> dict[str, Any]:
    """Give the share of clean samples flagged, and the quality of the labels called wrong."""
    rows = judged.report.samples
    rows = rows[rows["split"] == "validation"]
    kinds, wrong = rows["kind"].to_numpy(), judged.wrong
    found: dict[str, Any] = {"clean flagged": float(((kinds != "") & (rows["duplicate_of"] == "") & ~wrong).mean())}
    tables = judged.report.tables
    found |= {"accuracy": float(tables["validation"].correct.mean()), "training": float(tables["train"].correct.mean())}
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


COLUMNS: tuple[Callable[[Judged], dict[str, Any]], ...] = (families, verdicts, samples)


def judge(trainings: Iterator[Training], root: Path, folder: Path) -> None:
    """Judge what has been trained and not been judged yet, one row a checkpoint, into each network's own folder."""
    for training in trainings:
        target = folder / training.name
        if not (target / "accuracy.json").exists() or (target / FOUND).exists():
            continue
        judge_network(training, root, folder).to_csv(target / FOUND, index=False)
        print(f"judged {training.name}", flush=True)


def judge_network(training: Training, root: Path, folder: Path) -> pd.DataFrame:
    """Judge a network at each of its checkpoints; where wrong labels or faults are planted, at the last one."""
    parts, wrong = load_training(training, root)
    loaders = [
        DataLoader(TensorDataset(parts[split].images[:MOST_ROWS], parts[split].labels[:MOST_ROWS]), batch_size=128)
        for split in ("validation", "train")
    ]
    sound, found = not training.fault and not training.noise, []
    for checkpoint in range(0 if sound else CHECKPOINTS - 1, CHECKPOINTS):
        report = analyze(load_net(training, parts, folder, checkpoint), *loaders)
        judged = Judged(report, wrong["validation"].numpy()[report.tables["validation"].indices])
        row: dict[str, Any] = {"checkpoint": checkpoint}
        for column in COLUMNS:
            row |= column(judged)
        found.append(row)
    return pd.DataFrame(found)


def read_judged(trainings: Iterator[Training], folder: Path) -> pd.DataFrame:
    """Give every row that has been judged, with what was trained."""
    parts = []
    for training in trainings:
        path = folder / training.name / FOUND
        if path.exists():
            fault = training.fault or ("mislabelled" if training.noise else "")
            of = {"task": training.task.name, "purpose": training.task.purpose, "real": bool(training.task.source)}
            of |= {"head": training.head, "seed": training.seed, "planted": training.noise, "fault": fault}
            parts.append(pd.read_csv(path).assign(**of))
    return pd.concat(parts, ignore_index=True)
