"""``mlflow.models.evaluate(..., evaluators="ifa")``. MLflow imports this module early: it must stay light and safe."""

from __future__ import annotations

import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.models.evaluation import EvaluationResult, ModelEvaluator

from lightning_ifa.errors import BatchError, OutputError, TrackingError
from lightning_ifa.options import AnalysisOptions, require_integer, require_known
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.tracking.weights import WEIGHTS_TAG

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


MODEL_TYPES = ("classifier", "image-classifier", "regressor")
OWN_KEYS = ("inputs", "train_loader", "batch_size")


class IFAEvaluator(ModelEvaluator):
    """Analyses the features of a PyTorch model on the rows of an evaluation data set.

    ``evaluator_config`` takes ``inputs``, a function from the feature columns (DataFrame or 2-D array, n rows) to
    the model's input, a float tensor ``(n, channels, *space)``; it is required, since MLflow's data are tables.
    ``train_loader`` adds the training side, ``batch_size`` is that of the analysis; every other key goes to
    ``lightning_ifa.analyze``.

    Example::

        mlflow.models.evaluate(
            "models:/leafnet/3", table, targets="label", model_type="classifier", evaluators="ifa",
            evaluator_config={"inputs": lambda rows: torch.stack([load(path) for path in rows["path"]])},
        )
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str | None, evaluator_config: dict[str, Any] | None, **_: Any) -> bool:
        """Only when asked for: MLflow offers every evaluation in the environment to every evaluator."""
        return model_type in MODEL_TYPES and callable((evaluator_config or {}).get("inputs"))

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Analyse, log the page and the overview to the run, and give the metrics back.

        Raises:
            OutputError: There is no PyTorch module behind the model.
            IFAError: The model or the data does not allow the analysis.
            ValueError: The configuration has an option that does not exist, or a wrong value of one.
        """
        from lightning_ifa.analysis import analyze

        config = evaluator_config or {}
        options = _analysis_options(config)
        report = analyze(_module(model), _loader(dataset, config), config.get("train_loader"), **options)
        client = MlflowClient()
        if model_id is not None:
            _note_weights(client, model_id, report.weights)
        if model_id is None:  # else MLflow logs what is returned, to the run and to the model
            now = int(time.time() * 1000)
            client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in report.metrics.items()])
        artifacts = _artifacts(client, run_id, report)
        return EvaluationResult(report.metrics, artifacts)  # type: ignore[no-untyped-call]


def _note_weights(client: MlflowClient, model_id: str, weights: str) -> None:
    """Note which weights the numbers belong to, where nobody did, so that the gate can tell.

    Raises:
        TrackingError: Numbers of other weights are attached to this model.
    """
    known = client.get_logged_model(model_id).tags.get(WEIGHTS_TAG)
    if known is None:
        client.set_logged_model_tags(model_id, {WEIGHTS_TAG: weights})
    elif known != weights:
        raise TrackingError(f"model {model_id} has other weights than its tag {WEIGHTS_TAG} says; log it anew")


def _analysis_options(config: dict[str, Any]) -> dict[str, Any]:
    """Take the options of ``analyze`` from the configuration; a wrong one is refused before any row is read."""
    known = [field.name for field in fields(AnalysisOptions)]
    require_known(config, [*OWN_KEYS, *known], "evaluator_config")
    require_integer("batch_size", config.get("batch_size", 1), 1)
    options = {key: value for key, value in config.items() if key in known}
    AnalysisOptions(**options)
    return options


def _module(model: Any) -> Any:
    from torch import nn

    raw = model.get_raw_model() if hasattr(model, "get_raw_model") else model
    if not isinstance(raw, nn.Module):
        raise OutputError(
            f"the model is a {type(raw).__name__}; feature analysis needs an MLflow model of flavor pytorch"
        )
    return raw


def _loader(dataset: Any, config: dict[str, Any]) -> DataLoader[Any]:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    inputs = config["inputs"](dataset.features_data)
    if not torch.is_tensor(inputs) or dataset.labels_data is None or len(inputs) != len(dataset.labels_data):
        raise BatchError(
            f"inputs returned {type(inputs).__name__}; expected a tensor with one entry for each of the data set's "
            "labelled rows, and targets= naming the label"
        )
    targets = torch.as_tensor(dataset.labels_data.copy())
    return DataLoader(TensorDataset(inputs, targets), batch_size=config.get("batch_size", 64))


def _artifacts(client: MlflowClient, run_id: str, report: FeatureReport) -> dict[str, Any]:
    from mlflow.models.evaluation.artifacts import ImageEvaluationArtifact
    from PIL import Image

    from lightning_ifa.report.figures.overview import overview
    from lightning_ifa.report.files import OVERVIEW_FILE, PAGE_FILE

    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / PAGE_FILE, Path(folder) / OVERVIEW_FILE
        report.to_html(page)
        overview(report).savefig(picture, dpi=110)
        client.log_artifacts(run_id, folder)
        uri = f"{client.get_run(run_id).info.artifact_uri}/{picture.name}"
        with Image.open(picture) as image:
            shown = image.copy()
    return {"ifa_overview": ImageEvaluationArtifact(uri, shown)}  # type: ignore[no-untyped-call]
