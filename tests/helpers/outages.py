"""Trainings whose server may be away, what is uploaded afterwards, and all that a run then holds."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from pathlib import Path

from click.testing import CliRunner
from lightning_modules import fit
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger

from lightning_ifa.cli import main
from lightning_ifa.tracking.description import DESCRIPTION
from lightning_ifa.tracking.images import LOGGED_IMAGES
from lightning_ifa.tracking.job import LOGGED_TABLES
from lightning_ifa.tracking.saved_view import TAG
from lightning_ifa.tracking.spooling_client import outage_proof
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

OWN_TO_A_RUN = {"mlflow.lightning-ifa.spooled-as", "mlflow.log-model.history"}


def train(uri, folder, callbacks=(), wrap=outage_proof, experiment="outage", analysis=None, **options):
    """Train with an analysis; give the run's id, which is that of the spool where no server was there."""
    logger = wrap(MLFlowLogger(experiment, tracking_uri=uri, run_name="trained"))
    analysis = {"probes": 2, "install_view": False} | (analysis or {})
    options = {"max_epochs": 5, "log_every_n_steps": 2} | options
    if "log_models" in analysis:
        options |= {"enable_checkpointing": True}
        callbacks = [
            *callbacks,
            ModelCheckpoint(folder / experiment, monitor="val_accuracy", mode="max", filename="best"),
        ]
    callbacks = [IntegratedFeatureAnalysis(on_error="raise", **analysis), *callbacks]
    fit(callbacks, logger=logger, default_root_dir=folder, **options)
    return logger.run_id


def join_threads():
    """Wait for the background of a training, as if its process had ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("lightning-ifa"):
            thread.join(120)


def sync(uri, folder="ifa", code=0):
    """Upload all that waits in a spool, as another process would after the training's; None for any outcome."""
    join_threads()
    found = CliRunner().invoke(main, ["sync", str(folder), "--tracking-uri", uri])
    assert code is None or found.exit_code == code, found.output
    assert code != 0 or not list(Path(folder).rglob("job.json"))
    return found.output


def newest_run(uri, experiment="outage"):
    """The id by which the store knows the newest run of an experiment."""
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1)
    return found[0].info.run_id


def held(uri, run_id, folder):
    """Everything that a run holds, times and random parts of names left out."""
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    metrics = {
        key: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
    }
    root = Path(client.download_artifacts(run_id, "", str(folder)))
    artifacts = sorted(
        (re.sub(r"[+]timestamp[+][^.]*?([+]compressed)?[.]", r"\1.", path.relative_to(root).as_posix()),
         hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*") if path.is_file()
    )  # fmt: skip
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("ifa.")}
    tags |= {key: run.data.tags[key] for key in (LOGGED_TABLES, *LOGGED_IMAGES, DESCRIPTION)}
    return metrics, artifacts, run.data.params, tags, run.info.status


def held_in_all(uri, run_id, folder):
    """As ``held``, and all tags, inputs, outputs with their models' files, and the experiment's view."""
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    tags = {key: value for key, value in run.data.tags.items() if key not in OWN_TO_A_RUN}
    inputs = sorted(
        (*(getattr(each.dataset, name) for name in ("name", "digest", "source_type", "source", "profile")),
         *((tag.key, tag.value) for tag in each.tags))
        for each in run.inputs.dataset_inputs
    )  # fmt: skip
    models = [_held_model(client, output, folder) for output in (run.outputs.model_outputs if run.outputs else [])]
    view = json.loads(client.get_experiment(run.info.experiment_id).tags.get(TAG, "{}")).get("state")
    return *held(uri, run_id, _made(folder / run_id)), tags, inputs, sorted(models), view


def _held_model(client, output, folder):
    model = client.get_logged_model(output.model_id)
    tags = {key: value for key, value in model.tags.items() if key not in OWN_TO_A_RUN}
    root = folder / output.model_id
    download_artifacts(model.artifact_location, dst_path=str(_made(root)), tracking_uri=client.tracking_uri)
    files = sorted(
        (path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*") if path.is_file() and path.name != "MLmodel"
    )  # fmt: skip
    metrics = sorted((m.key, m.step, m.value, m.dataset_name, m.dataset_digest) for m in model.metrics)
    return (
        output.step,
        model.name,
        str(model.status),
        sorted(tags.items()),
        sorted(model.params.items()),
        metrics,
        files,
    )


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder
