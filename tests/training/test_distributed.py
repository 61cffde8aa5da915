"""One rank and two ranks give the same report, one run, and no hang when a rank fails."""

from __future__ import annotations

import json
import multiprocessing
import time

import mlflow
import pytest
import pytorch_lightning as pl
import torch
from lightning_modules import Classifier, loaders
from models import loader
from pytorch_lightning.loggers import MLFlowLogger
from time_limit import time_limit

from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.session import Session

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:no MLflow run was found"),
    pytest.mark.filterwarnings("ignore:It is recommended to use `self.log"),
    pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
]


class Recorder(pl.Callback):
    """Writes what each rank knows; attributes set in forked processes are lost."""

    def __init__(self, folder, analysis):
        self.folder, self.analysis = folder, analysis

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        known = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("ifa/")}
        report = self.analysis.report
        content = {"metrics": known}
        if report is not None:
            content |= {"ids": report.tables["validation"].sample_ids.tolist(), "digest": report.digest}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(content))


class FailsOnRankOne(Session):
    def _share(self, trainer, samples):
        if trainer.global_rank == 1:
            raise ZeroDivisionError("only here")
        return super()._share(trainer, samples)


class WaitsOnRankOne(Session):
    def _share(self, trainer, samples):
        if trainer.global_rank == 1:
            time.sleep(3600)
        return super()._share(trainer, samples)


def with_session(kind):
    analysis = IntegratedFeatureAnalysis(train_dataloader=loaders()[0])
    analysis.session = kind(analysis.session.options, analysis.session.training)
    return analysis


def validate(folder, ranks, analysis=None, n_val=13, **settings):
    folder.mkdir()
    torch.manual_seed(0)
    analysis = analysis or IntegratedFeatureAnalysis(on_error="raise", train_dataloader=loaders()[0])
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        callbacks=[analysis, Recorder(folder, analysis)],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False} | settings,
    )
    trainer.validate(Classifier(), loader(n_val, seed=2, batch_size=4), verbose=False)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def test_one_and_two_ranks_give_the_same_report(tmp_path):
    (one,) = validate(tmp_path / "one", 1)
    two = validate(tmp_path / "two", 2)
    assert two[0]["ids"] == one["ids"] == [str(i) for i in range(13)]
    assert two[0]["digest"] == one["digest"]
    assert "ids" not in two[1]
    for rank in two:
        assert rank["metrics"] == pytest.approx(one["metrics"], rel=1e-3, abs=1e-4)


@pytest.mark.filterwarnings("ignore:feature analysis left out, training goes on")
def test_a_rank_that_fails_alone_stops_nobody(tmp_path):
    results = validate(tmp_path / "run", 2, with_session(FailsOnRankOne))
    assert [rank["metrics"] for rank in results] == [{}, {}]


def test_ranks_that_wait_for_each_other_fail_the_test(tmp_path):
    analysis = with_session(WaitsOnRankOne)
    with pytest.raises(TimeoutError), time_limit(4):
        validate(tmp_path / "run", 2, analysis)
    for child in multiprocessing.active_children():
        child.join(10)
    assert not multiprocessing.active_children()


def test_ranks_with_few_samples_agree(tmp_path):
    results = validate(tmp_path / "run", 2, IntegratedFeatureAnalysis(train_dataloader=loader(6)), n_val=7)
    assert results[0]["metrics"] == results[1]["metrics"]


@pytest.mark.filterwarnings("ignore:feature analysis left out, training goes on")
def test_a_rank_without_samples_stops_nobody(tmp_path):
    results = validate(tmp_path / "run", 2, IntegratedFeatureAnalysis(train_dataloader=loader(6)), n_val=1)
    assert [rank["metrics"] for rank in results] == [{}, {}]


def test_two_ranks_log_to_one_run(tmp_path, store):
    results = validate(tmp_path / "run", 2, logger=MLFlowLogger("ddp", tracking_uri=store))
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ddp").experiment_id])
    logged = {key: value for key, value in run.data.metrics.items() if key.startswith("ifa/")}
    assert logged == pytest.approx(results[0]["metrics"], rel=1e-5, abs=1e-6)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"ifa_overview.png", "ifa_summary.md"}
