"""A training without a server from its first second on: nothing waits or raises; after ``sync`` nothing is missing."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lightning_modules import PACKAGES
from mlflow import MlflowClient
from outages import held_in_all, newest_run, sync, train
from pytorch_lightning.loggers import MLFlowLogger
from servers import free_port, patience

from lightning_ifa.tracking.job import replay
from lightning_ifa.tracking.spooling_client import outage_proof

pytestmark = pytest.mark.filterwarnings("ignore:.*uploads to MLflow are left over")
ALL = {"log_models": "best", "install_view": True}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


@pytest.fixture
def nowhere():
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def online(server, tmp_path_factory):
    """What the run of a plain logger holds."""
    folder = tmp_path_factory.mktemp("online")
    with patience():
        run_id = train(server.uri, folder, wrap=lambda logger: logger, experiment="online", analysis=ALL)
    found = held_in_all(server.uri, run_id, folder)
    assert len(found[6]) == 2
    assert len(found[7]) == 1
    assert found[8]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_equals_an_online_run_whatever_the_server_does(server, proxy, online, tmp_path, seed):
    """Away from the start, away between run and first metric, or dying in the midst of a sync, once or twice."""
    rng = random.Random(seed)
    experiment = f"offline-{seed}"
    kind = seed % 4
    if kind == 0:  # never there
        proxy.dies = lambda number: True
    elif kind == 1:  # its experiment and run are made, and nothing else is
        last = rng.choice([4, 5, 6, 7])
        proxy.dies, proxy.half_way = (lambda number: number > last), rng.random() < 0.5
    elif kind == 2:  # gone in the midst of the start
        first = rng.choice([1, 2, 3, 4, 5])
        proxy.dies, proxy.half_way = (lambda number: number >= first), rng.random() < 0.5
    else:
        proxy.dies = lambda number: True
    train(proxy.uri, tmp_path, experiment=experiment, analysis=ALL)
    for attempt in range(2 if kind == 3 else rng.choice([0, 1])):
        proxy.reset()
        until = rng.randrange(1, 60 * (attempt + 1))
        proxy.dies, proxy.half_way = (lambda number, until=until: number >= until), rng.random() < 0.5
        sync(proxy.uri, code=None)
    proxy.reset()
    sync(proxy.uri)
    client = MlflowClient(server.uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len(found) == 1
    assert held_in_all(server.uri, found[0].info.run_id, tmp_path) == online


@pytest.mark.parametrize("package", PACKAGES)
def test_one_variable_keeps_a_training_from_its_server(store, tmp_path, monkeypatch, package):
    monkeypatch.setenv("LIGHTNING_IFA_OFFLINE", "1")
    pl = PACKAGES[package][0]
    logger = pl.loggers.MLFlowLogger("zero code", tracking_uri=store, tags={"a": "b"})
    pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    logger.log_hyperparams({"rate": 0.1})
    logger.log_metrics({"loss": 1.0}, 3)
    (tmp_path / "file.txt").write_text("content")
    logger.experiment.log_artifact(logger.run_id, tmp_path / "file.txt", "notes")
    logger.experiment.log_text(logger.run_id, "words", "words.txt")
    logger.finalize("success")
    client = MlflowClient(store)
    assert client.get_experiment_by_name("zero code") is None
    sync(store)
    run = client.get_run(newest_run(store, "zero code"))
    assert (run.data.params, run.data.metrics, run.data.tags["a"]) == ({"rate": "0.1"}, {"loss": 1.0}, "b")
    assert run.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"notes", "words.txt"}
    monkeypatch.delenv("LIGHTNING_IFA_OFFLINE")
    again = outage_proof(pl.loggers.MLFlowLogger("zero code", tracking_uri=store, run_id=logger.run_id))
    again.log_metrics({"loss": 0.5}, 4)
    again.finalize("success")
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}


def test_two_processes_that_sync_the_same_folder_make_one_run(store, nowhere, tmp_path):
    logger = outage_proof(MLFlowLogger("twice", tracking_uri=nowhere))
    for step in range(3):
        logger.log_metrics({"loss": 1.0 - step}, step)
        logger.finalize("success")
    client = MlflowClient(store)
    client.create_experiment("other")
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: [error for _, error in replay(Path("ifa"), store)], range(3)))
    assert not any(error for errors in folders for error in errors)
    found = client.search_runs([client.get_experiment_by_name("twice").experiment_id])
    assert len(found) == 1
    assert [metric.value for metric in client.get_metric_history(found[0].info.run_id, "loss")] == [1.0, 0.0, -1.0]


def test_a_training_without_a_server_is_as_one_with_it(store, nowhere, tmp_path, no_pictures):
    small = {"analysis": ALL | {"probes": 1}, "max_epochs": 2}
    with patience():
        run_id = train(store, tmp_path, wrap=lambda logger: logger, experiment="with", **small)
    before = int(time.time() * 1000)
    train(nowhere, tmp_path, experiment="without", **small)
    ended = int(time.time() * 1000)
    time.sleep(0.1)
    sync(store)
    found = newest_run(store, "without")
    assert held_in_all(store, found, tmp_path) == held_in_all(store, run_id, tmp_path)
    info = MlflowClient(store).get_run(found).info
    assert before <= info.start_time <= info.end_time <= ended
    assert not list(Path("ifa").iterdir())
