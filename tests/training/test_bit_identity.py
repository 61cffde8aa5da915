"""All is the same to the last bit with and without the callback, in every setting, also where it fails.

Weights, buffers, attributes, the user's logged metrics, and generators inside data sets.
"""

from __future__ import annotations

import itertools
import warnings

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning_modules import loaders, weights
from models import CLASSES, PoolNet
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
    """The module in a package, of a kind: plain, manual, restless, or compiled in one of three ways.

    A restless one changes a buffer, an attribute and a list in each forward pass, and logs from it.
    """

    class Classifier(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.dropout, self.head = PoolNet(), nn.Dropout(0.2), nn.Linear(CLASSES, CLASSES)
            self.automatic_optimization = kind != "manual"
            self.count, self.seen, self.rng = 0, [], np.random.default_rng(0)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            if kind == "restless":
                self.calls += 1
                self.count += 1
                self.seen.append(self.rng.random())
                self.log("calls", self.calls)
            return self.head(self.dropout(self.net(x)))

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            if kind == "manual":
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                self.optimizers().step()
            return loss

        def validation_step(self, batch, batch_idx):
            if kind == "module compiled":  # which cannot log
                self(batch[0])
            else:
                self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    return compiled(Classifier(), kind)


def compiled(module, kind):
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
    "restless": ({"val_check_interval": 0.5}, {"noise": True}, "restless"),
    "restless, workers": ({}, {"noise": True, "num_workers": 2}, "restless"),
    "two ranks": ({"strategy": "ddp_fork", "devices": 2}, {}, "plain"),
}
QUICK = [
    "bf16-mixed, persistent process, check 0.5, accumulate 3",
    "averaged",
    "own generator",
    "part compiled",
    "restless",
]


class Noisy(Dataset):
    """Adds noise from a generator of its own."""

    def __init__(self, data):
        self.data, self.R = data, np.random.RandomState(0)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + float(self.R.rand()), y


def all_loaders(noise=False, **loading):
    """The loaders of a training, and the data sets' own generators."""
    found = loaders(**loading)
    if not noise:
        return found, []
    sets = [Noisy(each.dataset) for each in found]
    return [DataLoader(each, 8, shuffle=not n, **loading) for n, each in enumerate(sets)], [each.R for each in sets]


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
    data, generators = all_loaders(**loading)
    trainer.fit(module, *data)
    result = outcome(trainer, module, generators)
    if callbacks and "strategy" not in settings:
        trainer.validate(getattr(module, "_orig_mod", module), all_loaders(**loading)[0][1], verbose=False)
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        assert kind == "restless" or weights(getattr(module, "_orig_mod", module)) == result[0]
    return result


def outcome(trainer, module, generators):
    logged = {name: value.item() for name, value in trainer.logged_metrics.items() if not name.startswith("ifa/")}
    states = [generator.get_state()[1].tolist() for generator in generators]
    module = getattr(module, "_orig_mod", module)
    return weights(module), logged, states, (module.count, list(module.seen))


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
def test_all_is_bit_identical(case):
    assert_same("pytorch_lightning", case, fails=False)


def test_all_is_bit_identical_where_the_analysis_fails_half_way():
    assert_same("lightning", QUICK[0], fails=True)


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_bit_identical_in_every_setting(package, case, fails):
    assert_same(package, case, fails)
