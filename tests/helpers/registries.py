"""A real SQLite store with registered models, made without training anything."""

import itertools
import os
import time

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric

from lightning_ifa.gate.policy import Policy
from lightning_ifa.model.weights_digest import digest_weights
from lightning_ifa.tracking.store import default_store
from lightning_ifa.tracking.weights import WEIGHTS_TAG

DIGEST = "0123456789ab"
STATE = {"weight": torch.ones(2)}
WEIGHTS = digest_weights(STATE)
FAMILIES = ("overfitting", "confounding", "outliers", "redundancy", "consistency")


def sound_metrics():
    """What the callback logs for a model with nothing to complain about."""
    metrics = {}
    for family in FAMILIES:
        metrics |= {f"ifa/{family}/score": 0.004, f"ifa/{family}/z": 0.4, f"ifa/health/{family}": 0.9}
    return metrics | {"ifa/overfitting/margin_gap": 0.004}


def policy(*checks, **changes):
    """A policy made of plain values."""
    content = {"name": "test", "version": "1", "checks": list(checks)} | changes
    return Policy.model_validate(content)


class Store:
    """Registers versions without training anything: logged model, metrics, version."""

    def __init__(self, folder):
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        self.experiment = self.client.create_experiment("gate", artifact_location=(folder / "artifacts").as_uri())
        self._names = itertools.count()
        self.folder = folder / "model"  # of every logged model
        (self.folder / "data").mkdir(parents=True)
        torch.save(STATE, self.folder / "data" / "model.pth")

    def name(self):
        name = f"leafnet-{next(self._names)}"
        self.client.create_registered_model(name)
        return name

    def run(self):
        return self.client.create_run(self.experiment).info.run_id

    def logged_model(self, run_id=None, tags=None, step=None):
        run_id = run_id or self.run()
        logged = self.client.create_logged_model(
            self.experiment, "model", run_id, {WEIGHTS_TAG: WEIGHTS} | (tags or {})
        )
        self.client.log_model_artifacts(logged.model_id, str(self.folder))
        if step is not None:  # as mlflow.pytorch.log_model(step=) does
            self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
        return logged

    def attach(self, logged, metrics, step=7, digest=DIGEST):
        about = {"model_id": logged.model_id, "run_id": logged.source_run_id}
        if digest:
            about |= {"dataset_name": "validation", "dataset_digest": digest}
        now = int(time.time() * 1000)
        found = [Metric(key, value, now, step, **about) for key, value in metrics.items()]
        self.client.log_batch(logged.source_run_id, metrics=found)

    def log(self, run_id, metrics, step):
        self.client.log_batch(run_id, metrics=[Metric(key, value, 1, step) for key, value in metrics.items()])

    def version(self, name, logged):
        with default_store(self.uri):
            source = f"models:/{logged.model_id}"
            version = self.client.create_model_version(name, source, logged.source_run_id, model_id=logged.model_id)
            return str(version.version)

    def register(self, name, metrics, **attach):
        """One version whose logged model carries the metrics; its number."""
        logged = self.logged_model(tags={"ifa.step": "7", "ifa.dataset_digest": DIGEST})
        self.attach(logged, metrics, **attach)
        return self.version(name, logged)

    def holder(self, name, alias="champion"):
        version = self.client.get_registered_model(name).aliases.get(alias)
        return None if version is None else str(version)

    def state(self, name):
        """Everything a gate may write to a registered model."""
        model = self.client.get_registered_model(name)
        versions = self.client.search_model_versions(f"name='{name}'")
        artifacts = {v.version: [a.path for a in self.client.list_artifacts(v.run_id, "ifa/gate")] for v in versions}
        return dict(model.aliases), {v.version: (v.description, dict(v.tags)) for v in versions}, artifacts
