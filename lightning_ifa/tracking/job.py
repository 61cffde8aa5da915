"""A job: one analysis on disk, complete in its folder, that can be uploaded now or later."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow.entities import RunTag
from PIL import Image

from lightning_ifa.errors import FileError
from lightning_ifa.tracking.names import without_secret
from lightning_ifa.tracking.run import Run

JOB_FILE = "job.json"
ARTIFACTS = "artifacts"
LOGGED_TABLES = "mlflow.loggedArtifacts"


@dataclass
class Job:
    """What belongs in one run after one analysis.

    Attributes:
        run_id: The run.
        tracking_uri: Its store, without credentials.
        step: The step of the images.
        images: File in the folder to image key.
        tables: Root-level JSON tables that the UI should list.
        tags: Run tags.
        timestamp: Of the analysis, milliseconds.
        done: How many images are uploaded, so that an interrupted upload goes on where it stopped.
    """

    run_id: str
    tracking_uri: str
    step: int
    images: dict[str, str] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))
    done: int = 0

    def save(self, folder: Path) -> None:
        """Write the description; a folder with one is complete."""
        partial = folder / (JOB_FILE + ".part")
        partial.write_text(json.dumps(asdict(self) | {"tracking_uri": without_secret(self.tracking_uri)}))
        partial.replace(folder / JOB_FILE)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read a folder's description.

        Raises:
            FileError: It has none, or a damaged one.
        """
        try:
            return cls(**json.loads((folder / JOB_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FileError(f"{folder} holds no complete analysis to upload: {error}") from error


def pending(spool: Path) -> Iterator[Path]:
    """Folders of complete jobs that wait below a spool folder, oldest first."""
    found = [path.parent for path in spool.rglob(JOB_FILE)]
    return iter(sorted(found, key=lambda folder: (folder / JOB_FILE).stat().st_mtime))


def upload(folder: Path, tracking_uri: str | None = None) -> None:
    """Upload a job and remove its folder; safe to interrupt and to repeat.

    Args:
        folder: The job's folder.
        tracking_uri: Store to use instead of the recorded one, which carries no credentials.

    Raises:
        FileError: The folder holds no complete job.
        MlflowException: The server refused, or was not reached; the folder stays.
    """
    job = Job.load(folder)
    client = Run(job.run_id, tracking_uri or job.tracking_uri).client()
    if (folder / ARTIFACTS).is_dir():
        client.log_artifacts(job.run_id, str(folder / ARTIFACTS))
    for number, (file, key) in enumerate(job.images.items()):
        if number < job.done:
            continue
        with Image.open(folder / file) as image:
            client.log_image(job.run_id, image, key=key, step=job.step, timestamp=job.timestamp, synchronous=True)
        job.done = number + 1
        job.save(folder)
    tags = dict(job.tags)
    if job.tables:
        listed = json.loads(client.get_run(job.run_id).data.tags.get(LOGGED_TABLES, "[]"))
        listed += [e for e in ({"path": table, "type": "table"} for table in job.tables) if e not in listed]
        tags[LOGGED_TABLES] = json.dumps(listed)
    client.log_batch(job.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    shutil.rmtree(folder)
