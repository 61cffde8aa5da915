"""Riding on the user's validation: the same bits as the separate pass, and no trace in what the user sees."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_modules import Classifier, fit, loaders, weights
from models import CLASSES, HardswishNet, MlpNet, PoolNet, ResidualNet, loader
from torch import nn

from lightning_ifa.features.activation_cache import PROOF
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

pytestmark = [
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.filterwarnings("ignore:no MLflow run was found"),
]


class Plain(pl.LightningModule):
    """A net of the user's, validated through the module or through the net itself."""

    def __init__(self, net, step=None):
        super().__init__()
        self.net, self.step, self.seen = net, step, []

    def forward(self, x):
        return self.net(x)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        output = self(x) if self.step is None else self.step(self, x)
        assert not output.requires_grad
        assert not torch.is_grad_enabled()
        self.seen.append((output.clone(), torch.is_inference_mode_enabled()))
        self.log("val_loss", nn.functional.cross_entropy(output, y))


class Separate(IntegratedFeatureAnalysis):
    def setup(self, *args, **options):
        super().setup(*args, **options)
        self.session.capture.refused = "asked to"


def validated(module, source, kind=IntegratedFeatureAnalysis, **options):
    callbacks = [kind(on_error="raise", **options)] if kind else []
    trainer = pl.Trainer(
        logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks
    )
    result = trainer.validate(module, source, verbose=False)[0]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert not any("forward" in vars(part) for part in module.modules())
    return callbacks[0] if callbacks else None, result


def assert_same_bits(a, b):
    tables = [callback.report.tables["validation"] for callback in (a, b)]
    for name in (*PROOF, "fingerprints", "indices"):
        left, right = (getattr(table, name) for table in tables)
        assert left.tobytes() == right.tobytes(), name
    assert a.report.metrics == b.report.metrics
    assert tables[0].digest == tables[1].digest
    np.testing.assert_array_equal(*(table.properties.to_numpy() for table in tables))


NETS = {
    "pool": (PoolNet, None, 0),
    "pool, early": (PoolNet, "net.features.0", 0),
    "mlp": (MlpNet, None, 0),
    "hardswish": (HardswishNet, "net.features", 2),
    "last batch smaller": (PoolNet, "net.features", 0),
}
"""Network, layer, and how often a first batch runs again because what follows changes the activation in place."""


@pytest.mark.parametrize("case", NETS)
def test_riding_gives_the_same_bits(case):
    net, layer, again = NETS[case]
    torch.manual_seed(0)
    module, source = Plain(net()), loader(30, seed=2, batch_size=8)
    riding, with_ride = validated(module, source, layer=layer)
    separate, with_pass = validated(module, source, Separate, layer=layer)
    _, plain = validated(module, source, None)
    assert riding.session.capture.refused is None
    assert riding.session.capture.cache.hits == 4 + 1 + again  # every batch, and the first once more as a proof
    assert separate.session.capture.cache is None
    assert_same_bits(riding, separate)
    assert with_ride["val_loss"] == with_pass["val_loss"] == plain["val_loss"]
    outputs = [torch.cat([o for o, _ in module.seen[i : i + 4]]) for i in (0, 4, 8)]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[2])
    assert all(inference for _, inference in module.seen)


def reversed_input(module, x):
    return module(x.flip(-1))


def twice(module, x):
    module(x)
    return module(x)


class Skip(nn.Module):
    """The head sees around the layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        a = self.stem(x)
        return self.head((a + self.block(a)).mean((2, 3)))


class Counting(PoolNet):
    """Counts what it has seen, also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


class Noisy(PoolNet):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class Sideways(PoolNet):
    """Its validation has another way than its forward."""

    def other(self, x):
        return self.head(self.pool(self.features(x * 0.5)).flatten(1))


REFUSED = {
    "other input": (PoolNet, reversed_input, {}, "does not come out the same"),
    "two calls": (PoolNet, twice, {}, "does not come out the same"),
    "another way": (Sideways, lambda module, x: module.net.other(x), {}, "does not come out the same"),
    "skip connection": (Skip, None, {"layer": "net.block"}, "NaN"),
    "state": (Counting, None, {}, "changes state"),
    "random numbers": (Noisy, None, {}, "draws random numbers"),
    "residual": (ResidualNet, None, {"layer": "net.bn2"}, "NaN"),
    "subset": (PoolNet, None, {"max_samples": 20}, "in other batches"),
}


@pytest.mark.filterwarnings("ignore:the training inputs")
@pytest.mark.parametrize("case", REFUSED)
def test_where_the_bits_could_differ_nobody_rides(case):
    net, step, options, reason = REFUSED[case]
    torch.manual_seed(0)
    module, source = Plain(net(), step), loader(32, seed=2, batch_size=8)
    callback, result = validated(module, source, **options)
    assert reason in callback.session.capture.refused
    _, plain = validated(module, source, None)
    assert result["val_loss"] == plain["val_loss"] or case == "random numbers"
    if case not in ("random numbers", "state"):
        separate, _ = validated(module, source, Separate, **options)
        assert_same_bits(callback, separate)


def test_the_users_own_hooks_are_not_shown_made_up_tensors():
    module, seen = Plain(PoolNet()), []
    handle = module.net.features.register_forward_hook(lambda m, a, output: seen.append(output.isnan().any().item()))
    callback = IntegratedFeatureAnalysis(on_error="raise")
    trainer = pl.Trainer(
        logger=False, accelerator="cpu", callbacks=[callback], enable_progress_bar=False, enable_model_summary=False
    )
    trainer.validate(module, loader(24, batch_size=8), verbose=False)
    handle.remove()
    assert "hooks of its own" in callback.session.capture.refused
    assert not any(seen)


def test_an_error_in_looking_on_reaches_nobody(monkeypatch):
    monkeypatch.setattr("lightning_ifa.features.activation_cache._content", lambda args: 1 / 0)
    module, source = Plain(PoolNet()), loader(24, batch_size=8)
    callback, result = validated(module, source)
    assert callback.session.capture.refused is not None
    assert callback.report is not None
    assert result["val_loss"] == validated(module, source, None)[1]["val_loss"]


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_bit_identical_while_riding(fails, monkeypatch):
    callback = IntegratedFeatureAnalysis(on_error="raise")
    if fails:
        monkeypatch.setattr("lightning_ifa.features.activation_cache.ActivationCache._void", lambda ride, output: 1 / 0)
    _, plain = fit()
    _, watched = fit([callback])
    assert weights(plain) == weights(watched)
    assert callback.report is not None


def test_a_user_error_in_validation_leaves_no_hook():
    class Broken(Classifier):
        def validation_step(self, batch, batch_idx):
            self(batch[0])
            if batch_idx == 1 and not self.trainer.sanity_checking:
                raise KeyError("the user's own")

    module = Broken()
    with pytest.raises(KeyError, match="the user's own"):
        fit([IntegratedFeatureAnalysis()], module=module, data=loaders(), num_sanity_val_steps=0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_of_two_instances_the_first_rides():
    module, source = Plain(PoolNet()), loader(24, seed=2, batch_size=8)
    callbacks = [IntegratedFeatureAnalysis(layer=f"net.features.{i}", on_error="raise") for i in (4, 1)]
    trainer = pl.Trainer(
        logger=False,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(module, source, verbose=False)
    assert callbacks[0].session.capture.refused is None
    assert "hooks of its own" in callbacks[1].session.capture.refused
    for callback in callbacks:
        layer = callback.report.tables["validation"].layer
        assert_same_bits(callback, validated(module, source, Separate, layer=layer)[0])
