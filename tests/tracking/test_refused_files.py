"""A store that takes no files: the run carries metrics, tags and text, and the message names the cause."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from outages import sync

from lightning_ifa.errors import FilesLeftError, IFAWarning
from lightning_ifa.tracking.description import DESCRIPTION
from lightning_ifa.tracking.failures import describe_failure
from lightning_ifa.tracking.job import ARTIFACTS, Job, list_pending, upload
from lightning_ifa.tracking.spool import Spool


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def put(spool, run_id, uri):
    """Two analyses, each with a file, metrics, a tag and a verdict."""
    for step in (0, 1):

        def render(folder, step=step):
            (folder / ARTIFACTS / "sub").mkdir(parents=True)
            (folder / ARTIFACTS / "sub" / "table.json").write_text(f"{step}")
            job = Job(run_id, uri, tags={"ifa.step": f"{step}"}, verdict=f"verdict {step}", timestamp=step)
            job.metrics = [("m", float(step), step, step)]
            job.save(folder)

        spool.put(f"job-{step}", render)


def assert_told(client, run_id):
    run = client.get_run(run_id)
    assert [metric.step for metric in client.get_metric_history(run_id, "m")] == [0, 1]
    assert run.data.tags["ifa.step"] == "1"
    assert "verdict 1" in run.data.tags[DESCRIPTION]


def make_run(uri, name, location=None):
    client = MlflowClient(uri)
    return client, client.create_run(client.create_experiment(name, location)).info.run_id


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "ask for the right to edit"),
        (413, "client_max_body_size"),
        (500, "read-only or full"),
        (507, "disk .* full"),
    ],
)
def test_a_server_that_refuses_files(server, proxy, tmp_path, status, advice):
    client, run_id = make_run(server.uri, f"refused {status}")
    proxy.refuses = lambda method, path: status if method == "PUT" else None
    spool = Spool(tmp_path / "ifa" / "run", proxy.uri)
    put(spool, run_id, proxy.uri)
    with pytest.warns(IFAWarning, match=rf"did not take sub/table.json: {status} .*{advice}"):
        told = spool.close(30)
    assert "0 uploads arrived" in told
    assert "2 wait in" in told
    assert_told(client, run_id)
    proxy.reset()
    sync(server.uri, tmp_path / "ifa")
    assert_told(client, run_id)
    assert Path(client.download_artifacts(run_id, "sub/table.json", str(tmp_path))).read_text() == "1"


@pytest.mark.parametrize(("number", "advice"), [(errno.EROFS, "cannot be written"), (errno.ENOSPC, "free some space")])
def test_an_artifact_root_that_cannot_be_written(store, tmp_path, monkeypatch, number, advice):
    client, run_id = make_run(store, "x", str(tmp_path / "root"))
    spool = Spool(tmp_path / "ifa" / "run", store, is_offline=True)
    put(spool, run_id, store)
    spool.close(30)

    def copy(*_, **__):
        raise OSError(number, "said the system")

    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", copy)
    for folder in list_pending(tmp_path):
        with pytest.raises(FilesLeftError, match=f"did not take sub/table.json: said the system; .*{advice}"):
            upload(folder)
    assert_told(client, run_id)


def test_a_password_in_the_address_is_in_no_message(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as raised:
        MlflowClient("http://me:secret@127.0.0.1:9").get_run("a")
    assert "secret" in str(raised.value)
    assert describe_failure(raised.value) == "the server went away (ConnectionError)"
    raised.value.__context__ = None
    assert "secret" not in describe_failure(raised.value)
