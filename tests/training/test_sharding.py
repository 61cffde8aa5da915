"""Strategies that spread parameters over ranks are refused with one warning, and training goes on."""

from __future__ import annotations

from types import SimpleNamespace

import lightning.pytorch.strategies
import pytest
import pytorch_lightning.strategies
import torch
from lightning_modules import Net, fit, weights
from models import loader
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_ifa.errors import IFAWarning, StrategyError
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.trainer import SHARDING, require_whole_layers


class FSDPStrategy(SingleDeviceStrategy):
    """Told by its name as the real one is, which needs a GPU."""


def train(callbacks=()):
    strategy = FSDPStrategy(device=torch.device("cpu"))
    data = loader(24, seed=1, batch_size=8), loader(24, seed=2, batch_size=8)
    return fit(callbacks, module=Net(), data=data, strategy=strategy, accelerator="auto")


def test_one_warning_and_the_training_as_without():
    torch.manual_seed(0)
    _, plain = train()
    analysis = IntegratedFeatureAnalysis()
    torch.manual_seed(0)
    with pytest.warns(IFAWarning) as told:
        trainer, module = train([analysis])
    (warning,) = [w for w in told if issubclass(w.category, IFAWarning)]
    assert "FSDPStrategy spreads the parameters" in str(warning.message)
    assert "lightning-ifa analyze" in str(warning.message)
    assert weights(module) == weights(plain)
    assert analysis.report is None
    assert not any(key.startswith("ifa/") for key in trainer.callback_metrics)


def test_it_raises_on_request():
    with pytest.raises(StrategyError):
        train([IntegratedFeatureAnalysis(on_error="raise")])


@pytest.mark.parametrize("package", [pytorch_lightning.strategies, lightning.pytorch.strategies])
@pytest.mark.parametrize("name", SHARDING)
def test_the_strategies_of_both_packages_are_known(package, name):
    strategy = object.__new__(type("Own", (getattr(package, name),), {}))
    with pytest.raises(StrategyError, match=name):
        require_whole_layers(SimpleNamespace(strategy=strategy))
    require_whole_layers(SimpleNamespace(strategy=object.__new__(package.DDPStrategy)))
