"""A record is found only at the weights that were analysed: in checkpoints, tags, logged models and at the gate."""

import math
import random
import warnings

import pytest
import torch
from lightning_modules import PACKAGES, weights
from mlflow import MlflowClient
from models import loader
from registries import policy

from lightning_ifa import IntegratedFeatureAnalysis, log_model
from lightning_ifa.errors import FileError, IFAWarning
from lightning_ifa.gate.model_metrics import find_model_metrics, logged_model_id
from lightning_ifa.gate.run import gate
from lightning_ifa.indicators import registry
from lightning_ifa.model.weights_digest import digest_weights
from lightning_ifa.tracking.checkpoint import KEY
from lightning_ifa.tracking.weights import WEIGHTS_TAG, digest_model
from lightning_ifa.training.run_logger import RunLogger

TRAIN, VALIDATION = loader(16, seed=1, batch_size=8), loader(16, seed=2, batch_size=16)
OTHER = pytest.warns(
    IFAWarning, match=r"other weights than the latest analysis saw.*lightning-ifa analyze --checkpoint"
)


def trainer_of(package, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 1}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    return PACKAGES[package][0].Trainer(callbacks=list(callbacks), **(quiet | options))


def quiet_callback(**options):
    callback = IntegratedFeatureAnalysis(max_samples=16, probes=1, on_error="raise", **options)
    callback.session.publishes = False
    return callback


def swap(module):
    """Change the weights without a step."""
    with torch.no_grad():
        next(module.parameters()).mul_(1.5)


def saved(trainer, path):
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_weights_changed_without_a_step_get_no_record_until_they_are_put_back(package, tmp_path):
    callback, module = quiet_callback(), PACKAGES[package][1]()
    trainer = trainer_of(package, callback)
    trainer.fit(module, TRAIN, VALIDATION)
    analysed = {name: value.clone() for name, value in module.state_dict().items()}
    assert saved(trainer, tmp_path / "a.ckpt")[KEY]["weights"] == digest_weights(analysed)
    assert callback.model_tags[WEIGHTS_TAG] == digest_weights(analysed)
    swap(module)
    with OTHER:
        assert KEY not in saved(trainer, tmp_path / "b.ckpt")
    with pytest.warns(IFAWarning, match="no tags of it"):
        assert callback.model_tags == {}
    module.load_state_dict(analysed)
    assert KEY in saved(trainer, tmp_path / "c.ckpt")
    assert callback.model_tags


class Average:
    """Validates with other weights than it trains with, and saves these; mixed into each package's Callback."""

    factor = 0.9

    def on_validation_epoch_start(self, trainer, pl_module):
        self.own = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.average = {name: value * self.factor for name, value in self.own.items()}
        pl_module.load_state_dict(self.average)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.own)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if vars(self):
            checkpoint["state_dict"] = self.average


@pytest.mark.parametrize("package", PACKAGES)
def test_weights_that_others_put_into_the_checkpoint(package, tmp_path):
    """Averaged weights are put in after our hook, by another callback or by the module; the last word counts."""
    pl, kind = PACKAGES[package]

    class Doubled(Average, pl.Callback):
        factor = 2

    class Half(kind):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = {name: value / 2 for name, value in checkpoint["state_dict"].items()}

    average = Doubled()
    trainer = trainer_of(package, average, quiet_callback(), num_sanity_val_steps=0)
    trainer.fit(kind(), TRAIN, VALIDATION)
    assert saved(trainer, tmp_path / "a.ckpt")[KEY]["weights"] == digest_weights(average.average)
    trainer = trainer_of(package, Doubled(), quiet_callback(), num_sanity_val_steps=0)
    module = Half()
    trainer.fit(module, TRAIN, VALIDATION)
    with OTHER:
        assert KEY not in saved(trainer, tmp_path / "b.ckpt")
    assert "on_save_checkpoint" not in vars(module)


def test_a_record_that_was_moved_to_other_weights_is_refused(tmp_path, store):
    callback, kind = quiet_callback(), PACKAGES["pytorch_lightning"][1]
    trainer, module = trainer_of("pytorch_lightning", callback), kind()
    trainer.fit(module, TRAIN, VALIDATION)
    content = saved(trainer, tmp_path / "a.ckpt")
    torch.save(content | {"state_dict": kind().state_dict()}, tmp_path / "b.ckpt")
    with pytest.raises(FileError, match=r"speaks of other weights.*log_model\(report=FOLDER\)"):
        log_model(kind(), tmp_path / "b.ckpt", "net", tracking_uri=store)
    with pytest.raises(FileError, match="changes the weights"):
        log_model(kind().double(), tmp_path / "a.ckpt", "net", run_id="any", tracking_uri=store)


def test_a_report_stands_in_for_the_record_of_its_own_weights_only(tmp_path, store):
    callback, kind = quiet_callback(), PACKAGES["pytorch_lightning"][1]
    trainer, module = trainer_of("pytorch_lightning", callback), kind()
    trainer.fit(module, TRAIN, VALIDATION)
    callback.report.save(tmp_path / "report")
    torch.save(module.state_dict(), tmp_path / "bare.pt")
    client = MlflowClient(store)
    run = client.create_run(client.create_experiment("x", (tmp_path / "files").as_uri())).info.run_id
    about = {"run_id": run, "tracking_uri": store, "pip_requirements": ["torch"]}
    version = log_model(kind(), tmp_path / "bare.pt", "net", report=tmp_path / "report", **about)
    assert find_model_metrics(client, version, [callback_key]).metrics == pytest.approx(
        callback.report.metrics, nan_ok=True
    )
    swap(module)
    torch.save(module.state_dict(), tmp_path / "other.pt")
    with pytest.raises(FileError, match="other weights than those"):
        log_model(kind(), tmp_path / "other.pt", "net", report=tmp_path / "report", **about)


callback_key = "ifa/outliers/score"


SCORE = "ifa/redundancy/score"
ANY = policy({"metric": SCORE, "at_most": 1e9}, undecided="accept")


class Life:
    """A module, a callback and what is done to them, step by step, in a random order."""

    def __init__(self, seed, folder, uri, monkeypatch):
        self.random, self.folder, self.uri = random.Random(seed), folder, uri
        self.package = self.random.choice(list(PACKAGES))
        self.kind = PACKAGES[self.package][1]
        self.module, self.callback, self.truth = self.kind(), quiet_callback(layer="net.features.4"), {}
        self.checkpoints, self.seed = [], seed
        self.trainer = trainer_of(self.package, self.callback, num_sanity_val_steps=0)
        put = RunLogger.put

        def noted(logger, report, moment, number):
            self.truth[weights(self.module)] = dict(report.metrics)
            return put(logger, report, moment, number)

        monkeypatch.setattr(RunLogger, "put", noted)

    def fit(self):
        others = [type("Averaging", (Average, PACKAGES[self.package][0].Callback), {})()] * self.random.randrange(2)
        self.trainer = trainer_of(self.package, *others, self.callback, num_sanity_val_steps=0)
        self.trainer.fit(self.module, TRAIN, VALIDATION)

    def folds(self):
        """Train two modules from the beginning, with one callback."""
        for _ in range(2):
            self.renew()
            self.fit()
            self.save()

    def validate(self):
        self.trainer.validate(self.module, VALIDATION, verbose=False)

    def swap(self):
        swap(self.module)

    def renew(self):
        self.module = self.kind()

    def diverge(self):
        with torch.no_grad():
            next(self.module.parameters()).fill_(torch.nan)

    def restore(self):
        if self.checkpoints:
            content = torch.load(self.random.choice(self.checkpoints), weights_only=True)
            self.module.load_state_dict(content["state_dict"])

    def save(self):
        path = self.folder / f"{self.seed}-{len(self.checkpoints)}.ckpt"
        self.trainer.save_checkpoint(path)
        self.checkpoints.append(path)
        content = torch.load(path, weights_only=True)
        if KEY in content:
            self.require(content["state_dict"], content[KEY]["metrics"])

    def resume(self):
        if self.checkpoints:
            self.trainer = trainer_of(self.package, self.callback, max_epochs=3, num_sanity_val_steps=0)
            self.trainer.fit(self.module, TRAIN, VALIDATION, ckpt_path=str(self.random.choice(self.checkpoints)))

    def log_model(self):
        if not self.checkpoints:
            return
        path, client = self.random.choice(self.checkpoints), MlflowClient(self.uri)
        run = client.create_run("0").info.run_id
        try:
            version = log_model(
                self.kind(), path, "net", run_id=run, tracking_uri=self.uri, pip_requirements=["torch"]
            )  # fmt: skip
        except FileError:
            assert KEY not in torch.load(path, weights_only=True)
            return
        found = find_model_metrics(client, version, [])
        self.require(torch.load(path, weights_only=True)["state_dict"], found.metrics)
        model = client.get_logged_model(logged_model_id(client, version))
        assert digest_model(model.artifact_location.removeprefix("file://")) == model.tags[WEIGHTS_TAG]
        uri = f"models:/net/{version.version}"
        assert gate(uri, ANY, dry_run=True, tracking_uri=self.uri).passed == math.isfinite(found.metrics[SCORE])
        torch.save(self.kind(), f"{model.artifact_location.removeprefix('file://')}/data/model.pth")
        assert not find_model_metrics(client, version, []).metrics
        assert not gate(uri, ANY, dry_run=True, tracking_uri=self.uri).passed

    def require(self, state, metrics):
        holder = self.kind()
        holder.load_state_dict(state)
        assert metrics == pytest.approx(self.truth[weights(holder)], nan_ok=True)

    def live(self, steps):
        doing = (self.fit, self.validate, self.swap, self.renew, self.diverge, self.restore, self.save, self.save,
                 self.resume, self.folds, self.log_model, self.log_model)  # fmt: skip
        self.fit()
        for _ in range(steps):
            self.random.choice(doing)()
            tags = self.callback.model_tags
            if tags:
                assert tags[WEIGHTS_TAG] == digest_weights(self.callback.session.module.state_dict())


FEW, FIFTIES = range(3), [range(begin, begin + 50) for begin in range(3, 503, 50)]


@pytest.mark.parametrize(
    "seeds",
    [FEW, *(pytest.param(each, marks=pytest.mark.slow) for each in FIFTIES)],
    ids=lambda each: f"from{each.start}",
)
def test_no_record_is_ever_found_at_other_weights(seeds, tmp_path, store, monkeypatch):
    (tmp_path / "files").mkdir()
    monkeypatch.chdir(tmp_path / "files")
    monkeypatch.setattr(registry, "INDICATORS", (registry.indicator_of("redundancy"),))  # the others take the time
    for seed in seeds:
        torch.manual_seed(seed)
        with warnings.catch_warnings(), monkeypatch.context() as patch:
            warnings.simplefilter("ignore")
            life = Life(seed, tmp_path, store, patch)
            life.callback.session.notices.raises = False  # what diverged cannot be analysed
            life.live(8)
        for path in life.checkpoints:
            path.unlink()
