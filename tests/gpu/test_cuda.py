"""What only a GPU can show: the fp16 scaler, CUDA's random state, CUDA's numbers, NCCL."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from lightning_modules import Classifier, fit, weights
from mlflow import MlflowClient
from models import PoolNet, loader
from torchrun_job import run_job

from lightning_ifa.analysis import analyze
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:no MLflow run was found"),
]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """TF32 would round convolutions to ten bits, on the GPU only."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_weights_and_loss_scale_are_the_same_with_and_without(precision):
    settings = {"accelerator": "gpu", "devices": 1, "precision": precision}
    plain, module = fit(**settings)
    analysis = IntegratedFeatureAnalysis(on_error="raise")
    watched, same = fit([analysis], **settings)
    assert analysis.report is not None
    assert weights(same) == weights(module)
    assert watched.precision_plugin.state_dict() == plain.precision_plugin.state_dict()
    assert precision != "16-mixed" or watched.precision_plugin.scaler is not None


@pytest.mark.parametrize("fails", [False, True])
def test_cudas_random_state_is_restored(fails):
    module = Classifier().cuda()
    before = torch.cuda.get_rng_state()

    def draws(batch):
        torch.rand(5, device="cuda")
        if fails:
            raise ZeroDivisionError
        return batch[0], batch[1]

    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        analyze(module, loader(24, seed=2), loader(24, seed=1), batch_fn=draws)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_the_numbers_are_those_of_the_cpu():
    torch.manual_seed(0)
    module = PoolNet().eval()
    loaders = loader(60, seed=2), loader(48, seed=1)
    on_cpu = analyze(module, *loaders)
    on_gpu = analyze(module.cuda(), *loaders)
    assert on_gpu.digest == on_cpu.digest
    assert on_gpu.metrics == pytest.approx(on_cpu.metrics, rel=1e-3, abs=1e-3)
    for split, table in on_gpu.tables.items():
        expected = torch.from_numpy(on_cpu.tables[split].contributions)
        torch.testing.assert_close(torch.from_numpy(table.contributions), expected, rtol=1e-3, atol=1e-4)


def test_nccl_ranks_give_one_report(tmp_path):
    """With one GPU a world of one process, which still opens and closes NCCL."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(store).create_experiment("torchrun", artifact_location=(tmp_path / "artifacts").as_uri())
    world = min(torch.cuda.device_count(), 2)
    run_job(tmp_path, "gpu", world)
    found = [json.loads((tmp_path / "uneven" / f"rank{rank}.json").read_text()) for rank in range(world)]
    assert found[0]["ids"] == {"train": [str(i) for i in range(21)], "validation": [str(i) for i in range(13)]}
    assert all(rank["metrics"] == found[0]["metrics"] for rank in found)
    assert "ifa/health/overfitting" in found[0]["metrics"]
