"""A checkpoint as MLflow's ``LoggedModel``: an output of its run, with the numbers of its own weights."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.models import Model, ModelSignature, infer_signature

from lightning_ifa.tracking.datasets import dataset_name
from lightning_ifa.tracking.description import DESCRIPTION
from lightning_ifa.tracking.offline_store import SPOOLED_AS
from lightning_ifa.tracking.store import default_store

if TYPE_CHECKING:
    from torch import nn

    from lightning_ifa.tracking.checkpoint import Record

MODEL_FILE = "MLmodel"
LARGEST_EXAMPLE = 1_000_000
"""Numbers of an input example; a larger one is left out, since MLflow writes it as text, and the signature stays."""


@dataclass(frozen=True)
class ModelParts:
    """What a logged model is made of, beside its files.

    Attributes:
        name: Name of the model.
        tags: Tags that tie it to the analysis, and its description.
        params: Layer, method, classes and channels.
        metrics: The metrics of its weights, by their keys.
        step: Step at which they were logged.
        dataset_digest: Digest of the validation data.
        timestamp: Time of the metrics, milliseconds.
    """

    name: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    dataset_digest: str = ""
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))

    @classmethod
    def of(cls, name: str, record: Record, verdict: str = "", **params: str) -> ModelParts:
        """Take the parts from the record of a checkpoint's own weights."""
        tags = record.tags | ({DESCRIPTION: verdict[:LONGEST_DESCRIPTION]} if verdict else {})
        known = {"layer": record.layer, "method": record.cam}
        return cls(name, tags, known | params, dict(record.metrics), record.step, record.dataset_digest)


LONGEST_DESCRIPTION = 8000
"""Characters of a tag."""


@dataclass(frozen=True)
class Example:
    """An input of a model and what the model makes of it.

    Attributes:
        inputs: A batch of one or more samples, as the model takes it.
        outputs: The model's output.
    """

    inputs: np.ndarray[Any, Any]
    outputs: np.ndarray[Any, Any]

    @property
    def signature(self) -> ModelSignature:
        """The forms of input and output; the number of samples is free."""
        return infer_signature(self.inputs, self.outputs)


def make_example(module: nn.Module, inputs: np.ndarray[Any, Any]) -> Example | None:
    """Ask a module on the CPU for the output of some inputs; None where that is no tensor.

    Random states stay as they are; whatever the module raises is passed on.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = module(torch.from_numpy(np.array(inputs)))
    return Example(inputs, outputs.numpy(force=True)) if torch.is_tensor(outputs) else None


def save_model(
    module: nn.Module, folder: Path, example: Example | None = None, pip_requirements: Sequence[str] | None = None
) -> None:
    """Save a module as the files of an MLflow model that does not know yet where it will be.

    Args:
        module: The module, on the CPU.
        folder: The folder to write; it must not exist yet, or be empty.
        example: An input and its output, for the signature.
        pip_requirements: Packages that are needed to load the model; by default MLflow finds out by loading it,
            which takes 10 s or more.
    """
    import mlflow.pytorch

    # Only a pickled module keeps its named layers, which a re-analysis needs; MLflow without the choice pickles.
    known = inspect.signature(mlflow.pytorch.save_model).parameters
    options: dict[str, Any] = {"serialization_format": "pickle"} if "serialization_format" in known else {}
    if example is not None:
        options["signature"] = example.signature
        if example.inputs.size <= LARGEST_EXAMPLE:
            options["input_example"] = example.inputs
    requirements = None if pip_requirements is None else list(pip_requirements)
    with _without_remarks():
        mlflow.pytorch.save_model(module, str(folder), pip_requirements=requirements, **options)


def find_requirements(module: nn.Module) -> list[str]:
    """Find the packages that a module's classes come from, with their versions, without loading the module anew."""
    owners = importlib.metadata.packages_distributions()
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    tops = {kind.__module__.partition(".")[0] for kind in kinds} | {"torch", "mlflow"}
    names = sorted({owners[top][0] for top in tops if owners.get(top)})
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def log_parts(client: MlflowClient, run_id: str, parts: ModelParts, folder: Path) -> LoggedModel:
    """Bring a model to its run; safe to interrupt and to repeat.

    Args:
        client: Client of the store.
        run_id: The run that the model comes from.
        parts: What the model is made of beside its files.
        folder: The model's files, as ``save_model`` writes them; its description is completed.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    with default_store(client.tracking_uri):
        logged = _find_begun(client, experiment_id, run_id, parts) or client.create_logged_model(
            experiment_id, parts.name, run_id, parts.tags, parts.params
        )
        try:
            client.log_batch(run_id, metrics=_metrics(parts, logged.model_id, run_id), synchronous=True)
            outputs = client.get_run(run_id).outputs
            if logged.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
                client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, parts.step)])
            _complete(folder / MODEL_FILE, logged, run_id)
            client.log_model_artifacts(logged.model_id, str(folder))
        except BaseException:
            if SPOOLED_AS not in parts.tags:  # else there will be another attempt
                client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        return client.finalize_logged_model(logged.model_id, "READY")


def name_attempt(parts: ModelParts, spooled: str) -> ModelParts:
    """Give a model the name of its job as a tag, by which a repeated upload finds what an earlier one began."""
    return replace(parts, tags=parts.tags | {SPOOLED_AS: spooled})


def _find_begun(client: MlflowClient, experiment_id: str, run_id: str, parts: ModelParts) -> LoggedModel | None:
    spooled = parts.tags.get(SPOOLED_AS)
    if spooled is None:
        return None
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    return next((model for model in found if model.tags.get(SPOOLED_AS) == spooled), None)


def _complete(file: Path, logged: LoggedModel, run_id: str) -> None:
    """Tell a model's files which model they are."""
    about = Model.load(str(file))
    about.artifact_path, about.model_id, about.model_uuid = logged.artifact_location, logged.model_id, logged.model_id
    about.run_id = run_id
    about.save(str(file))


def _metrics(parts: ModelParts, model_id: str, run_id: str) -> list[Metric]:
    about = {
        "model_id": model_id,
        "dataset_name": dataset_name("validation"),
        "dataset_digest": parts.dataset_digest,
        "run_id": run_id,
    }
    return [Metric(key, value, parts.timestamp, parts.step, **about) for key, value in parts.metrics.items()]


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep MLflow's remarks on pickled modules from a training that asked for none of its choices."""
    remarks = logging.getLogger("mlflow.pytorch")
    before = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        remarks.setLevel(before)
