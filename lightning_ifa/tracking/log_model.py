"""Register a checkpoint in MLflow together with the analysis of its own weights."""

from __future__ import annotations

import copy
import os
import tempfile
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
from lightning_ifa.tracking.logged_models import ModelParts, log_parts, make_example, save_model
from lightning_ifa.tracking.offline_store import resolve_run
from lightning_ifa.tracking.store import default_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray
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
    input_example: NDArray[Any] | None = None,
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
        input_example: A batch of inputs as ``model`` takes them, from which the signature is made; by default the
            model has none.

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
    run_id = resolve_run(client, run_id)
    example = None if input_example is None else make_example(module, input_example)
    with tempfile.TemporaryDirectory() as folder:
        save_model(module, Path(folder) / "model", example, pip_requirements)
        logged = log_parts(client, run_id, ModelParts.of(name, record), Path(folder) / "model")
    with default_store(tracking_uri):
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


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
