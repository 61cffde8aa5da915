"""Weights are the same to the last bit with and without the callback, in every setting, also where it fails."""

from __future__ import annotations

import itertools
import warnings

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning_modules import loaders, weights
from models import CLASSES, PoolNet
from torch import nn

from lightning_ifa.errors import IFAWarning
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

PACKAGES = {"pytorch_lightning": pytorch_lightning, "lightning": lightning.pytorch}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:no MLflow run was found"),
    pytest.mark.filterwarnings("ignore:You called `self.log"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders"),
    pytest.mark.filterwarnings("ignore:.* does not support `validation_step` without"),
]


def classifier(package, kind):
    """The module in a package, of a kind: plain, manual, or compiled in one of three ways."""

    class Classifier(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.dropout, self.head = PoolNet(), nn.Dropout(0.2), nn.Linear(CLASSES, CLASSES)
            self.automatic_optimization = kind != "manual"

        def forward(self, x):
            return self.head(self.dropout(self.net(x)))

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            if kind == "manual":
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                self.optimizers().step()
            return loss

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    module = Classifier()
    if kind == "part compiled":
        module.net = torch.compile(module.net, backend="eager")
    elif kind == "compiled in place":
        module.net.compile(backend="eager")
    return torch.compile(module, backend="eager") if kind == "module compiled" else module


class Averaged:
    """Validates with other weights than it trains with; mixed into each package's Callback."""

    def on_validation_epoch_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.head.weight.mul_(0.5)

    def on_validation_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.head.weight.mul_(2.0)


LOADING = {"main": {}, "persistent": {"num_workers": 1, "persistent_workers": True}}
CASES = {
    f"{precision}, {loading} process, check {interval}, accumulate {accumulate}": (
        {"precision": precision, "val_check_interval": interval, "accumulate_grad_batches": accumulate},
        LOADING[loading],
        "plain",
    )
    for precision, loading, interval, accumulate in itertools.product(
        ("32-true", "bf16-mixed", "bf16-true"), LOADING, (1.0, 0.5), (1, 3)
    )
} | {
    "64-true": ({"precision": "64-true"}, {}, "plain"),
    "worker that dies": ({}, {"num_workers": 1}, "plain"),
    "own generator": ({}, {"generator": 3}, "plain"),
    "sanity check": ({"num_sanity_val_steps": 2}, {}, "plain"),
    "every second epoch": ({"check_val_every_n_epoch": 2}, {}, "plain"),
    "limited": ({"limit_val_batches": 2, "limit_train_batches": 4}, {}, "plain"),
    "manual": ({}, {}, "manual"),
    "module compiled": ({}, {}, "module compiled"),
    "part compiled": ({}, {}, "part compiled"),
    "compiled in place": ({}, {}, "compiled in place"),
    "averaged": ({"callbacks": [Averaged]}, {}, "plain"),
    "two ranks": ({"strategy": "ddp_fork", "devices": 2}, {}, "plain"),
}
QUICK = ["bf16-mixed, persistent process, check 0.5, accumulate 3", "averaged", "own generator", "part compiled"]


def trained(package, case, *callbacks):
    settings, loading, kind = CASES[case]
    base = PACKAGES[package]
    if "generator" in loading:
        loading = {"generator": torch.Generator().manual_seed(loading["generator"])}
    others = [type("Other", (kind_, base.Callback), {})() for kind_ in settings.get("callbacks", [])]
    base.seed_everything(0, verbose=False)
    module = classifier(base, kind)
    trainer = base.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", **settings | {"callbacks": others + list(callbacks)},
    )  # fmt: skip
    trainer.fit(module, *loaders(**loading))
    if not callbacks or "strategy" in settings:
        return weights(module)
    trainer.validate(getattr(module, "_orig_mod", module), loaders()[1], verbose=False)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return weights(module)


def half_way():
    """A task that is right at the first batch and fails from the second on."""
    calls = itertools.count()

    def task(output, target):
        if next(calls) >= 1:
            raise ZeroDivisionError("half-way")
        return output[:, 0]

    return task


def assert_same(package, case, fails):
    options = {"on_error": "warn", "task": half_way()} if fails else {"on_error": "raise"}
    callback = IntegratedFeatureAnalysis(**options)
    with warnings.catch_warnings():
        if fails:
            warnings.simplefilter("ignore", IFAWarning)
        assert trained(package, case, callback) == trained(package, case)
    if case != "two ranks":  # what forked processes found stays with them
        assert (callback.report is None) == fails


@pytest.mark.parametrize("case", QUICK)
def test_weights_are_bit_identical(case):
    assert_same("pytorch_lightning", case, fails=False)


def test_weights_are_bit_identical_where_the_analysis_fails_half_way():
    assert_same("lightning", QUICK[0], fails=True)


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("package", PACKAGES)
def test_weights_are_bit_identical_in_every_setting(package, case, fails):
    assert_same(package, case, fails)
