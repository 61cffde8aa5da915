"""Render and upload jobs in the background: the training does not wait for the server, and nothing is lost."""

from __future__ import annotations

import atexit
import ctypes
import logging
import queue
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

from lightning_ifa.errors import IFAWarning
from lightning_ifa.tracking.failures import describe_failure
from lightning_ifa.tracking.job import HELD_FILE, JOB_FILE, folders_with, list_pending, replay
from lightning_ifa.tracking.names import without_secret

log = logging.getLogger(__name__)
Render = Callable[[Path], None]
LONGEST_QUEUE = 16
RETRY_AFTER = 60.0
LAST_CHANCE = 0.4
"""Seconds that the end of a training waits for a server that was never there."""
LAST_MOMENT = 1.0  # seconds that the end of the process waits for the rendering to stop


class Spool:
    """Renders analyses in one daemon thread and uploads them in another, so that a slow server delays no rendering.

    Every job is written to its own folder of the spool first and removed after its upload, so a failed upload,
    a killed process or a full queue leaves complete jobs behind that ``lightning-ifa sync`` uploads later. After
    a failure the server is left alone for a minute; jobs then only gather in the spool.

    Args:
        spool: Folder for the jobs of one run.
        tracking_uri: Address of the run's store; None where there is no run, then the folders are the result.
        when_complete: Function to call with the run's id in the store at the end, in the uploading thread, if
            everything is uploaded.
        is_offline: Whether nothing is to be uploaded; jobs then only gather in the spool.
        is_absent: Whether the training began without a server: its end does not wait long for one that never came.
    """

    def __init__(
        self,
        spool: Path,
        tracking_uri: str | None = None,
        when_complete: Callable[[str], None] | None = None,
        is_offline: bool = False,
        is_absent: bool = False,
    ) -> None:
        self.spool = spool
        self._uri = tracking_uri
        self._when_complete = when_complete
        self._is_offline, self._is_absent = is_offline, is_absent
        self._runs: dict[str, str] = {}
        self._arrived = self._waiting = 0
        self._jobs: queue.Queue[tuple[Path, Render] | None] = queue.Queue(LONGEST_QUEUE)
        self._held: Collection[str] = ()
        self._gone = self._latest_reason = ""
        self._written, self._complete = threading.Event(), False
        self._failures: list[str] = []  # of the threads; told at the end
        self._threads = [threading.Thread(target=self._render_all, name="lightning-ifa-render", daemon=True)]
        if tracking_uri is not None and not is_offline:
            self._threads.append(threading.Thread(target=self._send_all, name="lightning-ifa-upload", daemon=True))
        for thread in self._threads:
            thread.start()
        atexit.register(self._stop_rendering)

    def put(self, name: str, render: Render) -> None:
        """Hand over a job; returns at once unless the rendering is 16 jobs behind, then it is rendered here.

        Args:
            name: Name of the job's folder.
            render: Function that writes the files and, last, the job's description into the folder it is given.
        """
        folder = self.spool / name
        try:
            self._jobs.put_nowait((folder, render))
        except queue.Full:
            _render(folder, render)

    def announce(self) -> None:
        """Say that a job was written by somebody else."""
        self._written.set()

    def close(self, timeout: float, held: Collection[str] = ()) -> str:
        """Finish what waits, as far as the time allows, warn where the rest lies, and say what came of it.

        Args:
            timeout: Seconds to wait at most.
            held: Names of the jobs held back until now that are wanted; the others are removed.
        """
        deadline = time.monotonic() + timeout
        self._held = held
        try:
            self._jobs.put(None, timeout=timeout)
        except queue.Full:
            log.debug("the rendering thread is stuck")
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if self._is_absent and not self._arrived:
                deadline = min(deadline, time.monotonic() + LAST_CHANCE)
        if self._threads[0].is_alive():
            self._release(held)
        else:
            atexit.unregister(self._stop_rendering)
        left: list[Path] = []
        try:
            left = list(list_pending(self.spool))
        except OSError as error:
            self._failures.append(f"{type(error).__name__}: {error}")
        with suppress(OSError):
            self.spool.rmdir()  # which only an empty folder allows
        if self._failures:
            warnings.warn(
                f"the feature analysis could not do all that it wanted in {self.spool}: {self._failures[0]}",
                IFAWarning,
                stacklevel=2,
            )
        self._waiting = len(left)
        self._tell_what_waits(len(left))
        return self._summarize()

    def _summarize(self) -> str:
        """Say what arrived in the run and what waits where; nothing if there was nothing."""
        if self._uri is None or not (self._arrived or self._waiting):
            return ""
        runs = " and ".join(self._runs) or "its run"
        text = f"{self._arrived} uploads arrived in {runs} at {without_secret(self._uri)}"
        if not self._waiting:
            return text
        where = self.spool.parent
        reason = f" ({self._gone})" if self._gone else ""
        return f"{text}; {self._waiting} wait in {where} for `lightning-ifa sync {where}`{reason}"

    def _tell_what_waits(self, count: int) -> None:
        where = self.spool.parent
        if self._is_offline:
            log.warning("%d uploads to MLflow wait in %s; `lightning-ifa sync %s` makes them", count, where, where)
        elif count or any(thread.is_alive() for thread in self._threads):
            warnings.warn(
                f"{count} uploads to MLflow are left over and kept in {self.spool}; "
                f"`lightning-ifa sync {where}` makes up for them" + (f": {self._gone}" if self._gone else ""),
                IFAWarning,
                stacklevel=3,
            )

    def _stop_rendering(self) -> None:
        """End the rendering as the process ends: Python would end it amid a library's C++, which aborts the process."""
        thread = self._threads[0]
        if thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
            thread.join(LAST_MOMENT)

    def _render_all(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                _render(*job)
                self._written.set()
            self._release(self._held)
        except SystemExit:
            log.debug("the rendering was stopped")
        finally:
            self._complete = True
            self._written.set()

    def _release(self, names: Collection[str]) -> None:
        try:
            release(self.spool, names)
        except OSError as error:  # the folder may have become full, read-only or absent
            self._failures.append(f"{type(error).__name__}: {error}")
            log.warning("pictures that were held back stay in %s: %s", self.spool, error)

    def _send_all(self) -> None:
        not_before = 0.0
        while True:
            self._written.wait()
            self._written.clear()
            last = self._complete
            if last or time.monotonic() >= not_before:
                sent = self._send_pending()
                not_before = 0.0 if sent else time.monotonic() + RETRY_AFTER
                if last and sent and self._when_complete is not None:
                    for run_id in self._runs:
                        self._notify(partial(self._when_complete, run_id))
            if last:
                return

    def _send_pending(self) -> bool:
        """Upload what is written, and say whether all of it was uploaded."""
        complete, self._gone = True, ""
        try:
            for folder, error in replay(self.spool, self._uri, self._runs):
                if error is None:
                    self._arrived += 1
                elif complete:
                    complete = False
                    reason = describe_failure(error)
                    if reason != self._latest_reason:
                        log.warning("upload failed, %s waits on this disk and is tried again: %s", folder, reason)
                    self._gone = self._latest_reason = reason
                    log.debug("upload failed", exc_info=error)
        except Exception as error:  # the folder cannot be read; it may be readable again at the next attempt
            self._failures.append(f"{type(error).__name__}: {error}")
            log.warning("the folder of waiting uploads, %s, cannot be read: %s", self.spool, error)
            return False
        return complete

    def _notify(self, act: Callable[[], None]) -> None:
        """Do something that follows on an upload; the thread goes on whatever it throws."""
        try:
            act()
        except Exception as error:
            self._failures.append(describe_failure(error))
            log.warning("what follows on an upload failed: %s", describe_failure(error))
            log.debug("what follows on an upload failed", exc_info=error)


def release(spool: Path, names: Collection[str] | None = None) -> None:
    """Make jobs that were held back ready for upload.

    Args:
        spool: Folder of the jobs.
        names: Names of the jobs that are wanted, the others are removed; None for all.
    """
    for folder in folders_with(spool, HELD_FILE):
        if names is None or folder.name in names:
            (folder / HELD_FILE).replace(folder / JOB_FILE)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _render(folder: Path, render: Render) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOB_FILE).unlink(missing_ok=True)
        render(folder)
    except Exception as error:  # a picture must never stop a training
        log.warning("%s could not be made for the run: %s", folder.name, describe_failure(error))
        log.debug("could not be made", exc_info=error)
        shutil.rmtree(folder, ignore_errors=True)
