"""Whether a tracking store can be used, asked without writing anything and in bounded time."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import TrackingError
from lightning_ifa.tracking.failures import describe_failure, require_answer
from lightning_ifa.tracking.names import is_server, without_secret

PATIENCE = 5.0
"""Seconds to wait for a server's answer."""


def describe_store(uri: str, experiment: str) -> str:
    """Say what would happen to a run of an experiment in a store.

    Args:
        uri: Address of the store.
        experiment: Name of the experiment.

    Raises:
        TrackingError: The store does not answer, refuses, or cannot be written to.
    """
    if is_server(uri):
        return _describe_server(uri, experiment)
    if uri.startswith("sqlite:"):
        return _describe_file(Path(urlsplit(uri).path.removeprefix("/")), "data base")
    if "://" not in uri or uri.startswith("file:"):
        return _describe_file(Path(urlsplit(uri).path), "folder")
    return "a store of this kind is not asked"


def _describe_server(uri: str, experiment: str) -> str:
    require_answer(uri, PATIENCE)
    try:
        found = MlflowClient(uri).get_experiment_by_name(experiment)
    except MlflowException as error:
        raise TrackingError(f"{without_secret(uri)} answers, but refuses: {describe_failure(error)}") from None
    if found is None:
        return f"it answers; experiment {experiment!r} will be made"
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"experiment {experiment!r} is deleted; `mlflow experiments restore --experiment-id {found.experiment_id}` "
            "brings it back"
        )
    return f"it answers, and has the experiment {experiment!r}"


def _describe_file(path: Path, kind: str) -> str:
    holder = path if path.exists() else next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(holder, os.W_OK):
        raise TrackingError(f"the {kind} {path} cannot be written to: {holder} is not yours to write")
    if not path.exists():
        return f"the {kind} {path} will be made"
    if path.is_file() and not _is_mlflow(path):
        raise TrackingError(f"{path} is no data base of MLflow")
    return f"the {kind} {path} is there, and can be written to"


def _is_mlflow(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as found:
            return bool(found.execute("SELECT count(*) FROM sqlite_master WHERE name = 'experiments'").fetchone()[0])
    except sqlite3.Error:
        return False
