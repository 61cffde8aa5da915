"""Keep the analysis of a checkpoint's own weights in the checkpoint, as plain Python values only.

Anything else, be it a NumPy float or a path, would keep the user's checkpoint from loading with ``weights_only=True``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ifa.data.untrusted_files import file_errors
from lightning_ifa.errors import FileError
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.tracking.weights import WEIGHTS_TAG
from lightning_ifa.version import __version__

if TYPE_CHECKING:
    from torch import nn


KEY = "lightning_ifa"

HOW_TO_ANALYZE = "`lightning-ifa analyze --checkpoint FILE --config FILE --output FOLDER` analyses it"
"""The way to a record for a checkpoint without one."""


@dataclass(frozen=True)
class Moment:
    """Epoch and step of an analysis.

    Attributes:
        epoch: Epoch from 0; the step of images, since epochs compare between runs of different batch sizes.
        step: Step at which Lightning logs the metrics of the same analysis.
    """

    epoch: int
    step: int


@dataclass(frozen=True)
class Record:
    """One analysis, as it is stored in the checkpoint of the weights that were analysed.

    Attributes:
        run_id: Id of the run that it was logged to, or None.
        step: Step at which its metrics were logged.
        dataset_digest: Digest of the validation data.
        layer: Name of the target layer.
        cam: Name of the CAM method.
        metrics: The metrics, as in ``FeatureReport.metrics``.
        weights: Digest of the weights that were analysed.
        version: Version of this package.
    """

    run_id: str | None
    step: int
    dataset_digest: str
    layer: str
    cam: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""
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
            WEIGHTS_TAG: self.weights,
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for the checkpoint."""
        return asdict(self)


def record(report: AnalysisResult, step: int, run_id: str | None) -> Record:
    """Make the record of a report."""
    validation = report.tables["validation"]
    return Record(run_id, step, report.digest, validation.layer, validation.cam, report.metrics, report.weights)


def put_record(checkpoint: dict[str, Any], found: Record, place: str = "") -> bool:
    """Put a record into a checkpoint, if it holds the weights that were analysed.

    Args:
        checkpoint: Content of the checkpoint, complete.
        found: The record.
        place: Where the analysis stands in its run: nothing, or the name of a further layer.

    Returns:
        Whether the record was put in.
    """
    belongs = belongs_to(found, checkpoint.get("state_dict", {}))
    if belongs:
        checkpoint["/".join(filter(None, (KEY, place)))] = found.to_dict()
    return belongs


def belongs_to(found: Record, state: Mapping[str, Any]) -> bool:
    """Whether a record speaks of these weights, a state dict."""
    from lightning_ifa.model.weights_digest import digest_weights

    try:
        return bool(found.weights) and digest_weights(state) == found.weights
    except TypeError:
        return False


def own_record(checkpoint: Mapping[str, Any]) -> Record | None:
    """Read a checkpoint's record; None if it has none, or one of other weights than its own."""
    try:
        found = Record(**checkpoint[KEY])
    except (KeyError, TypeError):
        return None
    return found if belongs_to(found, checkpoint.get("state_dict", {})) else None


def require_record(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> Record:
    """Read the record of a Lightning checkpoint's own weights.

    Raises:
        FileError: It is no such checkpoint, or its weights were never analysed.
    """
    if "state_dict" not in checkpoint:
        raise FileError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    found = own_record(checkpoint)
    if found is None:
        which = "whose record speaks of other weights" if KEY in checkpoint else "without a record"
        raise FileError(
            f"{path} holds no feature analysis of its own weights: it is a checkpoint {which}, since it was not saved "
            f"at a validation that IntegratedFeatureAnalysis analysed. {HOW_TO_ANALYZE}, for log_model(report=FOLDER)"
        )
    return found


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Record]:
    """Read the state dict of a Lightning checkpoint, on the CPU, and its record; nothing is unpickled.

    Raises:
        FileError: The file is no such checkpoint, or its weights were never analysed.
    """
    content = read_checkpoint(path)
    found = require_record(content, path)
    return content["state_dict"], found


def moment_of(checkpoint: Mapping[str, Any]) -> Moment | None:
    """Give the epoch that a checkpoint's weights come from, and the step under which their metrics were logged.

    The step of the recorded analysis if there is one. Else Lightning's own counter, which is one ahead in checkpoints
    saved after the epoch's end.
    """
    if not {"epoch", "global_step"} <= set(checkpoint):
        return None
    before = max(int(checkpoint["global_step"]) - 1, 0)
    loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.state_dict", {})
    step = min(int(loop.get("_batches_that_stepped", before)), before)
    found = own_record(checkpoint)
    return Moment(int(checkpoint["epoch"]), found.step if found else step)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint or a saved state dict; nothing is unpickled.

    Raises:
        FileError: The file is neither, or holds other objects than plain values and tensors.
    """
    import torch

    with file_errors(Path(path), "a Lightning checkpoint of plain values and tensors"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise FileError(f"{path} is not a Lightning checkpoint or state dict; it holds a {type(content).__name__}")
    return dict(content)


def load_weights(module: nn.Module, content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Load the weights that ``read_checkpoint`` read into a module.

    Args:
        module: The module.
        content: Content of a Lightning checkpoint, or a bare state dict.
        path: Path of the file, for the error.

    Raises:
        FileError: The weights do not fit the module.
    """
    try:
        module.load_state_dict(content.get("state_dict", content))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FileError(f"the weights of {path} do not fit {type(module).__name__}: {error}") from error
