"""Every configuration runs from start to a finished MLflow run, and a planted mark is found where it confounds."""

from __future__ import annotations

import sys

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner

from examples.paper.results.rows import CONFIGS, FOLDERS, ROWS, train_row
from examples.paper.seeds import markdown
from lightning_ifa.analysis import analyze
from lightning_ifa.cli import main
from lightning_ifa.indicators.registry import families


def test_every_configuration_is_a_row():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(ROWS)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("row", ROWS)
def test_a_configuration_runs_to_a_finished_run(row, stand_in, store, monkeypatch):
    """By the command that the head of every configuration names."""
    monkeypatch.setattr(sys, "argv", ["lightning-ifa"])
    root = stand_in(FOLDERS.get(row, row), count=160)
    short = ("--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false")
    command = ["fit", "--config", str(CONFIGS / f"{row}.yaml"), "--data.root", str(root), *short]
    result = CliRunner().invoke(main, [*command, f"--trainer.logger.tracking_uri={store}"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ifa-paper").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == row
    assert {f"ifa/{family}/score" for family in families()} <= set(run.data.metrics)
    assert "val_loss" in run.data.metrics
    assert run.data.metrics["ifa/consistency/score"] < 1e-3  # pooled, or ReLU layers without bias to speak of


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("row", "mark"), [("ultrasound", "calipers"), pytest.param("esmira", "site", marks=pytest.mark.slow)]
)
def test_a_planted_mark_raises_the_score_above_its_null_and_its_absence_does_not(row, mark, stand_in, store):
    found = {}
    for confounded in (False, True):
        root = stand_in(row, confounded=confounded, count=480)
        trained = train_row(row, root, store, row)
        found[confounded] = analyze(trained.model, trained.loader).findings["confounding"]
        candidates = trained.report.confounders.set_index("source")
        if confounded:
            assert candidates.loc[mark, "score"] > 0.1
            assert candidates.loc[mark, "z"] > 3
        else:
            assert candidates.loc[mark, "z"] < 3
    assert found[True].alarm
    assert not found[False].alarm


def test_alarms_are_counted_over_rows_and_seeds():
    found = {"row": "rsna", "seed": 0, "undecided": 0.0}
    numbers = pd.DataFrame(
        [
            found | {"mark": "off", "score": 0.01, "z": 0.4, "alarm": 0.0},
            found | {"mark": "on", "score": 0.4, "z": 9.0, "alarm": 1.0},
            found | {"mark": "on", "score": 0.0, "z": 0.0, "alarm": 0.0, "undecided": 1.0, "seed": 1},
        ]
    )
    lines = markdown(numbers).splitlines()
    assert "| RSNA pneumonia | 0.010 (0.4) | 0.400 (9.0) ALARM, cannot be told |" in lines
    assert lines[-1] == "| all | 0/1 alarms | 1/2 alarms |"
