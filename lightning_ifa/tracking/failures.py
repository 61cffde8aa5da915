"""Say why a store did not take something: which store, which path and status, and what would help."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_TRACKING_INSECURE_TLS,
    MLFLOW_TRACKING_SERVER_CERT_PATH,
)
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import FilesLeftError, IFAError, TrackingError
from lightning_ifa.text import shorten
from lightning_ifa.tracking.names import hide_secrets, is_server, without_secret

ANSWERS_WITHIN = 10.0
"""Seconds to wait for any answer at all, where MLflow's own time-out is not shorter."""

LONGEST_REASON = 200

_GONE = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
_READ_ONLY = "the artifact root cannot be written; give the server's or your own account the right to"
_FULL = "the disk of the artifact root is full; free some space"
_BY_STATUS = {
    401: "the server does not know you; see MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN",
    403: "you may not write there; ask for the right to edit the experiment",
    404: "there is no such address; see the experiment's artifact location",
    413: "the file is larger than a proxy before the server allows; raise its limit, as client_max_body_size of nginx",
    500: "the server could not store it, as where its artifact root is read-only or full; its log says why",
    507: _FULL,
}
_BY_ERRNO = {
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


@contextmanager
def explain_failure(uri: str, path: str) -> Iterator[None]:
    """Turn what a store throws at a file into a sentence.

    Args:
        uri: Address of the store; what it holds of credentials is left out.
        path: Path of the file in its run, for the sentence.

    Raises:
        FilesLeftError: The store did not take the file; one that went away raises what it did.
    """
    try:
        yield
    except (IFAError, *_GONE):
        raise
    except Exception as error:  # whatever a store or its client throws
        raise FilesLeftError(f"{without_secret(uri)} did not take {path}: {describe_failure(error)}") from error


def describe_failure(error: Exception) -> str:
    """Say what an error of a store was, by its status or its system's number, and what would help; never a password.

    >>> describe_failure(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device; the disk of the artifact root is full; free some space'
    """
    return hide_secrets(_describe(error))


def _describe(error: Exception) -> str:
    response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        said = f"{response.status_code} {response.reason or ''}".strip()
        return f"{said}; {_advise(response.status_code)}"
    gone = next((each for each in (error, error.__cause__, error.__context__) if isinstance(each, _GONE)), None)
    if gone is not None and not isinstance(error, IFAError):  # MLflow wraps them, as if the server had said 500
        return f"the server went away ({type(gone).__name__})"
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return f"{status} {shorten(error.message.strip(), LONGEST_REASON)}; {_advise(status)}"
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return f"{error.strerror}; {_BY_ERRNO[error.errno]}"
    if isinstance(error, IFAError):
        return str(error)
    return f"{type(error).__name__}: {shorten(str(error), LONGEST_REASON)}"


def _advise(status: int) -> str:
    return _BY_STATUS.get(status, _BY_STATUS[500] if status >= 500 else "it will not take it another time either")


def require_answer(uri: str, within: float | None = None) -> None:
    """Ask a server for any answer at all; MLflow's own client tries a dead one for four minutes.

    Args:
        uri: Address of the store; only a server is asked.
        within: Seconds to wait; by default 10, or MLflow's own time-out if that is shorter.

    Raises:
        TrackingError: The server gave none.
    """
    if not is_server(uri):
        return
    shortest = MLFLOW_HTTP_REQUEST_TIMEOUT.get()  # type: ignore[no-untyped-call]
    patience = within or min(ANSWERS_WITHIN, float(shortest or ANSWERS_WITHIN))
    try:
        ask(uri, "/health", patience)
    except requests.RequestException as error:
        raise TrackingError(f"{without_secret(uri)} does not answer: {type(error).__name__}") from None


def ask(uri: str, path: str, patience: float) -> requests.Response:
    """Ask a server beside MLflow's client, and trust its certificate as far as MLflow's variables say.

    Args:
        uri: Address of the server.
        path: What is asked for.
        patience: Seconds to wait.

    Raises:
        requests.RequestException: It gave no answer.
    """
    certificate, insecure = MLFLOW_TRACKING_SERVER_CERT_PATH, MLFLOW_TRACKING_INSECURE_TLS
    verify = certificate.get() or not insecure.get()  # type: ignore[no-untyped-call]
    return requests.get(uri.rstrip("/") + path, timeout=patience, verify=verify)
