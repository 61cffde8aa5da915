"""Analyse a registered model anew in a process of its own, which may fail, hang or lie without moving an alias.

The process has none of this one's environment but the paths that Python needs, an empty home, and bounded time and
memory. Where ``unshare`` works (Linux with user namespaces) it has no network either and sees no other process.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING

from lightning_ifa.errors import IFAWarning, UndecidableError

if TYPE_CHECKING:
    from lightning_ifa.offline.measurement import Measurement

MEMORY_SHARE = 0.75
"""Share of the machine's memory that an analysis may map."""

KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TZ", "SYSTEMROOT")
"""Environment variables that the analysis is given; none of them is a secret."""

NAMESPACES = ("unshare", "-r", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")


def run_isolated(files: str, data: str, model: str | None, longest: float) -> Measurement:
    """Analyse the model in a folder in a process of its own.

    Raises:
        UndecidableError: It took too long, ended otherwise than well, or answered anything but a measurement.
    """
    from lightning_ifa.offline.measurement import parse_measurement

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        request = json.dumps({"files": files, "data": data, "model": model, "memory": _memory(), "cwd": os.getcwd()})
        command = [*_isolation(), sys.executable, "-m", "lightning_ifa.offline.measure", request]
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            command,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            answer = _read(process, time.monotonic() + longest, longest)
        finally:
            _end(process)
    return parse_measurement(answer, process.returncode)


@cache
def _isolation() -> tuple[str, ...]:
    """Give the command that takes network and other processes away; empty where the system does not allow it."""
    if shutil.which(NAMESPACES[0]):
        try:
            tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=30)  # noqa: S603
            if tried.returncode == 0:
                return NAMESPACES
        except (OSError, subprocess.SubprocessError):
            pass
    warnings.warn(
        "this system allows no process without network (unshare); run the gate in a container that has none",
        IFAWarning,
        stacklevel=2,
    )
    return ()


def _environment(home: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = {"HOME": home, "TMPDIR": home, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return kept | own | {"CUDA_VISIBLE_DEVICES": "", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _memory() -> int:
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return 0
    return int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _read(process: subprocess.Popen[bytes], deadline: float, longest: float) -> bytes:
    """Read what the process writes, as long as it is of bounded length and comes in time, and wait for its end."""
    from lightning_ifa.offline.measurement import LONGEST

    assert process.stdout is not None
    answer, late = b"", UndecidableError(f"the new analysis did not end within {longest:g} s")
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                raise late
            part = os.read(process.stdout.fileno(), 65536)
            answer += part
            if len(answer) > LONGEST:
                raise UndecidableError(f"the new analysis wrote more than {LONGEST:,} bytes")
            if not part:
                break
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise late from None
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, and all that it started in its session."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    else:
        process.kill()
    if process.stdout is not None:
        process.stdout.close()
    process.wait()
