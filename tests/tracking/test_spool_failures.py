"""Whatever the disk or a caller's function throws, the background threads live on, and say at the end what failed."""

import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from lightning_ifa.errors import IFAWarning
from lightning_ifa.tracking import spool as module
from lightning_ifa.tracking.job import Job
from lightning_ifa.tracking.spool import Spool
from lightning_ifa.tracking.spooling_client import SpoolingClient


def fail(*args, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["replay", "release", "list_pending"])
def test_a_folder_that_cannot_be_read_ends_no_thread(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, name, fail)
    spool = Spool(tmp_path / "s", f"sqlite:///{tmp_path / 'm.db'}")
    began = time.monotonic()
    with pytest.warns(IFAWarning, match="No space left|left over"):
        spool.close(5.0)
    assert time.monotonic() - began < 4
    assert not any(thread.is_alive() for thread in spool._threads)


def test_a_function_that_fails_after_the_uploads_ends_no_thread(tmp_path):
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("e", str(tmp_path / "a"))).info.run_id
    spool = Spool(tmp_path / "s", uri, when_complete=fail)
    for number in range(2):
        job = Job(run, uri, metrics=[(f"m{number}", 1.0, 0, 0)])
        spool.put(str(number), job.save)
    with pytest.warns(IFAWarning, match="No space left"):
        spool.close(30.0)
    assert set(client.get_run(run).data.metrics) == {"m0", "m1"}


def test_metrics_that_a_full_disk_refuses_go_with_the_next_batch(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    client = SpoolingClient(uri, tmp_path / "s")
    run = client.create_run(client.create_experiment("e", str(tmp_path / "a"))).info.run_id
    save = Job.save
    monkeypatch.setattr(Job, "save", fail)
    client.log_batch(run, [Metric("first", 1.0, 0, 0)])
    time.sleep(0.3)
    monkeypatch.setattr(Job, "save", save)
    client.log_batch(run, [Metric("second", 1.0, 0, 0)])
    client.set_terminated(run)
    assert set(client.get_run(run).data.metrics) == {"first", "second"}


def test_the_rendering_stops_where_the_process_ends(tmp_path):
    """A thread that Python ends amid a library's C++ aborts the process: the user's exit code would be another."""
    spool = Spool(tmp_path / "t")
    spool.put("a", lambda _: [time.sleep(0.01) for _ in range(10_000)])
    time.sleep(0.1)
    began = time.monotonic()
    spool._stop_rendering()
    assert not spool._threads[0].is_alive()
    assert time.monotonic() - began < 0.9
