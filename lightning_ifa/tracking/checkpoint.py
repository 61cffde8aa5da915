"""What a Lightning checkpoint remembers of the analysis of its own weights. Plain Python values only.

Anything else, be it a NumPy float or a path, would keep the user's checkpoint from loading with ``weights_only=True``.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_ifa import __version__
from lightning_ifa.errors import FileError
from lightning_ifa.report.result import AnalysisResult

if TYPE_CHECKING:
    from torch import nn


KEY = "lightning_ifa"


@dataclass(frozen=True)
class Moment:
    """When an analysis was made.

    Attributes:
        epoch: Zero-based; the step of images, since epochs compare between runs of different batch sizes.
        step: At which Lightning logs the same analysis' metrics.
    """

    epoch: int
    step: int


@dataclass(frozen=True)
class Record:
    """One analysis, as it is stored in the checkpoint of the weights that were analysed.

    Attributes:
        run_id: The run it was logged to, or None.
        step: At which its metrics were logged.
        dataset_digest: Of the validation data.
        layer: Target layer.
        cam: CAM method.
        metrics: As in ``FeatureReport.metrics``.
        version: Of this package.
    """

    run_id: str | None
    step: int
    dataset_digest: str
    layer: str
    cam: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    @property
    def tags(self) -> dict[str, str]:
        """Tags that tie a logged model to the analysis."""
        return {
            "ifa.version": self.version,
            "ifa.layer": self.layer,
            "ifa.cam": self.cam,
            "ifa.step": str(self.step),
            "ifa.dataset_digest": self.dataset_digest,
        }

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for the checkpoint."""
        return asdict(self)


def record(report: AnalysisResult, step: int, run_id: str | None) -> Record:
    """Make the record of a report."""
    validation = report.tables["validation"]
    return Record(run_id, step, report.digest, validation.layer, validation.cam, report.metrics)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Record]:
    """Read the weights of a Lightning checkpoint and the record of their analysis; nothing is unpickled.

    Args:
        path: The checkpoint.

    Returns:
        The state dict on the CPU, and the record.

    Raises:
        FileError: The file is no such checkpoint, or its weights were never analysed.
    """
    content = read_checkpoint(path)
    if "state_dict" not in content:
        raise FileError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    if KEY not in content:
        raise FileError(
            f"{path} holds no feature analysis of its own weights: IntegratedFeatureAnalysis must be among the "
            "trainer's callbacks, and the checkpoint be saved at a validation that it analysed"
        )
    return content["state_dict"], Record(**content[KEY])


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint or a saved state dict; nothing is unpickled.

    Raises:
        FileError: The file is neither, or holds other objects than plain values and tensors.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise FileError(f"{path} is not a Lightning checkpoint of plain values and tensors: {error}") from error
    if not isinstance(content, Mapping):
        raise FileError(f"{path} is not a Lightning checkpoint or state dict; it holds a {type(content).__name__}")
    return dict(content)


def load_weights(module: nn.Module, content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Put the weights of what ``read_checkpoint`` gave into a module.

    Args:
        module: Receives them.
        content: A Lightning checkpoint, or a bare state dict.
        path: Named in the error.

    Raises:
        FileError: They do not fit.
    """
    try:
        module.load_state_dict(content.get("state_dict", content))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FileError(f"the weights of {path} do not fit {type(module).__name__}: {error}") from error
