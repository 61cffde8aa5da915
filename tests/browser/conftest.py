"""Two analysed trainings on a real MLflow server, and a real browser that looks at them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import pytorch_lightning as pl
import requests
from browser_names import EVIL, RUNS
from chromium import browser, find_chromium
from lightning_modules import Net
from models import loader
from pytorch_lightning.loggers import MLFlowLogger

from lightning_ifa.tracking.saved_view import address_of
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

START = 180.0


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)
            if find_chromium() is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium here; `apt-get install chromium` brings one"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """URI of an MLflow server of our own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True)
    uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START
    try:
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{uri}/health", timeout=5).ok:
                    break
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "mlflow server did not start"
            time.sleep(0.3)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def trained(server, tmp_path_factory):
    """Two short trainings in one experiment, a class with markup for a name, and the view that they left."""
    runs, train, validation = {}, loader(90, seed=1), loader(60, seed=5)
    validation.dataset.images[:3] = train.dataset.images[:3]  # copies, so that there is something to list
    for seed, name in enumerate(RUNS):
        pl.seed_everything(seed, verbose=False)
        logger = MLFlowLogger("browser", run_name=name, tracking_uri=server)
        analysis = IntegratedFeatureAnalysis(class_names=[EVIL, "b", "c"], on_error="raise")
        trainer = pl.Trainer(
            max_epochs=2, logger=logger, callbacks=[analysis], accelerator="cpu", enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path_factory.mktemp("root"),
        )  # fmt: skip
        trainer.fit(Net(), train, validation)
        runs[name] = logger.run_id
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("browser").experiment_id
    address = f"{server}/{address_of(experiment)}"
    return SimpleNamespace(uri=server, client=client, experiment=experiment, runs=runs, view=address)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser that knows MLflow: no assistant, no first-visit page."""
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.run_first(
            """try {
              localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
              localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
              localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
            } catch { /* a sandboxed frame has no storage */ }"""
        )
        yield page
