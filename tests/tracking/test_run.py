"""Which run is found, in the order that users expect; none is ever opened."""

from __future__ import annotations

import mlflow
import pytest
from lightning.pytorch.loggers import MLFlowLogger as OtherMLFlowLogger
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_ifa.errors import TrackingError
from lightning_ifa.tracking.run import baseline_scale, find_run, other_active_run


def test_nothing_is_found_and_nothing_opened(store, tmp_path):
    mlflow.set_tracking_uri(store)
    assert find_run([CSVLogger(tmp_path), DummyLogger()]) is None
    assert mlflow.active_run() is None


@pytest.mark.parametrize("kind", [MLFlowLogger, OtherMLFlowLogger])
def test_loggers_of_both_packages(kind, store):
    logger = kind("x", tracking_uri=store)
    run = find_run([DummyLogger(), logger])
    assert (run.run_id, run.tracking_uri) == (logger.run_id, store)


def test_order(store, monkeypatch):
    mlflow.set_tracking_uri(store)
    logger = MLFlowLogger("x", tracking_uri=store)
    monkeypatch.setenv("MLFLOW_RUN_ID", "from-environment")
    assert find_run([]).run_id == "from-environment"
    monkeypatch.delenv("MLFLOW_RUN_ID")
    with mlflow.start_run() as active:
        assert find_run([]).run_id == active.info.run_id
        found = find_run([logger])
        assert found.run_id == logger.run_id
        assert other_active_run(found) == active.info.run_id
        assert find_run([logger], run_id="given").run_id == "given"
    assert other_active_run(found) is None


def test_baseline_without_a_scale(store):
    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as run:
        pass
    with pytest.raises(TrackingError, match=r"has no readable ifa_scale.json"):
        baseline_scale(run.info.run_id)
