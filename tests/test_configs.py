"""Every configuration runs, and the demo's data are what it says they are."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import pytest
import torch
from click.testing import CliRunner

from lightning_ifa.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run_example(monkeypatch):
    """Run ``python examples/mnist.py ...`` in this process."""

    def run(*args):
        import mnist

        monkeypatch.setattr(sys, "argv", ["mnist.py", *args])
        mnist.main()

    return run


@pytest.fixture
def run_command(monkeypatch):
    """Run ``lightning-ifa ...`` in this process, where the repository is on the path as if it were the folder."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["lightning-ifa"])
        result = CliRunner().invoke(main, args, catch_exceptions=False)
        assert result.exit_code == 0, result.output

    monkeypatch.syspath_prepend(str(ROOT))
    return run


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.mark.parametrize("runner", ["run_example", "run_command"])
@pytest.mark.parametrize("config", ["mnist.yaml"])
def test_config(config, runner, store, request):
    if runner == "run_command":
        request.getfixturevalue("no_pictures")  # the example draws them
    short = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.limit_train_batches=4"]
    # MLflow keeps a relative store of an earlier test open
    own = [
        "--trainer.enable_progress_bar=false",
        "--data.condition=overfitted",
        f"--trainer.logger.tracking_uri={store}",
    ]
    request.getfixturevalue(runner)("fit", "--config", str(ROOT / "configs" / config), *short, *own)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ifa-mnist").experiment_id])
    assert "ifa/overfitting/score" in run.data.metrics


def test_help_of_the_callback_comes_from_its_docstring(run_example, capsys):
    with pytest.raises(SystemExit):
        run_example("fit", "--trainer.callbacks.help", "lightning_ifa.training.callback.IntegratedFeatureAnalysis")
    assert "no input pixel leaves the process" in " ".join(capsys.readouterr().out.split())


def test_the_tag_goes_with_the_label():
    from mnist import digits, tag

    images, labels = digits(0)
    tagged = tag(images, labels, 0)[:, 0, 2:6, 2:6].amin((1, 2)) == 1
    assert tagged[labels >= 5].float().mean() == pytest.approx(0.9, abs=0.02)
    assert tagged[labels < 5].float().mean() == pytest.approx(0.1, abs=0.02)


def test_shift_moves_every_image_its_own_way():
    from mnist import shift

    image = torch.zeros(50, 1, 9, 9)
    image[:, :, 4, 4] = 1
    moved = shift(image)
    assert moved.shape == image.shape
    assert moved.sum((1, 2, 3)).tolist() == [1.0] * 50
    assert len({tuple(one.nonzero()[0].tolist()) for one in moved}) > 10
