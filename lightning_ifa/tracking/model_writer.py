"""Lay a checkpoint out as the job that makes it a model of its MLflow run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from lightning_ifa.errors import FileError
from lightning_ifa.report.files import SUMMARY_FILE
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.tracking.checkpoint import belongs_to, load_weights, read_checkpoint, require_record
from lightning_ifa.tracking.job import MODEL, Job, begin
from lightning_ifa.tracking.logged_models import Example, ModelParts, find_requirements, name_attempt, save_model
from lightning_ifa.tracking.run import Run

if TYPE_CHECKING:
    from torch import nn

BEST_TAG = "ifa.best"


@dataclass(frozen=True)
class AboutWeights:
    """What an analysis says of its weights beside the metrics.

    Attributes:
        verdict: The verdict in words, as Markdown.
        params: Number of classes and of channels.
    """

    verdict: str = ""
    params: dict[str, str] = field(default_factory=dict)


def describe_weights(report: AnalysisResult, files: Path) -> AboutWeights:
    """Take from a report, and from its files in a folder, what a model of these weights is described by."""
    summary = files / SUMMARY_FILE
    verdict = summary.read_text(encoding="utf-8") if summary.exists() else ""
    channels = report.tables["validation"].contributions.shape[1]
    return AboutWeights(verdict, {"classes": str(len(report.class_names)), "channels": str(channels)})


class ModelWriter:
    """Writes checkpoints of one network as jobs, one after the other.

    Args:
        run: The run that the models come from.
        network: A module of the checkpoints' architecture, on the CPU; its weights are replaced.
        example: An input and its output, for the signature.
        about: Digest of weights to what their analysis said.
    """

    def __init__(
        self, run: Run, network: nn.Module, example: Example | None, about: Mapping[str, AboutWeights]
    ) -> None:
        self._run, self._network, self._example, self._about = run, network, example, about
        self._lock = Lock()  # the network serves all checkpoints

    def write(self, checkpoint: Path, folder: Path, is_best: bool) -> None:
        """Write the job of a checkpoint.

        Raises:
            FileError: The file is no checkpoint, or there is no analysis of its weights.
        """
        content = read_checkpoint(checkpoint)
        record = require_record(content, checkpoint)
        about = self._about.get(record.weights, AboutWeights())
        begin(folder)
        with self._lock:
            load_weights(self._network, content, checkpoint)
            if not belongs_to(record, self._network.state_dict()):
                raise FileError(f"the network changes the weights of {checkpoint} as it loads them")
            save_model(self._network, folder / MODEL, self._example, find_requirements(self._network))
        parts = ModelParts.of(re.sub(r"[^\w-]+", "_", checkpoint.stem), record, about.verdict, **about.params)
        parts = replace(parts, tags=parts.tags | ({BEST_TAG: "True"} if is_best else {}))
        Job.of(self._run, model=name_attempt(parts, f"{self._run.run_id}/{folder.name}")).save(folder)
