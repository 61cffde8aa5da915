"""The callback within real trainings: it logs what it should and disturbs nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from lightning_modules import Classifier, fit, loaders, weights
from models import PoolNet, Squares, loader
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import IFAError, IFAWarning
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.session import Session

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.filterwarnings("ignore:no MLflow run was found")]


def test_weights_are_bit_identical_where_the_analysis_fails():
    _, plain = fit()
    with pytest.warns(IFAWarning, match='did you mean "net.head"'):
        _, watched = fit([IntegratedFeatureAnalysis(layer="net.haed")])
    assert weights(watched) == weights(plain)


@pytest.mark.parametrize("compiled", ["module", "part", "in place"])
def test_compiled_modules(compiled):
    module = Classifier()
    if compiled == "part":
        module.net = torch.compile(module.net, backend="eager")
    elif compiled == "in place":
        module.net.compile(backend="eager")
    else:
        module.validation_step = lambda batch, batch_idx: None  # Lightning itself cannot log from compiled steps
        module = torch.compile(module, backend="eager")
    callback = IntegratedFeatureAnalysis(on_error="raise")
    fit([callback], module=module, max_epochs=1)
    assert callback.report.tables["validation"].layer == "net.features"


def test_metrics_reach_checkpoints_and_early_stopping(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="ifa/overfitting/score", filename="best")
    stopping = EarlyStopping("ifa/health/consistency", mode="max", patience=5)
    callback = IntegratedFeatureAnalysis(on_error="raise")
    trainer, _ = fit([stopping, checkpoint, callback], enable_checkpointing=True)
    assert checkpoint.best_model_path
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("ifa/")}
    assert logged == pytest.approx(callback.report.metrics, rel=1e-6, abs=1e-6)


def test_nothing_happens_in_the_sanity_check(monkeypatch):
    seen = []
    callback = IntegratedFeatureAnalysis()
    monkeypatch.setattr(Session, "analyze", lambda self, trainer, *_: seen.append(trainer.sanity_checking))
    fit([callback], max_epochs=1)
    assert seen == [False]


def test_every_n_epochs(monkeypatch):
    seen = []
    callback = IntegratedFeatureAnalysis(every_n_epochs=2)
    monkeypatch.setattr(Session, "analyze", lambda self, trainer, *_: seen.append(trainer.current_epoch))
    trainer, module = fit([callback], max_epochs=5)
    assert seen == [1, 3]
    trainer.validate(module, loaders()[1], verbose=False)
    assert seen == [1, 3, 5]


def test_validation_after_training_runs_in_inference_mode():
    callback = IntegratedFeatureAnalysis(on_error="raise", train_dataloader=loaders()[0])
    trainer, module = fit([callback], max_epochs=1)
    before, during = weights(module), callback.report.metrics
    trainer.validate(module, loaders()[1], verbose=False)
    assert weights(module) == before
    assert callback.report.metrics == pytest.approx(during, rel=1e-4, abs=1e-5)


def test_validation_transforms_of_the_module_are_used():
    class Normalising(Classifier):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            assert self.trainer.training or self.trainer.validating or self.trainer.sanity_checking
            return (x if self.trainer.training else x / 10), y

    callback = IntegratedFeatureAnalysis(on_error="raise")
    fit([callback], module=Normalising(), max_epochs=1)
    assert callback.report.tables["train"].properties["contrast"].max() < 0.2


@pytest.mark.filterwarnings("ignore:validation. 1 of 3 classes have one sample")
@pytest.mark.parametrize(
    "settings", [{"fast_dev_run": True}, {"limit_val_batches": 0.5}, {"overfit_batches": 2}, {"barebones": True}]
)
def test_trainer_settings_do_not_break_it(settings):
    if "barebones" in settings or "fast_dev_run" in settings:
        settings = settings | {"logger": None, "enable_checkpointing": None}
    if "barebones" in settings:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pl.seed_everything(0, verbose=False)
            trainer = pl.Trainer(
                barebones=True, max_epochs=1, accelerator="cpu", callbacks=[IntegratedFeatureAnalysis()]
            )
            trainer.fit(Classifier(), *loaders())
            return
    callback = IntegratedFeatureAnalysis(on_error="raise")
    fit([callback], max_epochs=1, **settings)
    assert callback.report is not None


def test_no_validation_no_analysis():
    callback = IntegratedFeatureAnalysis(on_error="raise")
    with pytest.warns(IFAWarning, match="nothing was analysed in this training: no validation ran"):
        fit([callback], max_epochs=1, limit_val_batches=0)
    assert callback.report is None


def test_several_loaders_the_first_validation_loader_counts():
    train, validation = loaders()
    callback = IntegratedFeatureAnalysis(on_error="raise")

    class Several(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return None

    fit([callback], module=Several(), data=({"a": train, "b": train}, [validation, loader(9)]), max_epochs=1)
    assert len(callback.report.tables["validation"]) == 24


def test_metadata_file(tmp_path):
    rows = [("validation", i, "ABC"[i % 2]) for i in range(24)]
    pd.DataFrame(rows, columns=["split", "index", "site"]).to_csv(tmp_path / "metadata.csv", index=False)
    callback = IntegratedFeatureAnalysis(on_error="raise", metadata=str(tmp_path / "metadata.csv"))
    fit([callback], max_epochs=1)
    assert "site" in callback.report.confounders["source"].tolist()


class Words(IterableDataset):
    def __iter__(self):
        return iter([{"scan": image, "grade": label} for image, label in map(Squares(24).__getitem__, range(24))])


class Blind(Classifier):
    def validation_step(self, batch, batch_idx):
        return None


class Strange(Classifier):
    def forward(self, x):
        scores = super().forward(x)
        return {"scores": scores, "other": scores * 2}

    def training_step(self, batch, batch_idx):
        return nn_loss(self(batch[0])["scores"], batch[1])

    def validation_step(self, batch, batch_idx):
        return None


class Diverged(Classifier):
    def on_validation_start(self):
        with torch.no_grad():
            self.net.features[0].weight.fill_(torch.nan)


def nn_loss(scores, labels):
    return torch.nn.functional.cross_entropy(scores, labels)


BAD = {
    "stream": ({"module": Blind(), "data": (loaders()[0], DataLoader(Words(), 8))}, {}, r"keys \['grade', 'scan'\]"),
    "output": ({"module": Strange()}, {}, "scores .* other|several"),
    "diverged": ({"module": Diverged()}, {}, "NaN or infinite values"),
    "layer": ({}, {"layer": "nett.features"}, 'did you mean "net.features"'),
    "task": ({}, {"task": "regression"}, 'task "regression" needs output'),
    "one class": ({"data": (loaders()[0], loader(1))}, {}, "two classes with two samples each"),
    "metadata": ({}, {"metadata": "nowhere.csv"}, "nowhere.csv cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_warns_once_and_training_goes_on(case):
    settings, options, match = BAD[case]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "no MLflow run was found")
        trainer, _ = fit([IntegratedFeatureAnalysis(**options)], **settings)
    ours = [str(w.message) for w in seen if issubclass(w.category, IFAWarning)]
    assert len(ours) == 1
    with pytest.raises(AssertionError, match=match):
        raise AssertionError(ours[0])
    assert trainer.state.finished
    assert trainer.current_epoch == 2


def test_bad_input_may_raise():
    with pytest.raises(IFAError, match="did you mean"):
        fit([IntegratedFeatureAnalysis(layer="nett", on_error="raise")], max_epochs=1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_samples": 1}, "max_samples=1"),
        ({"probes": 0}, "probes=0"),
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        IntegratedFeatureAnalysis(**options)


HOOKS = (
    "start_stage", "start_fit", "start_epoch", "see_validation_batch", "finish_validation",
    "send", "record",
)  # fmt: skip


@pytest.mark.parametrize("method", HOOKS)
def test_a_hook_that_fails_ends_the_training_only_if_that_is_wanted(monkeypatch, tmp_path, method):
    def fail(*_, **__):
        raise RuntimeError("out of order")

    def train(**options):
        callback = IntegratedFeatureAnalysis(**options)
        try:
            trainer, module = fit([callback], max_epochs=1)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
        finally:
            callback.session.run_logger.close(10.0, "")  # the threads of a session whose close failed
        return module

    plain = fit(max_epochs=1)[1]
    monkeypatch.setattr(Session, method, fail)
    with pytest.warns(IFAWarning, match="training goes on: RuntimeError: out of order"):
        assert weights(train()) == weights(plain)
    with pytest.raises(RuntimeError, match="out of order"):
        train(on_error="raise")


def test_two_instances_look_at_two_layers():
    callbacks = [IntegratedFeatureAnalysis(layer=f"net.features.{i}", on_error="raise") for i in (1, 4)]
    fit(callbacks, max_epochs=1)
    assert [c.report.tables["train"].contributions.shape[1] for c in callbacks] == [4, 8]


def test_pooled_head_keeps_its_identity_in_training():
    class Plain(Classifier):
        def forward(self, x):
            return self.net(x)

    callback = IntegratedFeatureAnalysis(on_error="raise")
    fit([callback], module=Plain(), max_epochs=1)
    assert isinstance(PoolNet(), torch.nn.Module)
    assert callback.report.metrics["ifa/consistency/completeness"] == pytest.approx(1, abs=1e-4)


def test_reshape_reaches_layers_of_unusual_form():
    class Boxes(torch.nn.Module):
        """Positions in boxes of two by two, as windows of an attention: ``(n, boxes, 4, c)``."""

        def forward(self, maps):
            return maps.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(1, 2)

    class Boxed(PoolNet):
        def __init__(self):
            super().__init__()
            self.boxes = Boxes()

        def forward(self, x):
            return self.head(self.boxes(self.features(x)).mean((1, 2)))

    def unboxed(boxes):
        return boxes.unflatten(1, (6, 6)).unflatten(3, (2, 2)).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    module = Classifier()
    module.net = Boxed()
    callback = IntegratedFeatureAnalysis(layer="net.boxes", reshape=unboxed, on_error="raise")
    fit([callback], module=module, max_epochs=1)
    whole = IntegratedFeatureAnalysis(layer="net.features", on_error="raise")
    trainer, _ = fit([whole], module=module, max_epochs=0)
    trainer.validate(module, loaders()[1], verbose=False)
    found, expected = (each.report.tables["validation"] for each in (callback, whole))
    assert found.layer == "net.boxes"
    np.testing.assert_allclose(found.cams, expected.cams, rtol=1e-4, atol=1e-6)


def test_regions_and_metadata_of_the_data_set_give_the_numbers_of_analyze():
    class Known(Squares):
        metadata = pd.DataFrame({"site": ["a", "b", "b"] * 16})

        def region(self, index):
            return self.images[index, 0].numpy() > 0.5

    train, _ = loaders()
    val = DataLoader(Known(48, seed=2), 8)
    callback = IntegratedFeatureAnalysis(on_error="raise")
    _, module = fit([callback], data=(train, val))
    again = analyze(module, val, train)
    assert {"site", "outside the region"} <= set(callback.report.confounders["source"])
    assert callback.report.metrics == pytest.approx(again.metrics, rel=1e-3, abs=1e-4)


def test_the_epoch_at_which_overfitting_began_survives_a_resume(tmp_path):
    class Fast(Classifier):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.03)

    def data():
        train, val = loader(48, seed=1, batch_size=8), loader(60, seed=2, batch_size=60)
        val.dataset.labels = val.dataset.labels.roll(1)  # nothing learnt on the training labels holds here
        return train, val

    first = IntegratedFeatureAnalysis(on_error="raise")
    trainer, module = fit([first], module=Fast(), data=data(), max_epochs=2, enable_checkpointing=True)
    path = tmp_path / "two.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    assert torch.load(path, weights_only=True)["callbacks"]
    callback = IntegratedFeatureAnalysis(on_error="raise")
    again = pl.Trainer(
        accelerator="cpu", max_epochs=8, callbacks=[callback], logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    again.fit(module, *data(), ckpt_path=path)
    report = callback.report
    trend = report.trend["overfitting"]
    assert [point.epoch for point in trend] == list(range(8))
    assert trend[:2] == first.report.trend["overfitting"]
    z = [point.z for point in trend]
    began = next(i for i in range(7) if z[i] > 3 and z[i + 1] > 3)
    assert report.metrics["ifa/overfitting/left_null"] == report.left_null == began
    report.save(tmp_path / "report")
    assert type(report).load(tmp_path / "report").left_null == began
