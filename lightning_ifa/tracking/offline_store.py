"""Runs that begin while no server is in reach: what it takes to make them later, once, and to find them again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import RunGoneError, TrackingError
from lightning_ifa.tracking.names import without_secret

SPOOLED_AS = "mlflow.lightning-ifa.spooled-as"
"""Tag of what was made for a spool: its id there. MLflow's pages hide tags with MLflow's own prefix."""

LONGEST_TURN = 60.0
"""Seconds to wait for another process that makes the same run."""

_made: dict[tuple[str, str], str] = {}
"""Store and id in the spool to the id that the store gave, of the runs that this process knows."""


@dataclass(frozen=True)
class RunStart:
    """What it takes to make a run that began without a server.

    Attributes:
        experiment: Name of the experiment, which is made if it does not exist.
        artifact_location: Where a new experiment keeps its artifacts, or None for the server's own choice.
        tags: The tags that the run began with.
        time: Start of the run, milliseconds.
    """

    experiment: str
    artifact_location: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    time: int = field(default_factory=lambda: int(time.time() * 1000))


def remember(uri: str, spooled: str, run_id: str) -> None:
    """Remember by which id a store knows a run."""
    _made[without_secret(uri), spooled] = run_id


def id_in_store(uri: str, spooled: str) -> str:
    """Give the id by which a store knows a run, as far as this process has learnt of it; else the given one."""
    return _made.get((without_secret(uri), spooled), spooled)


def make_run(client: MlflowClient, spooled: str, start: RunStart, lock: Path) -> str:
    """Find the run that was begun without a server, or make it, with the time at which it began.

    Args:
        client: Client of the store.
        spooled: The run's id in the spool.
        start: What it takes to make the run.
        lock: File that keeps two processes from making the same run; removed afterwards.

    Returns:
        The id by which the store knows the run.

    Raises:
        RunGoneError: The experiment is deleted.
        TrackingError: Another process makes the run and comes to no end.
        MlflowException: The server refused, or went away.
    """
    uri = client.tracking_uri
    if id_in_store(uri, spooled) == spooled:
        try:
            with FileLock(lock, timeout=LONGEST_TURN):
                experiment_id = _find_or_make_experiment(client, start)
                run_id = _find(client, [experiment_id], spooled) or _create(client, experiment_id, spooled, start)
        except Timeout:
            raise TrackingError(f"run {spooled} is being made by another process, which holds {lock}") from None
        remember(uri, spooled, run_id)
        lock.unlink(missing_ok=True)  # whoever gets it now finds the run
    return id_in_store(uri, spooled)


def find_spooled_run(client: MlflowClient, spooled: str) -> str | None:
    """Find a run that was made for a spool, in any experiment of a store; None if there is none.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    if id_in_store(client.tracking_uri, spooled) == spooled:
        experiments = [found.experiment_id for found in client.search_experiments()]
        run_id = _find(client, experiments, spooled) if experiments else None
        if run_id is None:
            return None
        remember(client.tracking_uri, spooled, run_id)
    return id_in_store(client.tracking_uri, spooled)


def resolve_run(client: MlflowClient, run_id: str) -> str:
    """Give the id by which a store knows a run that is named by that id, or by the one that it had in a spool.

    Raises:
        MlflowException: There is no such run, or the server refused or was not reached.
    """
    try:
        return str(client.get_run(run_id).info.run_id)
    except MlflowException as error:
        found = find_spooled_run(client, run_id) if error.error_code == "RESOURCE_DOES_NOT_EXIST" else None
        if found is None:
            raise
        return found


def _find(client: MlflowClient, experiment_ids: list[str], spooled: str) -> str | None:
    if not spooled.isalnum():  # whatever stands in a file that somebody wrote; ours are hexadecimal
        return None
    found = client.search_runs(experiment_ids, f"tags.`{SPOOLED_AS}` = '{spooled}'", ViewType.ALL, max_results=1)
    return str(found[0].info.run_id) if found else None


def _create(client: MlflowClient, experiment_id: str, spooled: str, start: RunStart) -> str:
    tags = start.tags | {SPOOLED_AS: spooled}
    return str(MlflowClient.create_run(client, experiment_id, start.time, tags).info.run_id)


def _find_or_make_experiment(client: MlflowClient, start: RunStart) -> str:
    name = start.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, start.artifact_location))
        except MlflowException as error:
            found = client.get_experiment_by_name(name) if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
            if found is None:
                raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise RunGoneError(
            f"experiment {name!r} is deleted; `mlflow experiments restore --experiment-id {found.experiment_id}` "
            "brings it back"
        )
    return str(found.experiment_id)
