"""Finds the metrics of the very checkpoint that was registered, never the latest ones of its run."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import FileError, UndecidableError
from lightning_ifa.tracking.weights import WEIGHTS_TAG, digest_model

STEP_TAG, DIGEST_TAG = "ifa.step", "ifa.dataset_digest"
CONDITIONS = {"layer": "ifa.layer", "method": "ifa.cam", "version": "ifa.version"}
"""What must be the same where two models are compared, and the tag of the logged model that tells it."""
ADVICE = "register it with lightning_ifa.log_model, or let the gate re-analyse it (--recompute)"


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of one model version, and what they were measured on.

    Attributes:
        subject: The registered version and the logged model behind it.
        model: Identity of the weights: the logged model's id, else the version's source.
        metrics: MLflow key to value; whatever could not be attributed without doubt is left out.
        dataset_digest: Digest of the validation data, or None if it was not recorded.
        step: Training step, or None.
        origin: Source of the numbers, in words.
        problem: Why numbers are missing, in words; empty if none are.
        conditions: Layer, method and version of the analysis, as far as they are known; see ``CONDITIONS``.
        obstacle: Why this version must not be promoted whatever its numbers, in words; empty if it may.
    """

    subject: str
    model: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    dataset_digest: str | None = None
    step: int | None = None
    origin: str = "nowhere"
    problem: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    obstacle: str = ""


def find_version(client: MlflowClient, uri: str) -> ModelVersion:
    """Look up ``models:/NAME/VERSION``.

    Raises:
        UndecidableError: The URI has another form.
        MlflowException: There is no such version, or no server.
    """
    found = re.fullmatch(r"models:/([^/:]+)/([0-9]{1,18})", uri)
    if not found:
        raise UndecidableError(f"{uri!r} is no model version; expected models:/NAME/VERSION, as in models:/leafnet/3")
    return client.get_model_version(*found.groups())


def find_model_metrics(
    client: MlflowClient, version: ModelVersion, keys: Collection[str], digest: str | None = None
) -> ModelMetrics:
    """Find the metrics of a version.

    Metrics attached to the logged model together with a data set come first. Then those at the step that the
    logged model is known to stem from: attached ones, else the history of its run.

    Args:
        client: Client of the tracking store.
        version: The registered version.
        keys: Keys of the metrics that the policy needs.
        digest: Digest of the data that they must be measured on; None for those that the model was logged with.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    model_id = logged_model_id(client, version)
    if model_id is None:
        source = str(version.source)
        return ModelMetrics(subject(version, source), source, problem=f"it points to no logged model; {ADVICE}")
    model = client.get_logged_model(model_id)
    known_conditions = {name: model.tags[tag] for name, tag in CONDITIONS.items() if model.tags.get(tag)}
    found = ModelMetrics(subject(version, model_id), model_id, conditions=known_conditions)
    attached = [metric for metric in model.metrics or [] if metric.key.startswith("ifa/")]
    with_data = [metric for metric in attached if metric.dataset_digest]
    step = None if with_data else _step(client, model, attached)
    if not with_data and step is None:
        return replace(found, problem=f"it is not recorded which training step it stems from; {ADVICE}")
    problem = weights_problem(client, model, step)
    if problem:
        return replace(found, problem=f"{problem}; {ADVICE}")
    if step is None:
        return _on_data_set(client, found, with_data, digest or model.tags.get(DIGEST_TAG))
    known = _digest(client, model, step)
    here = [metric for metric in attached if metric.step == step]
    if here:
        values = [(metric.key, _true_value(client, metric)) for metric in here]
        return _at_step(replace(found, origin="logged model"), values, step, known)
    history = _history(client, model.source_run_id, keys, step) if model.source_run_id else []
    return _at_step(replace(found, origin=f"history of run {model.source_run_id}"), history, step, known)


def weights_problem(client: MlflowClient, model: LoggedModel, step: int | None = None) -> str:
    """Say why numbers cannot be known to speak of the weights in a model's file; empty if they do.

    Args:
        client: Client of the tracking store.
        model: The logged model; its file is downloaded and read, and nothing of it is run.
        step: The step that the model stems from, for one whose weights only its run's tags know.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    recorded = model.tags.get(WEIGHTS_TAG)
    if not recorded and step is not None and model.source_run_id:
        tags = client.get_run(model.source_run_id).data.tags
        recorded = tags.get(WEIGHTS_TAG) if tags.get(STEP_TAG) == str(step) else None
    if not recorded:
        return "it is not recorded which weights its numbers speak of"
    with tempfile.TemporaryDirectory() as folder:
        where = {"dst_path": folder, "tracking_uri": client.tracking_uri}
        try:
            found = digest_model(download_artifacts(artifact_uri=model.artifact_location, **where))
        except FileError as error:
            return f"its weights cannot be compared with those that its numbers speak of: {error}"
    return "" if found == recorded else "its file holds other weights than its numbers speak of"


def find_obstacle(client: MlflowClient, version: ModelVersion) -> str:
    """Say why a version must not be promoted whatever its numbers; empty if it may.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    if str(version.current_stage or "").lower() == "archived":
        return "the version is archived"
    if str(version.status or "READY") != "READY":
        return f"the version is not ready: {version.status}"
    model_id = logged_model_id(client, version)
    model = client.get_logged_model(model_id) if model_id else None
    if model and str(model.status) in ("FAILED", str(LoggedModelStatus.FAILED)):
        return f"its logged model {model_id} is marked as failed"
    run_id = (model.source_run_id if model else None) or version.run_id
    try:
        gone = bool(run_id) and client.get_run(str(run_id)).info.lifecycle_stage != "active"
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"its run {run_id} does not exist any more"
    return f"its run {run_id} is deleted" if gone else ""


def logged_model_id(client: MlflowClient, version: ModelVersion) -> str | None:
    """Give the id of the logged model behind a version, also behind a copied one; None if there is none."""
    for _ in range(10):  # a copy of a copy of a copy
        if version.model_id:
            return str(version.model_id)
        found = re.fullmatch(r"models:/(?:(m-[^/]+)|([^/:]+)/([0-9]{1,18}))", version.source or "")
        if not found:
            return None
        if found[1]:
            return found[1]
        version = client.get_model_version(found[2], found[3])
    return None


def subject(version: ModelVersion, model: str) -> str:
    """Name the subject of a verdict: this entry of the registry, with these weights."""
    return f"models:/{version.name}/{version.version} ({model})"


def _on_data_set(client: MlflowClient, found: ModelMetrics, metrics: list[Metric], digest: str | None) -> ModelMetrics:
    """Take the latest evaluation on one data set, whole: anyone may attach a nicer one on other data."""
    digests = sorted({str(metric.dataset_digest) for metric in metrics})
    if digest not in digests:
        if len(digests) > 1:
            return replace(found, problem=f"it has numbers on {len(digests)} data sets, none of them {digest}")
        digest = digests[0]
    on_it = [metric for metric in metrics if metric.dataset_digest == digest]
    latest = max(metric.timestamp for metric in on_it)
    evaluations: dict[tuple[str | None, int], list[Metric]] = {}
    for metric in on_it:
        if metric.timestamp == latest:
            evaluations.setdefault((metric.run_id, metric.step), []).append(metric)
    if len(evaluations) > 1:
        return replace(found, dataset_digest=digest, problem=f"{len(evaluations)} evaluations at one moment; {ADVICE}")
    ((_, step), chosen), *_ = evaluations.items()
    values = [(metric.key, _true_value(client, metric)) for metric in chosen]
    whole = _at_step(replace(found, origin="logged model"), values, step, digest)
    earlier = {metric.key for metric in on_it} - {metric.key for metric in chosen}
    if earlier and not whole.problem:
        whole = replace(whole, problem=f"the latest evaluation lacks it, an earlier one does not count; {ADVICE}")
    return whole


def _step(client: MlflowClient, model: LoggedModel, attached: list[Metric]) -> int | None:
    """Find the step a logged model stems from: its tag, or what MLflow's own ``log_model(step=)`` was given.

    A step of 0 that no tag confirms is not believed: it is what MLflow records when no step was given.
    """
    tag = model.tags.get(STEP_TAG, "")
    if tag.isdigit():
        return int(tag)
    steps = {metric.step for metric in attached}
    if not steps and model.source_run_id:
        outputs = client.get_run(model.source_run_id).outputs
        steps = {o.step for o in (outputs.model_outputs if outputs else []) if o.model_id == model.model_id}
    return steps.pop() if len(steps) == 1 and steps != {0} else None


def _digest(client: MlflowClient, model: LoggedModel, step: int) -> str | None:
    """Find the data set of a step; the run's tag names that of the run's latest analysis only."""
    if DIGEST_TAG in model.tags or not model.source_run_id:
        return model.tags.get(DIGEST_TAG)
    tags = client.get_run(model.source_run_id).data.tags
    return tags.get(DIGEST_TAG) if tags.get(STEP_TAG) == str(step) else None


def _true_value(client: MlflowClient, metric: Metric) -> float:
    """Find the value that was logged: SQL stores give a logged model's NaN back as 0.0, only the run still knows."""
    if metric.value != 0.0:
        return float(metric.value)
    history = client.get_metric_history(metric.run_id, metric.key) if metric.run_id else []
    logged = [m.value for m in history if (m.step, m.timestamp) == (metric.step, metric.timestamp)]
    return 0.0 if logged and all(value == 0.0 for value in logged) else math.nan


def _history(client: MlflowClient, run_id: str, keys: Iterable[str], step: int) -> list[tuple[str, float]]:
    return [(key, m.value) for key in sorted(keys) for m in client.get_metric_history(run_id, key) if m.step == step]


def _at_step(found: ModelMetrics, metrics: list[tuple[str, float]], step: int, digest: str | None) -> ModelMetrics:
    """Keep the keys with one value at the step; float32 and float64 of one value count as one."""
    values: dict[str, list[float]] = {}
    for key, value in metrics:
        values.setdefault(key, []).append(value)
    doubtful = sorted(key for key, seen in values.items() if not _are_close(seen))
    problem = f"several values at step {step}: {', '.join(doubtful)}; {ADVICE}" if doubtful else ""
    if not values:
        problem = f"nothing was logged at its step {step}; {ADVICE}"
    sure = {key: seen[-1] for key, seen in values.items() if key not in doubtful}
    return replace(found, metrics=sure, dataset_digest=digest, step=step, problem=problem)


def _are_close(values: list[float]) -> bool:
    return all(abs(value - values[0]) <= 1e-6 * max(abs(value), 1e-3) for value in values[1:])
