"""A real ``torchrun`` with two processes: one run, no sample twice, metrics everywhere, no hang."""

from __future__ import annotations

import json

import pytest
import torch
from lightning_modules import Net
from mlflow import MlflowClient
from models import loader
from torchrun_job import run_job

from lightning_ifa.analysis import analyze


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").create_experiment(
        "torchrun", artifact_location=(folder / "artifacts").as_uri()
    )
    run_job(folder, "cpu", 2)
    return folder


def ranks(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_uneven_sets_give_the_report_of_one_process(ran):
    first, second = ranks(ran / "uneven")
    assert first["ids"] == {"train": [str(i) for i in range(21)], "validation": [str(i) for i in range(13)]}
    assert "ids" not in second
    assert first["weights"] == second["weights"]
    module = Net()
    module.load_state_dict(torch.load(ran / "uneven" / "weights.pt", weights_only=True))
    alone = analyze(module.eval(), loader(13, seed=2, batch_size=4), loader(21, seed=1, batch_size=4))
    for rank in (first, second):
        assert rank["metrics"] == pytest.approx(alone.metrics, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_all_of_it_goes_to_one_run(ran):
    client = MlflowClient(f"sqlite:///{ran / 'mlflow.db'}")
    (run,) = client.search_runs(["1"])
    logged = {key: value for key, value in run.data.metrics.items() if key.startswith("ifa/")}
    assert logged == pytest.approx(ranks(ran / "uneven")[0]["metrics"], rel=1e-5, abs=1e-6)
    assert len(client.get_metric_history(run.info.run_id, "ifa/overfitting/score")) == 1


@pytest.mark.slow
def test_a_rank_that_fails_leaves_the_training_as_it_was(ran):
    failing, sound = ranks(ran / "failing"), ranks(ran / "uneven")
    assert [rank["metrics"] for rank in failing] == [{}, {}]
    assert [rank["weights"] for rank in failing] == [rank["weights"] for rank in sound]


@pytest.mark.slow
def test_ranks_with_few_samples_agree(ran):
    first, second = ranks(ran / "scarce")
    assert first["metrics"] == second["metrics"]
