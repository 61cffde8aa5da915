"""Find the MLflow run that the user already has; none is ever started."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from lightning_ifa.data.untrusted_files import read_json
from lightning_ifa.errors import FileError, TrackingError
from lightning_ifa.report.files import SCALE_FILE
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.tracking.failures import require_answer
from lightning_ifa.tracking.offline_store import RunStart


@dataclass(frozen=True)
class Run:
    """An MLflow run and the server it lives on.

    Attributes:
        run_id: Id of the run.
        tracking_uri: Address of its store; may hold credentials and must not be printed.
        start: What it takes to make the run, where it began without a server.
        spool: The folder where its logger lets wait what cannot be uploaded yet, or None.
        is_offline: Whether nothing is to be uploaded before somebody asks for it.
    """

    run_id: str
    tracking_uri: str
    start: RunStart | None = None
    spool: Path | None = None
    is_offline: bool = False

    def client(self) -> MlflowClient:
        """Make a client for the run's store."""
        return MlflowClient(self.tracking_uri)


def find_run(loggers: Iterable[Any], run_id: str | None = None, tracking_uri: str | None = None) -> Run | None:
    """Find the run to log to: the given one, the logger's, the active one, or that of ``MLFLOW_RUN_ID``.

    Args:
        loggers: The trainer's loggers. Those of MLflow are recognised by their methods, not by class: the two
            Lightning packages have unrelated ones, and a dummy logger answers every attribute with a function.
        run_id: Id of the run that the user asked for, or None.
        tracking_uri: Address of the store that the user asked for, or None.

    Returns:
        The run, or None if there is none. Must be called from the main thread: the active run is thread-local.
    """
    default = tracking_uri or mlflow.get_tracking_uri()
    if run_id:
        return Run(run_id, default)
    for logger in loggers:
        own, uri = getattr(logger, "run_id", None), getattr(logger, "_tracking_uri", None)
        if isinstance(own, str) and callable(getattr(getattr(logger, "experiment", None), "log_figure", None)):
            store = tracking_uri or (uri if isinstance(uri, str) else default)
            spooling = getattr(logger.experiment, "spooling", None)
            return spooling(own, store) if callable(spooling) else Run(own, store)
    active = mlflow.active_run()
    if active is not None:
        return Run(active.info.run_id, default)
    named = os.environ.get("MLFLOW_RUN_ID")
    return Run(named, default) if named else None


def require_run(run_id: str, tracking_uri: str | None = None) -> None:
    """Make sure that a run can be written to.

    Raises:
        TrackingError: It is deleted.
        MlflowException: It is unknown, or the server was not reached.
    """
    if MlflowClient(tracking_uri).get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(f"run {run_id} is deleted; `mlflow runs restore --run-id {run_id}` brings it back")


def other_active_run(run: Run) -> str | None:
    """Give the id of an active run beside ``run``: two runs for one training, as with autolog beside a logger."""
    active = mlflow.active_run()
    return active.info.run_id if active is not None and active.info.run_id != run.run_id else None


def baseline_scale(run_id: str, tracking_uri: str | None = None) -> IntensityScale:
    """Read the intensity scale that an earlier run saved; MLflow's own store if none is named.

    Raises:
        TrackingError: The run or its scale cannot be read.
    """
    try:
        require_answer(tracking_uri or mlflow.get_tracking_uri())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(MlflowClient(tracking_uri).download_artifacts(run_id, SCALE_FILE, folder))
            return IntensityScale(**read_json(path))
    except (MlflowException, FileError, OSError, ValueError, TypeError) as error:
        raise TrackingError(
            f"run {run_id} has no readable {SCALE_FILE}; was it analysed by lightning_ifa? ({error})"
        ) from error
