"""Whatever the trainer is told to do, the analysis looks at what is trained and what is validated."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from lightning_modules import Classifier, fit, loaders, weights
from models import Squares, loader
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import IFAWarning
from lightning_ifa.tracking.checkpoint import KEY
from lightning_ifa.training import session
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.schedule import Schedule

pytestmark = [
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.filterwarnings("ignore:no MLflow run was found"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def analysed(seen, **options):
    """A callback that notes the epoch and step of each analysis instead of making it."""
    callback = IntegratedFeatureAnalysis(on_error="raise", **options)
    callback.session.analyze = lambda trainer, *_: seen.append((trainer.current_epoch, trainer.global_step))
    return callback


class Silent(Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return None


@pytest.mark.parametrize(
    ("settings", "validation", "train"),
    [
        ({"limit_val_batches": 2}, range(16), range(48)),
        ({"limit_val_batches": 0.7}, range(16), range(48)),
        ({"overfit_batches": 2}, range(16), range(16)),
    ],
)
def test_only_samples_that_the_trainer_sees_are_analysed(settings, validation, train):
    callback = IntegratedFeatureAnalysis(on_error="raise")
    fit([callback], max_epochs=1, **settings)
    assert callback.report.tables["validation"].indices.tolist() == list(validation)
    assert callback.report.tables["train"].indices.tolist() == list(train)


@pytest.mark.parametrize(
    ("settings", "moments"),
    [
        ({"val_check_interval": 0.5}, [(0, 3), (0, 6), (1, 9), (1, 12)]),
        ({"check_val_every_n_epoch": 2}, [(1, 12)]),
        ({"check_val_every_n_epoch": None, "val_check_interval": 4}, [(0, 4), (1, 8), (1, 12)]),
        ({"fast_dev_run": True, "logger": None, "enable_checkpointing": None}, [(0, 1)]),
    ],
)
def test_every_validation_is_analysed(settings, moments):
    seen = []
    fit([analysed(seen)], module=Silent(), **settings)
    assert seen == moments


def test_each_validation_loader_has_a_family_of_its_own():
    train, validation = loaders()
    callback = IntegratedFeatureAnalysis(on_error="raise")
    data = (train, CombinedLoader([validation, loader(9, seed=5), loader(12, seed=6)], "sequential"))
    trainer, _ = fit([callback], module=Silent(), data=data, max_epochs=1)
    for number, name in enumerate(("ifa", "ifa/dataloader_1", "ifa/dataloader_2")):
        assert f"{name}/outliers/score" in trainer.callback_metrics, number
    assert len(callback.report.tables["validation"]) == 24
    first = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("ifa/") and "dataloader" not in k}
    assert first == pytest.approx(callback.report.metrics, rel=1e-6, abs=1e-6)


def test_a_further_loader_that_fails_leaves_the_first_alone():
    train, validation = loaders()
    with pytest.warns(IFAWarning, match="two classes with two samples each"):
        trainer, _ = fit(
            [IntegratedFeatureAnalysis()], module=Silent(), data=(train, [validation, loader(1)]), max_epochs=1
        )
    assert "ifa/outliers/score" in trainer.callback_metrics
    assert not any(key.startswith("ifa/dataloader_1/") for key in trainer.callback_metrics)


def test_validating_other_data_later_analyses_the_other_data():
    callback = IntegratedFeatureAnalysis(on_error="raise")
    trainer, module = fit([callback], max_epochs=1)
    trainer.validate(module, loader(15, seed=7), verbose=False)
    assert len(callback.report.tables["validation"]) == 15


class Stream(IterableDataset):
    def __init__(self, n, seed):
        self.data, self.reads = Squares(n, seed), 0

    def __iter__(self):
        self.reads += 1
        return iter([self.data[i] for i in range(len(self.data))])


def test_streams_are_sampled_as_they_go_by():
    train, validation = Stream(48, 1), Stream(24, 2)
    callback = IntegratedFeatureAnalysis(on_error="raise")
    data = (DataLoader(train, 8), DataLoader(validation, 8))
    _, module = fit([callback], data=data, num_sanity_val_steps=0)
    assert (train.reads, validation.reads) == (2, 2)
    expected = analyze(module, DataLoader(validation.data, 8), DataLoader(train.data, 8))
    found = callback.report.tables
    for split in ("train", "validation"):
        assert found[split].indices.tolist() == expected.tables[split].indices.tolist()
        assert found[split].digest == expected.tables[split].digest
    assert callback.report.metrics == pytest.approx(expected.metrics, rel=1e-3, abs=1e-4)


def test_streams_do_not_disturb_training():
    def data():
        return DataLoader(Stream(48, 1), 8), DataLoader(Stream(24, 2), 8)

    _, plain = fit(data=data())
    _, watched = fit([IntegratedFeatureAnalysis(on_error="raise", max_samples=10)], data=data())
    assert weights(plain) == weights(watched)


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_manual_optimisation():
    callback = IntegratedFeatureAnalysis(on_error="raise")
    _, plain = fit(module=fresh(Manual))
    _, watched = fit([callback], module=fresh(Manual))
    assert weights(plain) == weights(watched)
    assert callback.report is not None


def fresh(kind):
    torch.manual_seed(0)
    return kind()


class Halved(pl.Callback):
    """Validates with other weights than it trains with, as averaging callbacks do."""

    def on_validation_epoch_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.head.weight.mul_(0.5)

    def on_validation_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.head.weight.mul_(2.0)


@pytest.mark.parametrize("first", [True, False])
def test_the_analysis_sees_the_weights_that_are_validated(first):
    callback, seen = IntegratedFeatureAnalysis(on_error="raise"), {}

    class Scores(Classifier):
        def validation_step(self, batch, batch_idx):
            seen[batch_idx] = self(batch[0])

    fit([Halved(), callback] if first else [callback, Halved()], module=fresh(Scores), max_epochs=1)
    torch.testing.assert_close(
        torch.from_numpy(callback.report.tables["validation"].logits), torch.cat([seen[i] for i in range(3)])
    )


def test_two_instances_log_and_record_apart(tmp_path):
    callbacks = [IntegratedFeatureAnalysis(layer=f"net.features.{i}", on_error="raise") for i in (4, 1)]
    checkpoint = ModelCheckpoint(tmp_path / "c", monitor="ifa/net.features.1/redundancy/score")
    trainer, _ = fit([*callbacks, checkpoint], max_epochs=1, enable_checkpointing=True)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("ifa/")}
    plain = {k: v for k, v in logged.items() if "net.features.1" not in k}
    assert plain == pytest.approx(callbacks[0].report.metrics, rel=1e-6, abs=1e-6)
    second = {k.replace("ifa/net.features.1/", "ifa/"): v for k, v in logged.items() if "net.features.1" in k}
    assert second == pytest.approx(callbacks[1].report.metrics, rel=1e-6, abs=1e-6)
    content = torch.load(checkpoint.best_model_path, weights_only=True)
    records = [content[KEY], content[f"{KEY}/net.features.1"]]
    assert [found["layer"] for found in records] == ["net.features.4", "net.features.1"]
    assert all(key in trainer.callback_metrics for found in records for key in found["metrics"])


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loaders()[0]

    def val_dataloader(self):
        return loaders()[1]


class WithDuplicate(Data):
    def train_dataloader_clean(self):
        return loader(48, seed=1, batch_size=12)


def fit_data(data, **options):
    callback = IntegratedFeatureAnalysis(on_error="raise", **options)
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[callback], accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(fresh(Classifier), datamodule=data)
    return trainer, callback


def test_clean_counterpart_of_the_data_module_is_used():
    trainer, callback = fit_data(WithDuplicate())
    plain = Squares(48, 1)
    assert (
        callback.report.tables["train"].digest
        == analyze(trainer.lightning_module, loader(24, seed=2), DataLoader(plain, 8)).tables["train"].digest
    )
    assert not callback.report.findings["overfitting"].note.startswith("the training inputs are augmented")
    assert callback.report.metrics["ifa/overfitting/augmentation_gap"] != 0.0


def test_augmentation_is_said_once_where_there_is_no_duplicate(caplog):
    _, callback = fit_data(Data())
    assert caplog.text.count("the training inputs are augmented at random") == 1
    assert "ifa/overfitting/augmentation_gap" not in callback.report.metrics


class Ticking:
    """A clock that only the analysis and the training move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def thinned(monkeypatch, epochs, cost, share, *others):
    clock, seen, logged = Ticking(), [], {}

    class Epochs(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            clock.now += 100.0

        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                logged[trainer.current_epoch] = {
                    key: float(value) for key, value in trainer.callback_metrics.items() if "budget" in key
                }

    callback = IntegratedFeatureAnalysis(max_overhead=share)
    monkeypatch.setattr(session, "Schedule", partial(Schedule, clock=clock))

    def work(trainer, *_):
        clock.now += cost
        seen.append(trainer.current_epoch)

    callback.session.analyze = work
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit([callback, Epochs(), *others], max_epochs=epochs, enable_checkpointing=bool(others))
    return seen, logged, [str(w.message) for w in said if issubclass(w.category, IFAWarning)]


def test_the_budget_thins_and_says_so(monkeypatch):
    seen, logged, said = thinned(monkeypatch, 9, 10.0, 0.05)
    assert seen == [0, 3, 5, 7, 8]  # the first, every second, the last
    assert len(said) == 1
    assert "max_overhead=0.05" in said[0]
    assert logged[6] == {"ifa/budget/skipped": 4.0, "ifa/budget/overhead": pytest.approx(30 / 700)}


def test_a_cheap_analysis_is_never_skipped(monkeypatch):
    seen, logged, said = thinned(monkeypatch, 4, 1.0, 0.05)
    assert seen == [0, 1, 2, 3]
    assert logged[3]["ifa/budget/skipped"] == 0.0
    assert not said


def test_weights_that_will_be_kept_are_analysed_whatever_the_budget(tmp_path, monkeypatch):
    class Scored(Classifier):
        def validation_step(self, batch, batch_idx):
            self.log("loss", {0: 5.0, 1: 4.0, 2: 4.5, 3: 3.0, 4: 3.5, 5: 9.0}[self.current_epoch])

    clock, seen = Ticking(), []
    callback = IntegratedFeatureAnalysis(max_overhead=0.01)
    monkeypatch.setattr(session, "Schedule", partial(Schedule, clock=clock))

    def work(trainer, *_):
        clock.now += 1.0
        seen.append(trainer.current_epoch)

    callback.session.analyze = work
    with pytest.warns(IFAWarning, match="max_overhead"):
        fit(
            [callback, ModelCheckpoint(tmp_path, monitor="loss", mode="min")],
            module=Scored(), max_epochs=6, enable_checkpointing=True,
        )  # fmt: skip
    assert seen == [0, 1, 3, 5]


def test_a_checkpoint_is_logged_at_its_own_epoch_and_step(tmp_path, store):
    from pytorch_lightning.loggers import MLFlowLogger

    callback = IntegratedFeatureAnalysis(on_error="raise")
    checkpoint = ModelCheckpoint(tmp_path / "c", save_top_k=-1, monitor="val_accuracy", filename="{epoch}")
    trainer, _ = fit(
        [callback, checkpoint], logger=MLFlowLogger("x", tracking_uri=store), enable_checkpointing=True,
        log_every_n_steps=1,
    )  # fmt: skip
    client, run = trainer.logger.experiment, trainer.logger.run_id
    steps = [m.step for m in client.get_metric_history(run, "ifa/outliers/score")]
    assert steps == [5, 11]

    again = IntegratedFeatureAnalysis(on_error="raise")
    other = MLFlowLogger("y", tracking_uri=store)
    fresh_trainer = pl.Trainer(
        logger=other, callbacks=[again], accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    path = str(tmp_path / "c" / "epoch=0.ckpt")
    with pytest.warns(IFAWarning, match=f"these weights were trained in run {run}, but run {other.run_id} is logged"):
        fresh_trainer.validate(Classifier(), loaders()[1], ckpt_path=path, verbose=False)
    assert [m.step for m in client.get_metric_history(other.run_id, "ifa/outliers/score")] == [5]
    assert client.get_run(other.run_id).data.tags["ifa.step"] == "5"
    assert any(f.path.endswith("epoch_0000") for f in client.list_artifacts(other.run_id, "ifa"))
    assert "ifa/outliers/score" in fresh_trainer.callback_metrics


def test_resume_with_weights_only(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "c", save_last=True)
    callbacks = [IntegratedFeatureAnalysis(on_error="raise"), checkpoint]
    fit(callbacks, max_epochs=1, enable_checkpointing=True)
    torch.load(checkpoint.last_model_path, weights_only=True)
    callback = IntegratedFeatureAnalysis(on_error="raise")
    trainer = pl.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, callbacks=[callback], accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), *loaders(), ckpt_path=checkpoint.last_model_path)
    assert callback.model_tags["ifa.step"] == "11"
