"""Find out which loggers beside MLflow's take images, by the methods that they offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

Show = Callable[[str, Image.Image, int], None]
"""Takes the name of an image, the image, and the step."""


@runtime_checkable
class TakesImages(Protocol):
    """A logger such as Lightning's ``WandbLogger``."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Log images under one name."""


@runtime_checkable
class TakesArrays(Protocol):
    """The ``experiment`` of a logger such as Lightning's ``TensorBoardLogger``."""

    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None, *, dataformats: str = "CHW") -> None:
        """Log an array as an image."""


def image_methods(loggers: Iterable[Any]) -> list[Show]:
    """Find a way to log an image in each of the trainer's loggers that has one."""
    return [show for logger in loggers if (show := _image_method(logger)) is not None]


def _image_method(logger: Any) -> Show | None:
    if hasattr(logger, "offered_by_no_logger"):  # Lightning's dummy, which answers to every name
        return None
    if isinstance(logger, TakesImages):
        return lambda name, image, step: logger.log_image(name, [image], step)
    experiment = getattr(logger, "experiment", None)
    if isinstance(experiment, TakesArrays):
        return lambda name, image, step: experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
    return None
