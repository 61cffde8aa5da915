"""Shared fixtures: no test talks to a server it did not start, or leaves a file outside its own folder."""

from __future__ import annotations

import os
import shutil

# the suite's own processes keep the cores busy: threads that wait for each other spin
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_RUN_ID", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from threadpoolctl import threadpool_limits
from time_limit import time_limit

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def one_thread():
    """A forked process that wants several OpenMP threads hangs where its parent has used several.

    scikit-learn has an OpenMP of its own. Whatever hangs all the same fails after two minutes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1), time_limit(120):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory):
    """File of a store without runs: MLflow takes two seconds to make its tables, and a copy none."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        MlflowClient("sqlite:///mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path, _empty_store):
    """URI of a real, empty MLflow store."""
    shutil.copy(_empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    previous = mlflow.get_tracking_uri()
    yield uri
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(previous)


@pytest.fixture
def no_pictures(monkeypatch):
    """For trainings whose pictures nobody looks at: drawing them takes longer than the rest."""
    monkeypatch.setattr("lightning_ifa.tracking.publisher.write_pictures", lambda *_: None)
    monkeypatch.setattr("lightning_ifa.tracking.job_writer.write_pictures", lambda *_: None)
