"""Register a checkpoint in MLflow together with the analysis of its own weights."""

from __future__ import annotations

import copy
import inspect
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ifa.errors import FileError, TrackingError
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.tracking.checkpoint import (
    HOW_TO_ANALYZE,
    Record,
    belongs_to,
    load_weights,
    moment_of,
    own_record,
    read_checkpoint,
    require_record,
)
from lightning_ifa.tracking.checkpoint import record as record_of
from lightning_ifa.tracking.store import default_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from torch import nn


def log_model(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    registered_model_name: str,
    *,
    report: AnalysisResult | str | os.PathLike[str] | None = None,
    name: str = "model",
    run_id: str | None = None,
    tracking_uri: str | None = None,
    pip_requirements: Sequence[str] | None = None,
) -> ModelVersion:
    """Log a checkpoint as an MLflow model with its indicators attached, and register it.

    The metrics are read from the checkpoint, where the callback put them when Lightning saved it, so they are those
    of these weights and not of the run's last epoch. The version appears only when all of it is stored.

    Args:
        model: A module of the checkpoint's architecture; it is copied, its own weights stay.
        checkpoint: Path of the checkpoint, such as ``trainer.checkpoint_callback.best_model_path``.
        registered_model_name: Name of the registered model, which is made if it does not exist.
        report: An analysis of the checkpoint's weights, or the folder that one was saved to, for a checkpoint
            without a record of its own: ``lightning-ifa analyze --checkpoint`` makes one.
        name: Name of the logged model.
        run_id: Id of the MLflow run; by default of the one that the training logged to.
        tracking_uri: Address of the MLflow store; by default MLflow's own.
        pip_requirements: Packages that are needed to load the model; by default MLflow finds out by loading it,
            which takes 10 s or more.

    Returns:
        The registered version.

    Raises:
        FileError: The file is no checkpoint, its weights were never analysed, the analysis speaks of others, or they
            do not fit the module.
        TrackingError: The run is unknown.
        MlflowException: The server refused, or was not reached.

    Example::

        best = trainer.checkpoint_callback.best_model_path
        lightning_ifa.log_model(trainer.lightning_module, best, "leafnet")
    """
    from mlflow import MlflowClient

    content = read_checkpoint(checkpoint)
    record = _record_of(content, checkpoint, report)
    run_id = run_id or record.run_id
    if run_id is None:
        raise TrackingError(f"{checkpoint} was trained without an MLflow run; pass run_id=")
    module = copy.deepcopy(model).cpu().eval()
    load_weights(module, content, checkpoint)
    if not belongs_to(record, module.state_dict()):
        raise FileError(
            f"{type(module).__name__} changes the weights of {checkpoint} as it loads them, so that its analysis does "
            "not speak of them; pass a module with parameters of the same names and dtypes"
        )
    client = MlflowClient(tracking_uri)
    experiment = client.get_run(run_id).info.experiment_id
    with default_store(tracking_uri):
        logged = client.create_logged_model(experiment, name, run_id, record.tags)
        try:
            with tempfile.TemporaryDirectory() as folder:
                _save(module, logged, run_id, Path(folder) / "model", pip_requirements)
                client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
            _attach(client, logged.model_id, run_id, record)
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        _ensure_registered_model(client, registered_model_name)
        source = f"models:/{logged.model_id}"
        return client.create_model_version(registered_model_name, source, run_id, model_id=logged.model_id)


def _record_of(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    report: AnalysisResult | str | os.PathLike[str] | None,
) -> Record:
    """Take the record of these very weights from the checkpoint, or make it of a report on them."""
    if report is None:
        return require_record(content, path)
    found = report if isinstance(report, AnalysisResult) else AnalysisResult.load(report)
    moment, known = moment_of(content), own_record(content)
    made = record_of(found, moment.step if moment else 0, known.run_id if known else None)
    if not belongs_to(made, content.get("state_dict", content)):
        raise FileError(f"the report speaks of other weights than those of {path}; {HOW_TO_ANALYZE}")
    return made


def _save(
    module: nn.Module, logged: LoggedModel, run_id: str, folder: Path, pip_requirements: Sequence[str] | None
) -> None:
    import mlflow.pytorch
    from mlflow.models import Model

    model_id = logged.model_id
    about = Model(artifact_path=logged.artifact_location, model_uuid=model_id, run_id=run_id, model_id=model_id)
    # Only a pickled module keeps its named layers, which a re-analysis needs; MLflow without the choice pickles.
    known = inspect.signature(mlflow.pytorch.save_model).parameters
    options = {"serialization_format": "pickle"} if "serialization_format" in known else {}
    requirements = None if pip_requirements is None else list(pip_requirements)
    mlflow.pytorch.save_model(module, str(folder), mlflow_model=about, pip_requirements=requirements, **options)


def _attach(client: MlflowClient, model_id: str, run_id: str, record: Record) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    about = {"model_id": model_id, "dataset_name": "validation", "dataset_digest": record.dataset_digest}
    metrics = [Metric(key, value, now, record.step, run_id=run_id, **about) for key, value in record.metrics.items()]
    client.log_batch(run_id, metrics=metrics)


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
