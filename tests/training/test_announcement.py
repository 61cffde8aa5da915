"""What a user is told in a training's first minutes: three lines after the first and the last analysis, not between."""

import pytest
from lightning_modules import fit, loaders
from reports import small_report

from lightning_ifa import IntegratedFeatureAnalysis
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.run import Run
from lightning_ifa.training.announcement import announce, tell_where
from lightning_ifa.training.notices import Notices

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.filterwarnings("ignore:no MLflow run was found")]


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(Notices, "inform", lambda _, text, below_bar=False: texts.append(text))
    return texts


def test_the_first_and_the_last_analysis_are_announced(told, tmp_path):
    train, validation = loaders()
    callback = IntegratedFeatureAnalysis(on_error="raise", probes=1, max_samples=16, train_dataloader=train)
    trainer, module = fit([callback], data=(train, validation), max_epochs=3, default_root_dir=tmp_path)
    first, last = (text for text in told if "found:" in text)
    assert "after epoch 0 (step 5): 16 train and 16 validation samples at layer " in first
    assert "after epoch 2 " in last
    for text in (first, last):
        _, found, *_, where = text.splitlines()
        assert "indicators" in found or "cannot be told" in found
        assert where == f"  see:    the newest folder in {tmp_path / 'ifa'}"
    told.clear()
    trainer.validate(module, validation, verbose=False)
    assert sum("found:" in text for text in told) == 1
    told.clear()
    fit([callback], data=(train, validation), max_epochs=1, fast_dev_run=True)
    assert [text.splitlines()[-1] for text in told] == ["  see:    nothing is kept of a fast_dev_run"]


def test_each_alarm_and_each_further_loader_has_a_line():
    report = small_report()
    lines = announce(report, Moment(3, 40), "here", {"dataloader_1": "No alarm in five indicators"}).splitlines()
    assert report.alarms
    assert [line.split(":")[0].strip() for line in lines[2:-1]] == [*report.alarms, "dataloader_1"]


def test_an_address_holds_no_password_and_a_run_that_waits_says_so(tmp_path):
    waiting = Run("4ab1", "http://me:secret@host", spool=tmp_path, is_offline=True)
    assert tell_where(waiting, "x") == f"run 4ab1, which waits for `lightning-ifa sync {tmp_path}`"
    assert tell_where(Run("4ab1", "http://me:secret@host"), "x") == "http://host/#/runs/4ab1"
