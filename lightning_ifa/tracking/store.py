"""Set MLflow's process-wide default store within a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow


@contextmanager
def default_store(uri: str | None) -> Iterator[None]:
    """Make a store MLflow's default within a block; None leaves the default alone.

    An SQL store looks up logged models through a client of its own, which knows the default store only: without
    this, registering or copying a version in any other store fails.
    """
    if uri is None:
        yield
        return
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: nothing was set
