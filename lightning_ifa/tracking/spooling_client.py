"""Make Lightning's ``MLFlowLogger`` independent of its server.

By itself the logger raises into the training when the server is gone (``synchronous=False``: at its end), and holds the
training up for as long as a slow server takes to answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as RunEntity
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import TrackingError
from lightning_ifa.tracking.job import Job, require_answer
from lightning_ifa.tracking.spool import Spool

Logger = TypeVar("Logger")

PATIENCE = 60.0
"""Seconds that the end of a training waits for what is not uploaded yet."""


def outage_proof(logger: Logger, spool: str | Path = "ifa") -> Logger:
    """Make an ``MLFlowLogger`` log through a spool on disk and a background thread.

    Metrics and parameters then neither wait for the server nor raise where it is slow, flaky or gone; what could not be
    uploaded stays in the spool, and ``lightning-ifa sync`` uploads it later, to the same run, once. Calls of yours on
    ``logger.experiment``, and checkpoints logged by ``log_model=``, go to the server directly as before.

    Args:
        logger: The logger of either Lightning package; it is changed and returned. The server must be there when
            the training starts, since only it can make a run.
        spool: Folder for what waits to be uploaded.

    Raises:
        TrackingError: The logger is no ``MLFlowLogger``.

    Example::

        Trainer(logger=outage_proof(MLFlowLogger(tracking_uri="http://mlflow:5000")))
    """
    if not isinstance(getattr(logger, "_mlflow_client", None), MlflowClient):
        raise TrackingError(f"outage_proof was given a {type(logger).__name__}; expected Lightning's MLFlowLogger")
    logger._mlflow_client = SpoolingClient(logger._tracking_uri, Path(spool))  # type: ignore[attr-defined]
    return logger


class SpoolingClient(MlflowClient):
    """MLflow's client, with batches and the end of a run going through a spool folder for each run."""

    def __init__(self, tracking_uri: str, spool: Path) -> None:
        super().__init__(tracking_uri)
        self._spool = spool
        self._backlogs: dict[str, _Backlog] = {}
        self._seen: dict[str, RunEntity] = {}

    def get_run(self, run_id: str) -> RunEntity:
        """Fetch a run; while the server is away, as it was when last fetched."""
        try:
            require_answer(self.tracking_uri)
            self._seen[run_id] = super().get_run(run_id)
        except (TrackingError, MlflowException):
            if run_id not in self._seen:
                raise
        return self._seen[run_id]

    def create_run(self, *args: Any, **options: Any) -> RunEntity:
        """Make a run, and remember it."""
        run = super().create_run(*args, **options)
        self._seen[run.info.run_id] = run
        return run

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Hand a batch to the background thread; returns at once."""
        self._backlog(run_id).add(
            [(m.key, float(m.value), int(m.timestamp), int(m.step)) for m in metrics],
            {p.key: str(p.value) for p in params},
            {t.key: str(t.value) for t in tags},
        )

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """End a run after everything that was logged to it is uploaded; waits a minute at most."""
        self._backlog(run_id).finish(status or "FINISHED")
        del self._backlogs[run_id]

    def _backlog(self, run_id: str) -> _Backlog:
        if run_id not in self._backlogs:
            self._backlogs[run_id] = _Backlog(run_id, self.tracking_uri, self._spool / f"{run_id}-metrics")
        return self._backlogs[run_id]


class _Backlog:
    """Gathers batches while the thread is busy, so that a slow server gets few large requests."""

    def __init__(self, run_id: str, tracking_uri: str, spool: Path) -> None:
        self._run_id, self._uri = run_id, tracking_uri
        self._spool = Spool(spool, tracking_uri)
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: Job | None = None
        self._unwritten: Job | None = None

    def add(
        self, metrics: list[tuple[str, float, int, int]], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Add a batch to the job that is not written yet, or to a new one."""
        with self._open_job() as job:
            job.metrics += metrics
            job.params |= params
            job.tags |= tags

    def finish(self, status: str) -> None:
        """Write the run's end, and upload what can be uploaded now."""
        with self._open_job(must_write=True) as job:
            job.status = status
        self._spool.close(PATIENCE)

    @contextmanager
    def _open_job(self, must_write: bool = False) -> Iterator[Job]:
        """Give the job that is not written yet, or begin a new one and hand it to the spool."""
        with self._lock:
            new = self._waiting is None
            self._waiting = self._waiting or Job(self._run_id, self._uri)
            yield self._waiting
        if new or must_write:
            self._number += 1
            self._spool.put(f"{time.time_ns()}-{self._number:06d}", self._write)

    def _write(self, folder: Path) -> None:
        """Write what waits; what cannot be written, as on a full disk, goes with the next batch."""
        with self._lock:
            job, self._waiting = self._waiting, None
            job, self._unwritten = _join(self._unwritten, job), None
        if job is None:
            folder.rmdir()
            return
        try:
            job.save(folder)
        except OSError:
            with self._lock:
                self._unwritten = job
            raise


def _join(earlier: Job | None, later: Job | None) -> Job | None:
    if earlier is None or later is None:
        return earlier or later
    metrics, params, tags = earlier.metrics + later.metrics, earlier.params | later.params, earlier.tags | later.tags
    return replace(earlier, metrics=metrics, params=params, tags=tags, status=later.status or earlier.status)
