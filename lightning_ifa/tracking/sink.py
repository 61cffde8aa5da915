"""The background sink: whatever the tracking server does, training does not notice and nothing is lost."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from lightning_ifa.errors import IFAWarning
from lightning_ifa.tracking.job import JOB_FILE, pending, upload

log = logging.getLogger(__name__)

Render = Callable[[Path], None]

LONGEST_QUEUE = 8
RETRY_AFTER = 60.0


class Sink:
    """Renders and uploads analyses in one daemon thread.

    Every job is written to its own folder of the spool first and removed after its upload, so a failed upload,
    a killed process or a full queue leaves complete jobs behind that ``lightning-ifa sync`` uploads later. After
    a failure the server is left alone for a minute; jobs then only gather in the spool.

    Args:
        spool: Folder for the jobs of one run.
        tracking_uri: The run's store; None where there is no run, then the folders are the result.
    """

    def __init__(self, spool: Path, tracking_uri: str | None = None) -> None:
        self.spool = spool
        self._uri = tracking_uri
        self._jobs: queue.Queue[tuple[Path, Render] | None] = queue.Queue(LONGEST_QUEUE)
        self._closed_until = 0.0
        self._thread = threading.Thread(target=self._work, name="lightning-ifa-sink", daemon=True)
        self._thread.start()

    def put(self, name: str, render: Render) -> None:
        """Hand over a job; returns at once unless the thread is eight jobs behind, then it is rendered here.

        Args:
            name: Of the job's folder.
            render: Writes the files and, last, the job's description into the folder it is given.
        """
        folder = self.spool / name
        try:
            self._jobs.put_nowait((folder, render))
        except queue.Full:
            _render(folder, render)

    def close(self, timeout: float) -> None:
        """Finish what waits, as far as the time allows, and say where the rest lies.

        Args:
            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        while self._thread.is_alive():
            try:
                self._jobs.put(None, timeout=0.1)
                break
            except queue.Full:
                if time.monotonic() > deadline:
                    break
        self._thread.join(max(0.0, deadline - time.monotonic()))
        left = list(pending(self.spool))
        if self.spool.is_dir() and not any(self.spool.iterdir()):
            self.spool.rmdir()
        if left or self._thread.is_alive():
            warnings.warn(
                f"{len(left)} analyses could not be uploaded to MLflow and are kept in {self.spool}; "
                f"`lightning-ifa sync {self.spool}` uploads them",
                IFAWarning,
                stacklevel=2,
            )

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            _render(*job)
            if time.monotonic() >= self._closed_until:
                self._upload_all()
        self._upload_all()

    def _upload_all(self) -> None:
        try:
            for folder in pending(self.spool):
                upload(folder, self._uri)
        except Exception as error:  # whatever a server or its client throws: the job stays in the spool
            log.warning("upload failed, the analysis stays in %s: %s", self.spool, type(error).__name__)
            log.debug("upload failed", exc_info=True)
            self._closed_until = time.monotonic() + RETRY_AFTER


def _render(folder: Path, render: Render) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOB_FILE).unlink(missing_ok=True)
        render(folder)
    except Exception:  # a picture must never stop a training
        log.warning("the pictures of %s could not be made", folder.name, exc_info=True)
        shutil.rmtree(folder, ignore_errors=True)
