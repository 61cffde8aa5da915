"""Every configuration runs from start to a finished MLflow run, and a planted mark is found where it confounds."""

from __future__ import annotations

import mlflow
import pytest

from examples.paper.results.rows import FOLDERS, ROWS, train_row
from lightning_ifa import analyze


@pytest.mark.parametrize("row", ROWS)
def test_a_configuration_runs_to_a_finished_run(row, stand_in, store, monkeypatch):
    root = stand_in(FOLDERS.get(row, row), count=160)
    trained = train_row(row, root, store, row, "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1")
    run = mlflow.MlflowClient(store).get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == row
    families = ("overfitting", "confounding", "outliers", "redundancy", "consistency")
    assert {f"ifa/{family}/score" for family in families} <= set(run.data.metrics)
    assert "val_loss" in run.data.metrics
    assert trained.report.findings["consistency"].score < 1e-3  # pooled, or ReLU layers without bias to speak of


# the rows that train in seconds
@pytest.mark.parametrize(("row", "mark"), [("ultrasound", "calipers"), ("esmira", "site")])
def test_a_planted_mark_raises_the_score_above_its_null_and_its_absence_does_not(row, mark, stand_in, store):
    found = {}
    for confounded in (False, True):
        root = stand_in(row, confounded=confounded, count=480)
        trained = train_row(row, root, store, row)
        found[confounded] = analyze(trained.model, trained.loader).findings["confounding"]
        suspects = trained.report.confounders.set_index("source")
        if confounded:
            assert suspects.loc[mark, "score"] > 0.1
            assert suspects.loc[mark, "z"] > 3
        else:
            assert suspects.loc[mark, "z"] < 3
    assert found[True].alarm
    assert not found[False].alarm
