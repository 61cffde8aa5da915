"""Long passes are seen in Lightning's own progress bar, short ones are not, and a broken bar harms nothing."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
from lightning_modules import Classifier, loaders

from lightning_ifa.training import progress
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.filterwarnings("ignore:no MLflow run was found")]


def shown(bar, capsys, tmp_path):
    analysis = IntegratedFeatureAnalysis(on_error="raise", train_dataloader=loaders()[0])
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[bar, analysis], default_root_dir=tmp_path
    )
    trainer.validate(Classifier(), loaders()[1], verbose=False)
    assert analysis.report is not None
    return capsys.readouterr().out.count(progress.DESCRIPTION)


class Broken(pl.callbacks.TQDMProgressBar):
    def init_validation_tqdm(self):
        if hasattr(self, "second"):
            raise OSError("no terminal")
        self.second = True
        return super().init_validation_tqdm()


def test_a_long_pass_is_seen(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert shown(pl.callbacks.TQDMProgressBar(), capsys, tmp_path) > 0


def test_a_long_pass_is_seen_in_a_rich_bar(monkeypatch, capsys, tmp_path):
    pytest.importorskip("rich", reason="rich is not installed")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bar = pl.callbacks.RichProgressBar(console_kwargs={"force_terminal": True, "width": 120})
    assert shown(bar, capsys, tmp_path) > 0


def test_a_short_pass_is_not_seen(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    assert shown(pl.callbacks.TQDMProgressBar(), capsys, tmp_path) == 0


def test_a_bar_that_breaks_harms_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert shown(Broken(), capsys, tmp_path) == 0
