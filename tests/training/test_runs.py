"""The run that was found gets the metrics of every validation, once each, whoever logs."""

import contextlib
import logging

import mlflow
import pytest
from lightning_modules import PACKAGES
from mlflow import MlflowClient
from models import loader

from lightning_ifa import IntegratedFeatureAnalysis
from lightning_ifa.errors import IFAWarning

TRAIN, VALIDATION = loader(16, seed=1, batch_size=8), loader(16, seed=2, batch_size=16)
METRIC = "ifa/health/outliers"
QUIET = {"enable_checkpointing": False, "accelerator": "cpu", "enable_progress_bar": False}
QUIET |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}

pytestmark = pytest.mark.usefixtures("no_pictures")


def train(package, callbacks=(), logger=False, epochs=2, **options):
    callback = IntegratedFeatureAnalysis(max_samples=16, probes=1, install_view=False, **options)
    module = PACKAGES[package][1]()
    trainer = PACKAGES[package][0].Trainer(
        callbacks=[*callbacks, callback], logger=logger, max_epochs=epochs, **QUIET
    )  # fmt: skip
    trainer.fit(module, TRAIN, VALIDATION)
    return trainer, module


def steps(store, run_id, key=METRIC):
    return [metric.step for metric in MlflowClient(store).get_metric_history(run_id, key)]


def logger_of(package, store, **options):
    return PACKAGES[package][0].loggers.MLFlowLogger("x", tracking_uri=store, **options)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("kind", ["no logger", "csv", "another run's logger"])
def test_the_active_run(package, kind, store, tmp_path):
    mlflow.set_tracking_uri(store)
    logger = {
        "no logger": lambda: False,
        "csv": lambda: PACKAGES[package][0].loggers.CSVLogger(tmp_path),
        "another run's logger": lambda: logger_of(package, store),
    }[kind]()
    with mlflow.start_run() as run:
        named = {"run_id": run.info.run_id} if kind.startswith("another") else {}
        train(package, logger=logger, **named)
    assert steps(store, run.info.run_id) == [1, 3]
    if kind.startswith("another"):
        assert steps(store, logger.run_id) == [1, 3]


def test_the_run_of_the_environment(store, monkeypatch):
    mlflow.set_tracking_uri(store)
    run = MlflowClient(store).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    train("pytorch_lightning")
    assert steps(store, run) == [1, 3]


def test_a_logger_with_a_prefix_and_two_of_one_run(store):
    logger = logger_of("pytorch_lightning", store, prefix="fold")
    train("pytorch_lightning", logger=logger)
    assert steps(store, logger.run_id) == steps(store, logger.run_id, f"fold-{METRIC}") == [1, 3]
    first = logger_of("pytorch_lightning", store)
    train("pytorch_lightning", logger=[first, logger_of("pytorch_lightning", store, run_id=first.run_id)])
    assert steps(store, first.run_id) == [1, 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own patches
@pytest.mark.parametrize("package", PACKAGES)
def test_beside_autolog(package, store):
    mlflow.set_tracking_uri(store)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    try:
        with mlflow.start_run() as run:
            train(package)
        with mlflow.start_run() as shared:
            train(package, logger=logger_of(package, store, run_id=shared.info.run_id))
    finally:
        mlflow.pytorch.autolog(disable=True)
    assert steps(store, run.info.run_id) == steps(store, shared.info.run_id) == [1, 3]
    assert steps(store, run.info.run_id, "val_loss")


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("hook", ["on_validation_epoch_end", "on_validation_end"])
def test_a_pruned_trial_has_each_step_once(package, hook, store):
    """The logger has the metrics of the last validation already, or has them not: only the run knows."""

    class Pruned(Exception):  # noqa: N818 - as Optuna's
        pass

    def prune(self, trainer, module):
        if trainer.current_epoch == 1:
            raise Pruned

    pruning = type("Pruning", (PACKAGES[package][0].Callback,), {hook: prune})()
    logger = logger_of(package, store)
    with pytest.raises(Pruned):
        train(package, [pruning], logger, epochs=3)
    assert steps(store, logger.run_id) == [1, 3]


@pytest.mark.parametrize(("gone", "match"), [("deleted", "is deleted"), ("unknown", "there is no run")])
def test_a_run_that_is_gone_is_said_in_a_sentence(gone, match, store, caplog):
    mlflow.set_tracking_uri(store)
    client = MlflowClient(store)
    run = client.create_run("0").info.run_id if gone == "deleted" else "0" * 32
    with contextlib.suppress(Exception):
        client.delete_run(run)
    with caplog.at_level(logging.WARNING), pytest.warns(IFAWarning, match=match):
        train("pytorch_lightning", run_id=run, epochs=1)
    assert match in caplog.text
