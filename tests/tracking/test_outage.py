"""A server that is killed, slow or flaky in mid-training: nothing is raised, and after ``sync`` nothing is missing."""

from __future__ import annotations

import random
import threading
import time
import warnings
from pathlib import Path

import outages
import pytest
import pytorch_lightning as pl
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from outages import held, sync
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger
from servers import patience

from lightning_ifa.errors import IFAWarning, TrackingError
from lightning_ifa.tracking.spooling_client import outage_proof

pytestmark = pytest.mark.filterwarnings("ignore:.*uploads to MLflow are left over")
REQUESTS = 105


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


@pytest.fixture
def asked(monkeypatch):
    """Addresses that the main thread itself asks something."""
    send, found = requests.Session.send, []

    def noted(session, request, **options):
        if threading.current_thread() is threading.main_thread():
            found.append(request.url)
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", noted)
    return found


class At(pl.Callback):
    """Does something at the start of an epoch, and notes the longest pause between two steps of the training."""

    def __init__(self, epoch=0, act=lambda: None, at_end=lambda: None):
        self.epoch, self.act, self.at_end, self.pause, self.latest = epoch, act, at_end, 0.0, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.act()

    def step(self, *_):
        now = time.perf_counter()
        self.pause, self.latest = max(self.pause, now - (self.latest or now)), now

    on_train_batch_start = on_train_batch_end = on_validation_batch_start = on_validation_batch_end = step

    def on_train_end(self, trainer, pl_module):
        self.step()
        self.at_end()


def train(uri, folder, at=None, wrap=outage_proof, **options):
    """Train five epochs; give the run's id."""
    return outages.train(uri, folder, [at or At()], wrap, **options)


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """What the run of a plain logger holds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with patience():
        run_id = train(server.uri, folder, wrap=lambda logger: logger)
    found = held(server.uri, run_id, folder)
    assert len(found[0]) > 30
    assert {step for step, _ in found[0]["ifa/overfitting/score"]} == {5, 11, 17, 23, 29}
    assert [name for name, _ in found[1] if name.startswith("images/ifa~xai~0+step+4")]
    return found


def test_a_logger_through_the_spool_holds_what_a_plain_one_does(server, undisturbed, tmp_path):
    with patience():
        run_id = train(server.uri, tmp_path)
    assert not Path("ifa").exists() or not list(Path("ifa").rglob("*.json"))
    assert held(server.uri, run_id, tmp_path) == undisturbed


def test_killed_in_epoch_two(server, undisturbed, tmp_path):
    run_id = train(server.uri, tmp_path, At(2, server.kill))
    server.start()
    sync(server.uri)
    assert held(server.uri, run_id, tmp_path) == undisturbed


def test_every_second_request_fails(server, proxy, undisturbed, tmp_path):
    def breaks():
        proxy.fails = lambda number: number % 2 == 0

    run_id = train(proxy.uri, tmp_path, At(2, breaks))
    sync(proxy.uri)
    assert held(server.uri, run_id, tmp_path) == undisturbed


@pytest.mark.slow
def test_every_answer_takes_five_seconds(server, proxy, undisturbed, asked, tmp_path):
    """Whoever waited for a single answer, be it behind a lock, would pause for five seconds."""
    slow = At(0, lambda: (asked.clear(), setattr(proxy, "delay", 5.0)), lambda: asked.append("the training's end"))
    run_id = train(proxy.uri, tmp_path, slow)
    assert asked[0] == "the training's end"
    assert slow.pause < 5.0
    proxy.reset()
    sync(proxy.uri)
    assert held(server.uri, run_id, tmp_path) == undisturbed


@pytest.mark.parametrize(
    "seed", [seed if seed < 2 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(20)]
)
def test_killed_at_a_random_request(server, proxy, undisturbed, tmp_path, seed):
    """From some request on there is no answer; that request itself may have been carried out."""
    rng = random.Random(seed)

    def dies():
        last = len(proxy.seen) + rng.randrange(1, REQUESTS)
        proxy.dies, proxy.half_way = (lambda number: number >= last), rng.random() < 0.5

    run_id = train(proxy.uri, tmp_path, At(0, dies))
    proxy.reset()
    sync(proxy.uri)
    assert held(server.uri, run_id, tmp_path) == undisturbed


def test_a_plain_logger_raises_but_the_analysis_is_kept(server, proxy, tmp_path):
    """Lightning's own behaviour; what the analysis found until then is not lost, metrics included."""
    with pytest.raises(MlflowException):
        train(proxy.uri, tmp_path, At(2, lambda: setattr(proxy, "dies", lambda number: True)), lambda logger: logger)
    proxy.reset()
    sync(proxy.uri)  # MLflow remembers by which address a process uploads a run's files
    client = MlflowClient(server.uri)
    run = client.search_runs([client.get_experiment_by_name("outage").experiment_id], max_results=1)[0]
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "ifa/overfitting/score")]
    epochs = [file.path for file in client.list_artifacts(run.info.run_id, "ifa")]
    assert [f"ifa/epoch_{number:04d}" for number in range(len(steps))] == epochs
    assert steps == [5, 11, 17][: len(steps)]


def test_other_loggers_are_refused(tmp_path):
    with pytest.raises(TrackingError, match=r"was given a CSVLogger; expected Lightning's MLFlowLogger"):
        outage_proof(CSVLogger(tmp_path))


def test_a_run_goes_on_after_its_end(store, tmp_path):
    """As in ``trainer.fit`` and then ``trainer.test``."""
    logger = outage_proof(MLFlowLogger("x", tracking_uri=store))
    for step in (0, 1):
        logger.log_metrics({"a": 1.0 + step}, step)
        logger.finalize("success")
    client = MlflowClient(store)
    assert [metric.step for metric in client.get_metric_history(logger.run_id, "a")] == [0, 1]
    assert client.get_run(logger.run_id).info.status == "FINISHED"


def test_what_mlflow_refuses_does_not_hold_up_the_rest(store):
    logger = outage_proof(MLFlowLogger("x", tracking_uri=store))
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    logger.log_hyperparams({"a": 2})
    time.sleep(0.5)
    logger.log_metrics({"b": 1.0}, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IFAWarning)
        logger.finalize("success")
    run = MlflowClient(store).get_run(logger.run_id)
    assert (run.data.params, run.data.metrics) == ({"a": "1"}, {"b": 1.0})
