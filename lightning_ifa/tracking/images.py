"""Images with a step slider, laid out as files, so that an upload can be repeated without a second copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image

LOGGED_IMAGES = {"mlflow.loggedImages": "True"}
"""Run tag without which MLflow's pages do not look for images."""


def write_image(folder: Path, image: Image.Image, key: str, step: int, timestamp: int) -> None:
    """Write what ``MlflowClient.log_image`` would upload: the image and its thumbnail, under MLflow's own names.

    Args:
        folder: Folder that stands for the run's artifacts.
        image: The image.
        key: Key of the image card; letters, digits and ``_-./``.
        step: Step of the card's slider.
        timestamp: Time of the image, milliseconds.
    """
    _Folder(folder).log_image("", image, key=key, step=step, timestamp=timestamp, synchronous=True)


class _Folder(MlflowClient):
    """MLflow's client with a folder in place of a run, so that MLflow itself names the image files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def _log_artifact_helper(self, run_id: str, artifact_file: str) -> Iterator[str]:
        path = self._folder / artifact_file
        path.parent.mkdir(parents=True, exist_ok=True)
        yield str(path)

    def set_tag(self, *args: Any, **options: Any) -> None:
        """Leave the tag to the job."""
