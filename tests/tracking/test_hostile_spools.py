"""A spool folder that somebody changed, and several that upload it at once."""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from bounds import bounds
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from lightning_ifa.cli import main
from lightning_ifa.errors import FileError, IFAError
from lightning_ifa.tracking.job import Job, begin, list_incomplete, replay, upload

QUICK, ALL = 60, 2000
JUNK = (None, [], {}, "", "x", -1, 1e300, float("nan"), True, [["a"]], {"a": 1}, [["a", 1.0, "now", 0]], 2**70)


@pytest.fixture
def run_id(store):
    client = mlflow.MlflowClient(store)
    return client.create_run(client.create_experiment("x")).info.run_id


def write(folder, run_id, store, **changes):
    (folder / "artifacts" / "ifa").mkdir(parents=True)
    (folder / "artifacts" / "ifa" / "a.txt").write_text("a")
    (folder / "model").mkdir()
    (folder / "model" / "MLmodel").write_text("")
    begin(folder)
    Job(run_id, store, metrics=[("m", 1.0, 1, 1)], tags={"t": "v"}, timestamp=5).save(folder)
    path = folder / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def artifacts(store, run_id, path=None):
    return {file.path for file in mlflow.MlflowClient(store).list_artifacts(run_id, path)}


@pytest.mark.parametrize(
    "where", ["artifacts", "artifacts/ifa", "artifacts/ifa/a.txt", "model", "model/MLmodel", "job.json"]
)
def test_links_are_neither_uploaded_nor_emptied(store, run_id, tmp_path, where):
    secret = tmp_path / "home"
    secret.mkdir()
    (secret / "key").write_text("secret")
    job = write(tmp_path / "spool" / "job", run_id, store)
    target, stays = job / where, secret if (job / where).is_dir() else secret / "key"
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    target.symlink_to(stays)
    with pytest.raises(FileError, match="link"):
        upload(job)
    assert (secret / "key").read_text() == "secret"
    assert artifacts(store, run_id) == set()
    assert job.is_dir()


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": None},
        {"timestamp": "soon"},
        {"metrics": [["m", 1.0]]},
        {"tags": None},
        {"tables": [1]},
        {"status": 3},
        {"status": "x"},
        {"timestamp": 2**70},
    ],
)
def test_a_bad_job_is_named_and_passed_over(store, run_id, tmp_path, changes):
    bad = write(tmp_path / "bad", run_id, store, **changes)
    write(tmp_path / "good", run_id, store)
    found = CliRunner().invoke(main, ["sync", str(tmp_path)])
    assert found.exit_code == 2
    assert f"waits     {bad}: {bad} is not a complete analysis to upload" in found.output
    assert f"uploaded  {tmp_path / 'good'}" in found.output
    assert artifacts(store, run_id) == {"ifa"}


def test_deep_and_endless_descriptions_stop_nobody(store, run_id, tmp_path):
    deep, pipe = write(tmp_path / "deep", run_id, store), write(tmp_path / "pipe", run_id, store)
    (deep / "job.json").write_text("[" * 200_000)
    (pipe / "job.json").unlink()
    os.mkfifo(pipe / "job.json")
    write(tmp_path / "good", run_id, store)
    assert [error is None for _, error in replay(tmp_path)] == [True, False, False]


def test_an_analysis_that_was_cut_while_it_was_written_is_named(store, run_id, tmp_path):
    cut = write(tmp_path / "run" / "cut", run_id, store)
    (cut / "job.json").rename(cut / "job.json.part")
    write(tmp_path / "run" / "good", run_id, store)
    found = CliRunner().invoke(main, ["sync", str(tmp_path)])
    assert found.exit_code == 2
    assert f"partial   {cut}" in found.output
    assert list_incomplete(tmp_path) == [cut]


def test_three_at_once_upload_each_job_once(store, run_id, tmp_path, monkeypatch):
    spool, uploaded = tmp_path / "spool", []
    log_artifact = mlflow.MlflowClient.log_artifact

    def note(self, run, file, path=None):
        uploaded.append(file)
        return log_artifact(self, run, file, path)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", note)
    for number in range(6):
        write(spool / str(number), run_id, store)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: [error for _, error in replay(spool)], range(3)))
    assert [error for errors in found for error in errors if error is not None] == []
    assert len(uploaded) == 6
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("count", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)])
def test_changed_spools(store, run_id, tmp_path, monkeypatch, count):
    rng = random.Random(count)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for turn in range(count):
        job = write(tmp_path / "spool" / str(turn), run_id, store)
        if rng.random() < 0.6:
            content = json.loads((job / "job.json").read_text())
            content[rng.choice([key for key in content if key != "tracking_uri"])] = rng.choice(JUNK)
            (job / "job.json").write_text(json.dumps(content))
        else:
            content = bytearray((job / "job.json").read_bytes())
            start = content.index(b'"tables"')  # the address stays: it would be another server
            for _ in range(rng.randint(1, 9)):
                content[rng.randrange(start, len(content))] = rng.randrange(256)
            (job / "job.json").write_bytes(content)
        with bounds():
            for folder, error in replay(tmp_path / "spool"):
                assert folder == job
                assert error is None or isinstance(error, (IFAError, MlflowException))
        shutil.rmtree(job, ignore_errors=True)
