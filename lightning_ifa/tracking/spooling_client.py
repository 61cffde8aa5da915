"""Make Lightning's ``MLFlowLogger`` independent of its server.

By itself the logger raises into the training when the server is gone (``synchronous=False``: at its end), holds the
training up for as long as a slow server takes to answer, and does not begin without one.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Metric, Param, RunData, RunInfo, RunStatus, RunTag
from mlflow.entities import Run as RunEntity
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_USER

from lightning_ifa.errors import TrackingError
from lightning_ifa.tracking.failures import require_answer
from lightning_ifa.tracking.job import ARTIFACTS, Job, begin, find_spooled_start
from lightning_ifa.tracking.names import is_server, slug
from lightning_ifa.tracking.offline_store import SPOOLED_AS, RunStart, id_in_store, remember, resolve_run
from lightning_ifa.tracking.run import Run
from lightning_ifa.tracking.spool import Spool
from lightning_ifa.tracking.switches import is_offline

log = logging.getLogger(__name__)
Logger = TypeVar("Logger")
Answer = TypeVar("Answer")

PATIENCE = 60.0
"""Seconds that the end of a training waits for what is not uploaded yet."""

FIRST_ANSWER = 1.0
"""Seconds that the start of a training waits for a server to answer at all."""

START_PATIENCE = 5.0
"""Seconds that the start waits for a server that did answer to find the experiment and make the run."""

UNKNOWN = "unknown"
"""Name of the experiment of a run that is continued while no server can tell."""


def outage_proof(logger: Logger, spool: str | Path = "ifa") -> Logger:
    """Make an ``MLFlowLogger`` log through a spool on disk and a background thread.

    Nothing then waits for the server or raises where it is slow, flaky, gone or was never there. What could not be
    uploaded stays in the spool, and ``lightning-ifa sync`` uploads it later, once. A training that begins while no
    server answers within a second gets its run, and if need be its experiment, at that time; until then
    ``logger.run_id`` is the run's id in the spool. With ``LIGHTNING_IFA_OFFLINE=1`` no server is asked at all.

    Args:
        logger: The logger of either Lightning package; it is changed and returned.
        spool: Folder for what waits to be uploaded, of this logger and of the analysis.

    Raises:
        TrackingError: The logger is no ``MLFlowLogger``.

    Example::

        Trainer(logger=outage_proof(MLFlowLogger(tracking_uri="http://mlflow:5000")))
    """
    client = getattr(logger, "_mlflow_client", None)
    if not isinstance(client, MlflowClient):
        raise TrackingError(f"outage_proof was given a {type(logger).__name__}; expected Lightning's MLFlowLogger")
    if not isinstance(client, SpoolingClient):
        client = SpoolingClient(logger._tracking_uri, Path(spool))  # type: ignore[attr-defined]
        logger._mlflow_client = client  # type: ignore[attr-defined]
    return logger


class SpoolingClient(MlflowClient):
    """MLflow's client, with what a training logs going through a spool folder for each run.

    Args:
        tracking_uri: Address of the store.
        spool: Folder for what waits to be uploaded.
    """

    def __init__(self, tracking_uri: str, spool: Path) -> None:
        super().__init__(tracking_uri)
        self._spool = spool
        self._offline = is_offline()
        self._absent = self._offline
        self._backlogs: dict[str, _Backlog] = {}
        self._seen: dict[str, RunEntity] = {}
        self._starts: dict[str, RunStart] = {}
        self._experiments: dict[str, tuple[str, str | None]] = {}

    def spooling(self, run_id: str, tracking_uri: str) -> Run:
        """Give a run of this client with all that it takes to let its jobs wait beside the logger's own."""
        return Run(run_id, tracking_uri, self._starts.get(run_id), self._spool, self._offline)

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Find an experiment; None where no server answers, as for one that does not exist."""
        find = super().get_experiment_by_name
        found: Experiment | None = self._ask(lambda: find(name))
        if found is not None and found.lifecycle_stage != LifecycleStage.DELETED:
            self._experiments[found.experiment_id] = (name, None)
        return found

    def create_experiment(self, name: str, artifact_location: str | None = None, *args: Any, **options: Any) -> str:
        """Make an experiment; where no server answers, only a name for it that is fit for a folder."""
        make = super().create_experiment
        experiment_id = self._ask(lambda: make(name, artifact_location, *args, **options)) or slug(name)
        self._experiments[experiment_id] = (name, artifact_location)
        return experiment_id

    def get_run(self, run_id: str) -> RunEntity:
        """Fetch a run; while the server is away, as it was when last fetched, or as far as it is known."""
        found: RunEntity | None = None
        if run_id not in self._starts or id_in_store(self.tracking_uri, run_id) != run_id:
            try:
                plain = MlflowClient(self.tracking_uri)
                found = self._ask(lambda: plain.get_run(resolve_run(plain, run_id)))
            except MlflowException:
                if run_id not in self._seen and find_spooled_start(self._spool, run_id) is None:
                    raise
        if found is None and run_id not in self._seen:
            start = find_spooled_start(self._spool, run_id)
            if start is not None:
                self._starts[run_id] = start
            found = _sketch(run_id, start or RunStart(UNKNOWN))
        if found is not None:
            self._seen[run_id] = found
        return self._seen[run_id]

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> RunEntity:
        """Make a run; where no server does, write down what it takes to make it later, and give it an id of its own."""
        spooled = uuid.uuid4().hex
        given = {key: str(value) for key, value in (tags or {}).items()}
        name, location = self._experiments.get(experiment_id, (None, None))
        began = start_time or int(time.time() * 1000)
        make = super().create_run
        found = self._ask(
            lambda: make(experiment_id, began, given | {SPOOLED_AS: spooled}, run_name),
            lambda made: self._note_made(spooled, made.info.run_id),
        )
        if found is None:
            if name is None:  # the user's own choice of an experiment, which no server could name
                raise TrackingError(f"{experiment_id} is no experiment that was asked for by its name")
            named = {MLFLOW_RUN_NAME: run_name} if run_name else {}
            start = RunStart(name, location, given | named, began)
            self._starts[spooled], found = start, _sketch(spooled, start)
            self._backlog(spooled).begin()
        self._seen[found.info.run_id] = found
        return found

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

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """Hand a metric to the background thread; returns at once."""
        self.log_batch(run_id, [Metric(key, value, timestamp or int(time.time() * 1000), step or 0)])

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Hand a parameter to the background thread; returns it at once."""
        self.log_batch(run_id, params=[Param(key, str(value))])
        return value

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        """Hand a tag to the background thread; returns at once."""
        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Copy a file into the spool, and leave its upload to the background thread."""
        self._backlog(run_id).add_files(Path(local_path), artifact_path, name=Path(local_path).name)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """Copy the files of a folder into the spool, and leave their upload to the background thread."""
        self._backlog(run_id).add_files(Path(local_dir), artifact_path)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """End a run after everything that was logged to it is uploaded; waits a minute at most."""
        self._backlog(run_id).finish(status or "FINISHED")
        del self._backlogs[run_id]

    def _backlog(self, run_id: str) -> _Backlog:
        if run_id not in self._backlogs:
            run = self.spooling(run_id, self.tracking_uri)
            self._backlogs[run_id] = _Backlog(run, self._spool / f"{run_id}-metrics")
        return self._backlogs[run_id]

    def _note_made(self, spooled: str, run_id: str) -> None:
        """Remember a run that the server made; a second one, made while nobody waited any more, is removed."""
        known = id_in_store(self.tracking_uri, spooled)
        if known in (spooled, run_id):
            remember(self.tracking_uri, spooled, run_id)
        else:
            MlflowClient(self.tracking_uri).delete_run(run_id)

    def _ask(self, question: Callable[[], Answer], late: Callable[[Answer], None] | None = None) -> Answer | None:
        """Ask the store something; None where it does not answer in time, and then it is not asked again.

        Args:
            question: What to ask.
            late: What to do with the answer, also with one that comes too late.

        Raises:
            MlflowException: The store refused.
        """
        if self._absent:
            return None
        request = _Request(self.tracking_uri, question, late or (lambda _: None))
        if not is_server(self.tracking_uri):
            request.run()  # a data base of this machine, which nobody has to wait for
        else:
            threading.Thread(target=request.run, name="lightning-ifa-start", daemon=True).start()
            if request.reached.wait(FIRST_ANSWER):
                request.done.wait(START_PATIENCE)
        if request.error is not None:
            raise request.error
        self._absent = not request.answers
        return request.answers[0] if request.answers else None


class _Request(Generic[Answer]):
    """A question to a store, in a thread that may be left alone: looking up a name can hang for as long as it likes."""

    def __init__(self, uri: str, question: Callable[[], Answer], late: Callable[[Answer], None]) -> None:
        self._uri, self._question, self._late = uri, question, late
        self.reached, self.done = threading.Event(), threading.Event()
        self.answers: list[Answer] = []
        self.error: MlflowException | None = None

    def run(self) -> None:
        """Ask; a connection that breaks, or something that is no MLflow, is as good as no answer."""
        try:
            require_answer(self._uri, FIRST_ANSWER)
            self.reached.set()
            answer = self._question()
            self._late(answer)
            self.answers.append(answer)
        except MlflowException as error:
            self.error = error if not is_server(self._uri) or _is_refusal(error) else None
        except Exception as error:
            log.debug("no answer at the start", exc_info=error)
        finally:
            self.reached.set()
            self.done.set()


def _is_refusal(error: MlflowException) -> bool:
    """Whether MLflow itself said no; a proxy that answers for an absent server is no MLflow."""
    return isinstance(error, RestException) and bool(400 <= error.get_http_status_code() < 500)  # type: ignore[no-untyped-call]


def _sketch(run_id: str, start: RunStart) -> RunEntity:
    """Give a run that no server knows yet, as far as it is known here."""
    info = RunInfo(
        run_id,
        slug(start.experiment),
        start.tags.get(MLFLOW_USER, ""),
        RunStatus.to_string(RunStatus.RUNNING),
        start.time,
        None,
        LifecycleStage.ACTIVE,
        run_name=start.tags.get(MLFLOW_RUN_NAME),
    )
    return RunEntity(info, RunData(tags=[RunTag(key, value) for key, value in start.tags.items()]))


class _Backlog:
    """Gathers batches while the thread is busy, so that a slow server gets few large requests."""

    def __init__(self, run: Run, spool: Path) -> None:
        self._run = run
        self._spool = Spool(spool, run.tracking_uri, is_offline=run.is_offline, is_absent=run.start is not None)
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: Job | None = None
        self._unwritten: Job | None = None

    def begin(self) -> None:
        """Write at once that there is a run, so that it is made later whatever becomes of this process."""
        folder = self._spool.spool / self._next_name()
        with _told_if_full(folder):
            begin(folder)
            Job.of(self._run).save(folder)

    def add(
        self, metrics: list[tuple[str, float, int, int]], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Add a batch to the job that is not written yet, or to a new one."""
        with self._open_job() as job:
            job.metrics += metrics
            job.params |= params
            job.tags |= tags

    def add_files(self, source: Path, artifact_path: str | None, name: str = "") -> None:
        """Copy a file under its name, or a folder's content, into a job of its own; the source may change at once."""
        folder = self._spool.spool / self._next_name()
        target = folder / ARTIFACTS / (artifact_path or "") / name
        with _told_if_full(folder):
            begin(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
            Job.of(self._run).save(folder)
        self._spool.announce()

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
            self._waiting = self._waiting or Job.of(self._run)
            yield self._waiting
        if new or must_write:
            self._spool.put(self._next_name(), self._write)

    def _next_name(self) -> str:
        self._number += 1
        return f"{time.time_ns()}-{self._number:06d}"

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


@contextmanager
def _told_if_full(folder: Path) -> Iterator[None]:
    """Let no full or read-only disk end a training; what was begun there is removed."""
    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        log.warning("%s cannot be written, and will not reach the run: %s", folder, error)


def _join(earlier: Job | None, later: Job | None) -> Job | None:
    if earlier is None or later is None:
        return earlier or later
    metrics, params, tags = earlier.metrics + later.metrics, earlier.params | later.params, earlier.tags | later.tags
    return replace(earlier, metrics=metrics, params=params, tags=tags, status=later.status or earlier.status)
