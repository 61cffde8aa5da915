"""A job: a folder on disk with everything that belongs in one run, to be uploaded now or later."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from pydantic import Field, TypeAdapter

from lightning_ifa.data.untrusted_files import MOST_TEXT, file_errors, require_regular
from lightning_ifa.errors import FileError, FilesLeftError, RunGoneError, TrackingError
from lightning_ifa.tracking.datasets import log_inputs
from lightning_ifa.tracking.description import DESCRIPTION, with_verdict
from lightning_ifa.tracking.failures import explain_failure, require_answer
from lightning_ifa.tracking.logged_models import ModelParts, log_parts
from lightning_ifa.tracking.names import slug, without_secret
from lightning_ifa.tracking.offline_store import LONGEST_TURN, RunStart, find_spooled_run, id_in_store, make_run
from lightning_ifa.tracking.run import Run
from lightning_ifa.tracking.saved_view import ViewWish, fulfil, show_end

JOB_FILE = "job.json"
HELD_FILE = "held.json"
"""Name of a job's description while the job is held back: it is not known yet whether the job is wanted."""
PARTIAL = ".part"
BEGUN_FILE = JOB_FILE + PARTIAL
"""Name of the file that lies in a job's folder from the beginning on."""
LOCK_FILE = "job.lock"
ARTIFACTS = "artifacts"
MODEL = "model"
"""Folder of a job that holds the files of a logged model."""
LOGGED_TABLES = "mlflow.loggedArtifacts"
MOST_METRICS, MOST_TAGS = 1000, 100  # of one request

Status = Annotated[str, Field(pattern=r"^(|RUNNING|SCHEDULED|FINISHED|FAILED|KILLED)\z")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what a store can hold


@dataclass
class Job:
    """The description of what one analysis, or a batch of metrics, brings to a run.

    Attributes:
        run_id: Id of the run.
        tracking_uri: Address of its store, without credentials.
        tables: Names of the root-level JSON tables that MLflow's pages should list.
        tags: Run tags.
        verdict: Markdown for the package's own section of the run's description, or empty.
        metrics: Rows of key, value, timestamp, step; the store drops those that it has already.
        doubtful: Whether the run may have the metrics of this step from a logger, with another timestamp.
        params: Parameters, name to value.
        status: Status that the run ends with, or empty.
        start: What it takes to make the run, where it began without a server and ``run_id`` is its id in the spool.
        inputs: The data sets of the run, as ``tracking.datasets`` describes them.
        model: What a logged model is made of beside the job's folder ``model``, or None.
        view: The saved view that the experiment is to have, or None.
        timestamp: Time of the job, milliseconds; jobs are uploaded in this order.
    """

    run_id: str
    tracking_uri: str
    tables: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    verdict: str = ""
    metrics: list[tuple[str, float, Integer, Integer]] = field(default_factory=list)
    doubtful: bool = False
    params: dict[str, str] = field(default_factory=dict)
    status: Status = ""
    start: RunStart | None = None
    inputs: list[dict[str, str]] = field(default_factory=list)
    model: ModelParts | None = None
    view: ViewWish | None = None
    timestamp: Integer = field(default_factory=lambda: int(time.time() * 1000))

    @classmethod
    def of(cls, run: Run, **parts: Any) -> Job:
        """Make a job that brings some parts to a run."""
        return cls(run.run_id, run.tracking_uri, start=run.start, **parts)

    def save(self, folder: Path, name: str = JOB_FILE) -> None:
        """Write the description; a folder with one is complete."""
        partial = folder / (name + PARTIAL)
        partial.write_text(json.dumps(asdict(self) | {"tracking_uri": without_secret(self.tracking_uri)}))
        partial.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read a folder's description.

        Raises:
            FileError: It has none, or a damaged one.
        """
        with file_errors(folder, "a complete analysis to upload"):
            require_regular(folder / JOB_FILE, MOST_TEXT)
            return TypeAdapter(cls).validate_json((folder / JOB_FILE).read_bytes(), strict=True)


def begin(folder: Path) -> None:
    """Mark a folder as a job that is being written, so that one which is cut then is told from a finished one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN_FILE).touch()


def list_pending(spool: Path) -> Iterator[Path]:
    """List the folders of complete jobs that wait below a spool folder, oldest first; damaged ones last."""
    return iter(sorted(folders_with(spool, JOB_FILE), key=lambda folder: (_timestamp(folder), str(folder))))


def list_incomplete(spool: Path) -> list[Path]:
    """List the folders below a spool folder whose analysis was cut while it was written; nobody can complete them."""
    complete = {JOB_FILE, HELD_FILE}
    return sorted(folder for folder in folders_with(spool, BEGUN_FILE) if not complete & set(os.listdir(folder)))


def find_spooled_start(spool: Path, run_id: str) -> RunStart | None:
    """Find what it takes to make a run that began without a server, among the jobs that wait for it."""
    for folder in folders_with(spool, JOB_FILE):
        with suppress(FileError):
            job = Job.load(folder)
            if job.run_id == run_id and job.start is not None:
                return job.start
    return None


def folders_with(spool: Path, name: str) -> list[Path]:
    """List the folders below a spool folder that hold a file; another thread may remove folders meanwhile."""
    return [Path(folder) for folder, _, files in os.walk(spool) if name in files]


def remove_empty(spool: Path) -> None:
    """Remove the folders of runs of which nothing waits any more."""
    for folder in [path for path in spool.iterdir() if path.is_dir() and not path.is_symlink()]:
        with suppress(OSError):
            folder.rmdir()  # which only an empty folder allows


def upload(folder: Path, tracking_uri: str | None = None, files_too: bool = True) -> str:
    """Upload a job and remove its folder; safe to interrupt and to repeat, since each part replaces itself.

    Metrics, tags and text go first, and arrive also where the files are refused.

    Args:
        folder: The job's folder.
        tracking_uri: Address of the store, in place of the recorded one, which has no credentials.
        files_too: False where the files have to wait for those of an earlier job, which they would replace.

    Returns:
        The id of the job's run in the store; empty where another process has done the job meanwhile.

    Raises:
        FileError: The folder holds no complete job.
        FilesLeftError: Everything but the files is uploaded.
        TrackingError: The server does not answer, or the run is unknown or deleted.
        MlflowException: The server refused, or went away; the folder stays, without the files that are uploaded.
    """
    require_regular(folder / JOB_FILE)
    try:
        with FileLock(folder / LOCK_FILE, timeout=LONGEST_TURN):  # given back by the system if this process is killed
            if (folder / JOB_FILE).exists():
                return _upload(folder, tracking_uri, files_too)
    except Timeout:
        raise TrackingError(f"{folder} is being uploaded by another process") from None
    except FileNotFoundError:  # another process has uploaded and removed it
        if (folder / JOB_FILE).exists():
            raise
    finally:
        _remove_if_done(folder)
    return ""


def _upload(folder: Path, tracking_uri: str | None, files_too: bool) -> str:
    job = Job.load(folder)
    files, of_model = _files_of(folder / ARTIFACTS), _files_of(folder / MODEL)
    uri = tracking_uri or job.tracking_uri
    require_answer(uri)
    client = MlflowClient(uri)
    run_id = find_run_id(client, job, folder)
    try:
        present = find_present_tags(client, run_id, uri)
    except RunGoneError:
        run_id = find_spooled_run(client, job.run_id) or run_id  # of a training that another process has brought here
        present = find_present_tags(client, run_id, uri)
    tags = job.tags | _merge_tags(job, present)
    if job.doubtful and _is_logged(client, run_id, job):
        job.metrics = []
    _log_batches(client, run_id, job, tags)
    if job.inputs:
        log_inputs(client, run_id, job.inputs)
    if files or job.model:
        if not files_too:
            count = len(files) + len(of_model)
            raise FilesLeftError(f"{count} files wait for those of an earlier analysis, which they replace")
        _upload_files(client, run_id, folder / ARTIFACTS, files)
    if job.model:
        with explain_failure(uri, f"model {job.model.name}"):
            log_parts(client, run_id, job.model, folder / MODEL)
    if job.status:
        client.set_terminated(run_id, job.status, job.timestamp)
        show_end(client, run_id)
    if job.view is not None:
        fulfil(client, run_id, job.view)
    (folder / BEGUN_FILE).unlink(missing_ok=True)  # first: with it, and without a description, a job is partial
    shutil.rmtree(folder, ignore_errors=True)
    return run_id


def find_run_id(client: MlflowClient, job: Job, folder: Path) -> str:
    """Give the id by which the store knows a job's run; a run that began without a server is made.

    Raises:
        RunGoneError: Its experiment is deleted.
        TrackingError: Another process makes it, and comes to no end.
        MlflowException: The server refused, or went away.
    """
    if job.start is None:
        return id_in_store(client.tracking_uri, job.run_id)
    return make_run(client, job.run_id, job.start, folder.absolute().parents[1] / f".{slug(job.run_id)}.lock")


def _remove_if_done(folder: Path) -> None:
    """Remove what waiting for a lock leaves of a folder that another process has removed meanwhile."""
    if not os.path.lexists(folder / JOB_FILE):
        with suppress(OSError):
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def _files_of(root: Path) -> list[Path]:
    """List the files that a job brings.

    Raises:
        FileError: One of them is a link or no file: uploading would publish, and then remove, what it leads to.
    """
    if root.is_symlink():
        raise FileError(f"{root} is a link; links are not uploaded")
    files = []
    for path, folders, names in os.walk(root):
        for name in folders:
            if (Path(path) / name).is_symlink():
                raise FileError(f"{Path(path) / name} is a link; links are not uploaded")
        for name in names:
            require_regular(Path(path) / name)
            files.append(Path(path) / name)
    return sorted(files)


def replay(
    spool: Path, tracking_uri: str | None = None, runs: dict[str, str] | None = None
) -> Iterator[tuple[Path, Exception | None]]:
    """Upload what waits below a folder, oldest first.

    Where a server fails, later jobs of the same run wait as well. Where it takes no files, those of later jobs wait,
    since they replace the earlier ones'. A job that the server refuses holds up nothing.

    Args:
        spool: The folder.
        tracking_uri: Address of the store, in place of the recorded ones.
        runs: Receives the id of each run that something was uploaded to, and the address of its store.

    Yields:
        Each job's folder, and the error that kept it from being uploaded, or None.
    """
    failed: dict[str, Exception] = {}
    without_files: set[str] = set()
    for folder in list_pending(spool):
        error: Exception | None = None
        run_id = ""
        try:
            job = Job.load(folder)
            run_id = job.run_id
            error = failed.get(run_id)
            if error is None:
                found = upload(folder, tracking_uri, files_too=run_id not in without_files)
                if found and runs is not None:
                    runs[found] = tracking_uri or job.tracking_uri
        except Exception as failure:  # whatever a server or its client throws: the job stays in the spool
            if not os.path.lexists(folder / JOB_FILE):
                continue  # another process has uploaded it meanwhile
            error = failure
            if isinstance(failure, FilesLeftError):
                without_files.add(run_id)
            elif not _is_refusal(failure):
                failed[run_id] = failure
        yield folder, error


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, (FileError, RunGoneError)):
        return True
    return isinstance(error, MlflowException) and 400 <= error.get_http_status_code() < 500  # type: ignore[no-untyped-call]


def find_present_tags(client: MlflowClient, run_id: str, uri: str) -> dict[str, str]:
    """Look up the tags of a run that can be written.

    Raises:
        RunGoneError: The run is unknown or deleted.
        MlflowException: The server refused, or went away.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RunGoneError(f"there is no run {run_id} in {without_secret(uri)}; is it another store's?") from error
    if run.info.lifecycle_stage != "active":
        raise RunGoneError(f"run {run_id} is deleted; `mlflow runs restore --run-id {run_id}` brings it back")
    return dict(run.data.tags)


def _is_logged(client: MlflowClient, run_id: str, job: Job) -> bool:
    """Whether the run has these metrics: a logger logs all of a step at once, so one of them tells."""
    return any(
        found.step == step for key, _, _, step in job.metrics[:1] for found in client.get_metric_history(run_id, key)
    )


def _timestamp(folder: Path) -> float:
    try:
        return Job.load(folder).timestamp
    except FileError:
        return float("inf")


def _upload_files(client: MlflowClient, run_id: str, root: Path, files: list[Path]) -> None:
    """Upload and remove one file after the other, so that an interrupted upload goes on where it stopped."""
    for file in files:
        path = file.parent.relative_to(root).as_posix()
        with explain_failure(client.tracking_uri, file.relative_to(root).as_posix()):
            client.log_artifact(run_id, str(file), None if path == "." else path)
        file.unlink(missing_ok=True)


def _merge_tags(job: Job, present: dict[str, str]) -> dict[str, str]:
    """Merge ours into the tags that others write to as well: the list of tables, and the description."""
    merged = {}
    if job.tables:
        entries = _read_list(present.get(LOGGED_TABLES, "[]"))
        entries += [e for e in ({"path": table, "type": "table"} for table in job.tables) if e not in entries]
        merged[LOGGED_TABLES] = json.dumps(entries)
    if job.verdict:
        merged[DESCRIPTION] = with_verdict(present.get(DESCRIPTION, ""), job.verdict)
    return merged


def _read_list(text: str) -> list[Any]:
    """Read a tag that others write, too; of one that is no list, nothing can be kept."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _log_batches(client: MlflowClient, run_id: str, job: Job, tags: dict[str, str]) -> None:
    metrics = [Metric(*row) for row in job.metrics]
    params = [Param(key, value) for key, value in job.params.items()]
    run_tags = [RunTag(key, value) for key, value in tags.items()]
    while metrics or params or run_tags:
        batch: dict[str, Any] = {
            "metrics": metrics[: MOST_METRICS - 2 * MOST_TAGS],  # a request holds 1000 of all sorts together
            "params": params[:MOST_TAGS],
            "tags": run_tags[:MOST_TAGS],
        }
        client.log_batch(run_id, **batch, synchronous=True)
        metrics, params, run_tags = metrics[len(batch["metrics"]) :], params[MOST_TAGS:], run_tags[MOST_TAGS:]
