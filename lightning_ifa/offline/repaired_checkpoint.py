"""A repaired checkpoint: its weights in a file of their own, compared with the original, gated, and logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_ifa.comparison.compare import Comparison, compare_tables
from lightning_ifa.errors import DataError, FileError
from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.model_metrics import ModelMetrics
from lightning_ifa.gate.policy import Policy
from lightning_ifa.gate.verdict import Verdict
from lightning_ifa.offline.checkpoint_analysis import Analysed, log
from lightning_ifa.repairs.repair import Repair
from lightning_ifa.repairs.workbench import Workbench, prepare_workbench
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.tracking.weights import WEIGHTS_TAG
from lightning_ifa.version import __version__

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEIGHTS_FILE, TABLE_FILE, REPORT_FOLDER = "repaired.pt", "ifa_repair.csv", "report"
ORIGINAL, REPAIRED = "original", "repaired"


def workbench_of(analysed: Analysed, suspect: str | None) -> Workbench:
    """Prepare the repair of an analysed checkpoint.

    Raises:
        IFAError: Network, data or suspect do not allow a repair.
    """
    if "train" not in analysed.sources:
        raise DataError("a repair is fitted to training samples, and there is no training loader")
    seed = analysed.sources["validation"][0].seed
    return prepare_workbench(analysed.sources, analysed.report, suspect, analysed.metadata, seed=seed)


def require_new(folder: Path) -> Path:
    """Give the path of the repaired weights.

    Raises:
        FileError: There is such a file; nothing is ever overwritten.
    """
    path = folder / WEIGHTS_FILE
    if path.exists():
        raise FileError(f"{path} is there already, and nothing is overwritten; name another folder (--output)")
    return path


def save_repair(repair: Repair, path: Path) -> None:
    """Write the repaired weights as a state dict, which loads with ``weights_only=True``, and the table beside it."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        torch.save(repair.model.state_dict(), file)
    repair.table.to_csv(path.with_name(TABLE_FILE), index=False)


def compare_reports(before: FeatureReport, after: FeatureReport) -> Comparison:
    """Compare the analyses of original and repaired weights, on the same samples."""
    return compare_tables({ORIGINAL: before.tables, REPAIRED: after.tables})


def judge(policy: Policy, before: FeatureReport, after: FeatureReport) -> Verdict:
    """Judge the repaired weights by a gate's policy, the original being the champion."""
    return decide(policy, _metrics_of(after, REPAIRED), _metrics_of(before, ORIGINAL))


def log_child(
    parent: str, repair: Repair, path: Path, after: FeatureReport, comparison: Comparison, tracking_uri: str | None
) -> str:
    """Log the repair as a child run of the run that the checkpoint is from: report, comparison, weights and table.

    Returns:
        The child's id.

    Raises:
        TrackingError: The parent is unknown.
        MlflowException: The server refused, or was not reached.
    """
    from mlflow import MlflowClient

    from lightning_ifa.tracking.compare import log_comparison

    client: MlflowClient = MlflowClient(tracking_uri)
    run = client.get_run(parent)
    tags = {
        "mlflow.parentRunId": parent,
        "ifa.repair.suspect": repair.suspect,
        "ifa.repair.method": repair.method,
        WEIGHTS_TAG: after.weights,
    }
    child: str = client.create_run(
        run.info.experiment_id, tags=tags, run_name=f"{run.info.run_name}: repaired"
    ).info.run_id
    try:
        log(after, path, child, tracking_uri)
        log_comparison(comparison, client, child)
        for file in (path, path.with_name(TABLE_FILE)):
            client.log_artifact(child, os.fspath(file))
    except BaseException:
        client.set_terminated(child, "FAILED")
        raise
    client.set_terminated(child)
    return child


def _metrics_of(report: FeatureReport, subject: str) -> ModelMetrics:
    table = report.tables["validation"]
    conditions = {"layer": table.layer, "method": table.cam, "version": __version__}
    return ModelMetrics(
        subject, report.weights, report.metrics, report.digest, origin="analysed anew", conditions=conditions
    )
