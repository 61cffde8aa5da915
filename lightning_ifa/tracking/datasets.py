"""The analysed samples as MLflow data sets: the inputs of a run, by which runs and models can be searched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.entities import Dataset as Described
from mlflow.entities import DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_SOURCE_NAME

if TYPE_CHECKING:
    from lightning_ifa.data.feature_table import FeatureTable
    from lightning_ifa.report.result import AnalysisResult

CONTEXTS = {"train": "training", "validation": "validation"}
"""Split to the context that MLflow knows it by; also the data set's name."""


class AnalyzedDataset(Dataset):
    """The samples of one split that an analysis saw.

    Args:
        split: ``"train"`` or ``"validation"``.
        table: The samples.
        class_names: The name of each class.
        source: What the samples come from, as the class of the user's data set.
        prefix: Prefix of a further validation loader, for the name; empty for the first.
    """

    def __init__(
        self, split: str, table: FeatureTable, class_names: Sequence[str], source: str, prefix: str = ""
    ) -> None:
        self._profile = _count(table, class_names)
        name = dataset_name(split, prefix)
        super().__init__(CodeDatasetSource({MLFLOW_SOURCE_NAME: source}), name, table.digest)

    def _compute_digest(self) -> str:
        return self._digest

    @property
    def profile(self) -> dict[str, Any]:
        """How many samples there are, in all and of each class."""
        return self._profile

    @property
    def schema(self) -> None:
        """None: a data set of a training is no table."""
        return None

    def to_dict(self) -> dict[str, str]:
        """Convert to text, as MLflow keeps a data set."""
        return super().to_dict() | {"profile": json.dumps(self._profile)}


def dataset_name(split: str, prefix: str = "") -> str:
    """Name the data set of a split.

    >>> dataset_name("train"), dataset_name("validation", "dataloader_1")
    ('training', 'validation/dataloader_1')
    """
    return "/".join(filter(None, (CONTEXTS.get(split, split), prefix)))


def describe_inputs(report: AnalysisResult, sources: Mapping[str, str], prefix: str = "") -> list[dict[str, str]]:
    """Describe the splits of a report as a job keeps them.

    Args:
        report: The report.
        sources: Split to what its samples come from.
        prefix: Prefix of a further validation loader; its training samples are those of the first.

    Returns:
        A mapping of text for each split: name, digest, source, its type, profile, and ``context``.
    """
    return [
        AnalyzedDataset(split, table, report.class_names, sources.get(split, "unknown"), prefix).to_dict()
        | {"context": CONTEXTS[split]}
        for split, table in report.tables.items()
        if split in CONTEXTS and not (prefix and split == "train")
    ]


def log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[Mapping[str, str]]) -> None:
    """Make data sets the inputs of a run, in one request; those that it has already stay as they are."""
    found = [
        DatasetInput(
            Described(each["name"], each["digest"], each["source_type"], each["source"], profile=each.get("profile")),
            [InputTag(MLFLOW_DATASET_CONTEXT, each["context"])],
        )
        for each in inputs
    ]
    client.log_inputs(run_id, found)


def name_source(dataset: Any) -> str:
    """Name what a data set's samples come from: its class, behind all subsets of it.

    >>> from torch.utils.data import Subset, TensorDataset
    >>> name_source(Subset(TensorDataset(), [0]))
    'torch.utils.data.dataset.TensorDataset'
    """
    while (inner := getattr(dataset, "dataset", None)) is not None:
        dataset = inner
    kind = type(dataset)
    return f"{kind.__module__}.{kind.__qualname__}"


def _count(table: FeatureTable, class_names: Sequence[str]) -> dict[str, Any]:
    targets = np.asarray(table.targets)
    profile: dict[str, Any] = {"samples": len(table)}
    if targets.dtype.kind == "f":
        known = targets[np.isfinite(targets)]
        spread = {"smallest": known.min(), "mean": known.mean(), "largest": known.max()} if known.size else {}
        return profile | {"target": {name: float(value) for name, value in spread.items()}}
    counts = np.bincount(targets[targets >= 0])
    named = {class_names[i] if i < len(class_names) else str(i): int(n) for i, n in enumerate(counts)}
    return profile | {"classes": {name: n for name, n in named.items() if n}}
