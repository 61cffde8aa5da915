"""From the callback to a real MLflow store; nothing is lost where the store is away."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import mlflow
import pandas as pd
import pytest
import pytorch_lightning as pl
from lightning_modules import Classifier, fit, loaders
from models import PoolNet, loader, trained
from pytorch_lightning.loggers import MLFlowLogger
from servers import patience

from lightning_ifa.analysis import analyze
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import FileError, IFAWarning
from lightning_ifa.report.files import TABLES
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.description import BEGIN, DESCRIPTION
from lightning_ifa.tracking.job import Job, list_pending, upload
from lightning_ifa.tracking.job_writer import write_job
from lightning_ifa.tracking.run import Run
from lightning_ifa.tracking.spool import Spool
from lightning_ifa.training.callback import IntegratedFeatureAnalysis


@pytest.fixture(scope="module")
def report():
    return analyze(trained(PoolNet()), loader(60, seed=5), loader(90, seed=1), probes=3)


@pytest.fixture
def run(store):
    client = mlflow.MlflowClient(store)
    return Run(client.create_run(client.create_experiment("x")).info.run_id, store)


@pytest.fixture
def nowhere(monkeypatch):
    """URI of a server that refuses connections."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def files_of(run):
    client = run.client()

    def walk(path=None):
        for file in client.list_artifacts(run.run_id, path):
            yield from walk(file.path) if file.is_dir else [file.path]

    return set(walk())


def assert_complete(run, moments):
    files = files_of(run)
    tables = {f"ifa/epoch_{m.epoch:04d}/{split}.npz" for m in moments for split in ("train", "validation")}
    root = {"ifa_overview.png", "ifa_summary.md", "ifa_report.html", *TABLES}
    assert root | tables | {"ifa_scale.json"} <= files
    for moment in moments:
        shown = {f.split("+")[0] for f in files if f"+step+{moment.epoch}+" in f and f.endswith(".png")}
        assert shown == {"images/ifa~probes", *(f"images/ifa~xai~{probe}" for probe in range(3))}
    assert len([f for f in files if f.startswith("images/")]) == 2 * 4 * len(moments)
    tags = run.client().get_run(run.run_id).data.tags
    assert tags["ifa.layer"] == "features"
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": table, "type": "table"} for table in TABLES]
    assert tags["mlflow.loggedImages"] == "True"
    assert tags[DESCRIPTION].startswith(BEGIN)


def put(sink, report, run, moment, begins=None):
    def render(folder):
        assert begins is None or begins.wait(30)
        write_job(report, folder, run, moment, single_images=True)

    sink.put(f"job-{moment.step}", render)


MOMENTS = [Moment(0, 3), Moment(1, 7)]


def test_everything_arrives_and_the_spool_is_gone(report, run, tmp_path):
    sink = Spool(tmp_path / "spool", run.tracking_uri)
    for moment in MOMENTS:
        put(sink, report, run, moment)
    sink.close(60)
    assert_complete(run, MOMENTS)
    assert not (tmp_path / "spool").exists()


def test_nothing_is_lost_where_the_server_is_away(report, run, tmp_path, nowhere):
    sink, handed_over = Spool(tmp_path / "spool", nowhere), threading.Event()
    for moment in MOMENTS:
        put(sink, report, Run(run.run_id, nowhere), moment, handed_over)
    handed_over.set()  # who hands over waits for no rendering
    with pytest.warns(IFAWarning, match=r"2 uploads to MLflow are left over .* sync"):
        sink.close(60)
    for folder in list_pending(tmp_path / "spool"):
        upload(folder, run.tracking_uri)
    assert_complete(run, MOMENTS)
    assert not list(list_pending(tmp_path / "spool"))


def test_an_interrupted_upload_goes_on_where_it_stopped(report, run, tmp_path, monkeypatch):
    write_job(report, tmp_path / "job", run, MOMENTS[0], single_images=True)
    log_artifact, calls = mlflow.MlflowClient.log_artifact, []

    def dies_at_every_third(*args):
        calls.append(args[2])
        if len(calls) % 3 == 0:
            raise ConnectionError
        return log_artifact(*args)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", dies_at_every_third)
    while (tmp_path / "job").exists():
        with contextlib.suppress(ConnectionError):
            upload(tmp_path / "job")
    failed = calls[2::3]
    assert failed
    assert all(calls.count(path) == 1 + failed.count(path) for path in calls)
    assert_complete(run, MOMENTS[:1])


def test_credentials_are_not_written_to_disk(tmp_path):
    Job("id", "http://me:secret@host:5000").save(tmp_path)
    assert "secret" not in (tmp_path / "job.json").read_text()


def test_pictures_that_cannot_be_made_stop_nothing(report, run, tmp_path):
    sink = Spool(tmp_path / "spool", run.tracking_uri)
    sink.put("broken", lambda folder: 1 / 0)
    put(sink, report, run, MOMENTS[0])
    sink.close(60)
    assert_complete(run, MOMENTS[:1])


def test_folder_without_a_job(tmp_path):
    with pytest.raises(FileError, match=r"job\.json is not there"):
        upload(tmp_path)


def test_callback_logs_metrics_by_step_and_images_by_epoch(store, tmp_path):
    logger = MLFlowLogger("x", tracking_uri=store)
    callback = IntegratedFeatureAnalysis(on_error="raise", probes=3)
    fit([callback], logger=logger, default_root_dir=tmp_path, log_every_n_steps=1)
    client = mlflow.MlflowClient(store)
    history = client.get_metric_history(logger.run_id, "ifa/overfitting/score")
    assert [metric.step for metric in history] == [5, 11]
    assert history[-1].value == pytest.approx(callback.report.metrics["ifa/overfitting/score"], rel=1e-6)
    run = Run(logger.run_id, store)
    files = files_of(run)
    steps = {f.split("+step+")[1].split("+")[0] for f in files if f.startswith("images/")}
    assert steps == {"0", "1"}
    path = client.download_artifacts(logger.run_id, "ifa/epoch_0001/validation.npz", str(tmp_path))
    assert FeatureTable.load(path).digest == client.get_run(logger.run_id).data.tags["ifa.dataset_digest"]
    confounders = client.download_artifacts(logger.run_id, "ifa_confounders.json", str(tmp_path))
    assert "source" in pd.read_json(confounders, orient="split")


def test_training_survives_a_dead_server(nowhere, store, tmp_path):
    """The user's own logger is alive; the run that pictures go to is not reachable."""
    callback = IntegratedFeatureAnalysis(run_id="0" * 32, tracking_uri=nowhere)
    with patience(), pytest.warns(IFAWarning, match=r"4 uploads to MLflow are left over"):
        trainer, _ = fit([callback], default_root_dir=tmp_path)
    assert trainer.state.finished
    assert len(list(list_pending(tmp_path / "ifa"))) == 4  # two analyses, the pictures and the probes of the last one


def test_baseline_scale_is_taken_over(store, tmp_path):
    first = IntegratedFeatureAnalysis(on_error="raise")
    logger = MLFlowLogger("x", tracking_uri=store)
    fit([first], logger=logger, default_root_dir=tmp_path, max_epochs=1)
    second = IntegratedFeatureAnalysis(on_error="raise", baseline_run_id=logger.run_id)
    fit([second], logger=MLFlowLogger("x", tracking_uri=store), default_root_dir=tmp_path, seed=1, max_epochs=1)
    assert second.report.scale == first.report.scale


def test_resumed_training_says_that_it_logs_elsewhere(store, tmp_path):
    first = IntegratedFeatureAnalysis(on_error="raise")
    trainer, _ = fit([first], logger=MLFlowLogger("x", tracking_uri=store), default_root_dir=tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    logger = MLFlowLogger("x", tracking_uri=store)
    trainer = pl.Trainer(
        callbacks=[IntegratedFeatureAnalysis()],
        logger=logger,
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator="cpu",
    )
    with pytest.warns(IFAWarning, match=r"were trained in run .*, but run .* is logged to"):
        trainer.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "last.ckpt")


def test_input_pixels_stay_in_the_process(store, tmp_path):
    callback = IntegratedFeatureAnalysis(on_error="raise", log_images=False, probes=3)
    logger = MLFlowLogger("x", tracking_uri=store)
    fit([callback], logger=logger, default_root_dir=tmp_path, max_epochs=1)
    assert callback.report.probes.images is None
    assert any(file.startswith("images/") for file in files_of(Run(logger.run_id, store)))
