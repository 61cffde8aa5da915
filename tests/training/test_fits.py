"""Fits of one callback, and what those who decide on a metric find: each training stands for itself."""

import math
import threading

import pytest
import torch
from lightning_modules import PACKAGES
from models import loader

from lightning_ifa import IntegratedFeatureAnalysis, analyze, log_model
from lightning_ifa.errors import DataError, FileError, IFAWarning
from lightning_ifa.model.weights_digest import digest_weights
from lightning_ifa.tracking.checkpoint import KEY

TRAIN, VALIDATION = loader(16, seed=1, batch_size=8), loader(16, seed=2, batch_size=16)
SCORE = "ifa/outliers/score"


def trainer_of(package, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 2}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return PACKAGES[package][0].Trainer(callbacks=list(callbacks), **(quiet | options))


def callback_of(**options):
    callback = IntegratedFeatureAnalysis(max_samples=16, probes=1, **options)
    callback.session.publishes = False
    return callback


def epochs(callback):
    return [epoch for epoch, _ in callback.state_dict()["trend"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_folds_start_anew_and_a_resumed_fit_goes_on(package, tmp_path):
    callback, kind = callback_of(), PACKAGES[package][1]
    for _ in range(2):
        fold = trainer_of(package, callback)
        fold.fit(kind(), TRAIN, VALIDATION)
        assert epochs(callback) == [0, 1]
    fold.save_checkpoint(tmp_path / "fold.ckpt")
    trainer_of(package, callback, max_epochs=3).fit(kind(), TRAIN, VALIDATION, ckpt_path=str(tmp_path / "fold.ckpt"))
    assert epochs(callback) == [0, 1, 2]
    nothing = trainer_of(package, callback, limit_val_batches=0)
    with pytest.warns(IFAWarning, match="nothing was analysed in this training: no validation ran"):
        nothing.fit(kind(), TRAIN, VALIDATION)
    assert callback.report is None
    assert callback.state_dict() == callback.model_tags == {}


def test_the_same_training_may_be_continued():
    callback, module = callback_of(), PACKAGES["pytorch_lightning"][1]()
    trainer = trainer_of("pytorch_lightning", callback)
    trainer.fit(module, TRAIN, VALIDATION)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, TRAIN, VALIDATION)
    assert epochs(callback) == [0, 1, 2]


def test_reloaded_loaders_are_followed():
    """Each epoch has data of its own; the analysis is that of the latest."""
    callback = callback_of()

    class Reloading(PACKAGES["pytorch_lightning"][1]):
        def train_dataloader(self):
            return loader(16, seed=10 + self.current_epoch, batch_size=8)

        def val_dataloader(self):
            return loader(16, seed=20 + self.current_epoch, batch_size=16)

    module = Reloading()
    trainer_of("pytorch_lightning", callback, reload_dataloaders_every_n_epochs=1).fit(module)
    latest = analyze(module, loader(16, seed=21, batch_size=16), loader(16, seed=11, batch_size=8))
    assert callback.report.digest == latest.digest
    for split, table in latest.tables.items():
        assert (callback.report.tables[split].logits == table.logits).all()


def test_a_checkpoint_of_weights_only_has_no_record_and_log_model_says_how_to_get_one(tmp_path):
    """Lightning asks no callback what to put into such a file."""
    callback, kind = callback_of(), PACKAGES["pytorch_lightning"][1]
    trainer = trainer_of("pytorch_lightning", callback)
    trainer.fit(kind(), TRAIN, VALIDATION)
    trainer.save_checkpoint(tmp_path / "bare.ckpt", weights_only=True)
    with pytest.raises(FileError, match=r"without a record.*lightning-ifa analyze --checkpoint"):
        log_model(kind(), tmp_path / "bare.ckpt", "net", run_id="any")


@pytest.mark.filterwarnings("ignore:You called `self.log")
def test_a_tuner_is_not_disturbed_and_leaves_nothing_behind(tmp_path):
    base = PACKAGES["pytorch_lightning"][0]

    class Data(base.LightningDataModule):
        batch_size = 2

        def train_dataloader(self):
            return loader(16, seed=1, batch_size=self.batch_size)

        def val_dataloader(self):
            return VALIDATION

    def tuned(*callbacks):
        torch.manual_seed(0)
        module, data = PACKAGES["pytorch_lightning"][1](), Data()
        trainer = trainer_of("pytorch_lightning", *callbacks, default_root_dir=tmp_path)
        tuner = base.tuner.Tuner(trainer)
        tuner.scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=1)
        found = tuner.lr_find(module, datamodule=data, num_training=4, attr_name="rate", update_attr=False)
        trainer.fit(module, datamodule=data)
        return data.batch_size, found.results, digest_weights(module.state_dict())

    callback = callback_of(on_error="raise")
    assert tuned(callback) == tuned()
    assert epochs(callback) == [0, 1]


def test_a_fit_of_which_no_epoch_is_due_says_so():
    with pytest.warns(IFAWarning, match="every_n_epochs=5 asks for none of its 2 validations"):
        trainer_of("pytorch_lightning", callback_of(every_n_epochs=5)).fit(
            PACKAGES["pytorch_lightning"][1](), TRAIN, VALIDATION
        )


def plateau(kind):
    class Plateau(kind):
        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), 0.01)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": SCORE}}

    return Plateau


WATCHERS = {
    "checkpoint": lambda pl, folder: pl.callbacks.ModelCheckpoint(folder, monitor=SCORE, mode="min"),
    "stopping": lambda pl, _: pl.callbacks.EarlyStopping(SCORE, patience=9),
    "plateau": lambda *_: None,
}


@pytest.mark.filterwarnings("ignore::lightning_ifa.errors.IFAWarning")  # one of each kind
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("watcher", WATCHERS)
def test_a_monitored_metric_is_there_at_every_validation(package, watcher, tmp_path, monkeypatch):
    """Analysed though not due; and where an analysis fails, neither an old number nor an end of the training."""
    pl, kind = PACKAGES[package]
    made = WATCHERS[watcher](pl, tmp_path)
    module = kind() if made else plateau(kind)()
    callback = callback_of(every_n_epochs=2)
    analyze, seen = callback.session.analyze, []

    def fails_at_first(trainer, module, metrics):
        if trainer.current_epoch == 0:
            raise DataError("no samples today")
        analyze(trainer, module, metrics)

    class Watch(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics[SCORE]))

    monkeypatch.setattr(callback.session, "analyze", fails_at_first)
    callbacks = [Watch(), callback] + ([made] if made else [])
    trainer = trainer_of(package, *callbacks, enable_checkpointing=watcher == "checkpoint", max_epochs=3)
    with pytest.warns(IFAWarning, match=f"gets .* for {SCORE}, since nothing is known of it: no samples today"):
        trainer.fit(module, TRAIN, VALIDATION)
    assert trainer.current_epoch == 3
    assert seen[0] == torch.finfo(torch.float32).max if watcher == "stopping" else math.isnan(seen[0])
    assert all(0 <= score < 100 for score in seen[1:])
    assert len(seen) == 3


@pytest.mark.filterwarnings("ignore::lightning_ifa.errors.IFAWarning")  # one of each kind
@pytest.mark.parametrize("failing", [1, 2])
def test_a_number_of_an_earlier_epoch_is_not_taken_for_that_of_this_one(failing, tmp_path, monkeypatch):
    pl, kind = PACKAGES["pytorch_lightning"]
    callback = callback_of()
    analyze = callback.session.analyze

    def fails(trainer, *arguments):
        if trainer.current_epoch == failing:
            raise DataError("no samples today")
        analyze(trainer, *arguments)

    monkeypatch.setattr(callback.session, "analyze", fails)
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor=SCORE, save_top_k=-1, filename="{epoch}")
    with pytest.warns(IFAWarning, match="no samples today"):
        trainer_of("pytorch_lightning", callback, best, enable_checkpointing=True, max_epochs=3).fit(
            kind(), TRAIN, VALIDATION
        )
    scores = [float(best.best_k_models[str(tmp_path / f"epoch={epoch}.ckpt")]) for epoch in range(3)]
    assert [math.isfinite(score) for score in scores] == [epoch != failing for epoch in range(3)]


def test_a_misspelt_metric_is_lightnings_to_tell(tmp_path):
    pl, kind = PACKAGES["pytorch_lightning"]
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor="ifa/outliers/scor")
    with pytest.raises(Exception, match="could not find the monitored key"):
        trainer_of("pytorch_lightning", callback_of(), best, enable_checkpointing=True).fit(kind(), TRAIN, VALIDATION)


def test_threads_that_train_at_the_same_time_have_sessions_of_their_own(tmp_path):
    """Each checkpoint holds the record of its own weights, though one callback serves both."""
    callback, kind = callback_of(), PACKAGES["pytorch_lightning"][1]
    meeting, found = threading.Barrier(2, timeout=60), {}

    class Meet(PACKAGES["pytorch_lightning"][0].Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            meeting.wait()

    def train(name):
        trainer = trainer_of("pytorch_lightning", callback, Meet())
        trainer.fit(kind(), TRAIN, VALIDATION)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        content = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        found[name] = (epochs(callback), content[KEY]["weights"] == digest_weights(content["state_dict"]))

    threads = [threading.Thread(target=train, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert found == {"a": ([0, 1], True), "b": ([0, 1], True)}
