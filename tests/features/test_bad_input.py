"""What cannot be explained is refused by name, with the setting that helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import PoolNet
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.errors import LayerError, OutputError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import ActivationCapture


def table_of(model, layer="features"):
    data = TensorDataset(torch.randn(6, 1, 12, 12), torch.arange(6) % 3)
    return FeatureExtractor(model.eval(), layer, "multiclass")(DataLoader(data, 3), np.arange(6))


class Guarded(PoolNet):
    """The backbone is frozen by a block, as many do."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        with self.block():
            features = self.features(x)
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize(("block", "named"), [(torch.no_grad, "no_grad"), (torch.inference_mode, "inference_mode")])
def test_layer_in_a_block_without_gradients(block, named):
    with pytest.raises(
        (LayerError, OutputError), match=rf'"features" runs inside a torch.{named}\(\) block.*requires_'
    ):
        table_of(Guarded(block))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [lambda model: torch.jit.trace(model, torch.randn(2, 1, 12, 12)), torch.jit.script])
@pytest.mark.parametrize("layer", ["features", None])
def test_model_of_torch_jit(make, layer):
    with pytest.raises(LayerError, match=r"made by torch.jit.*analyse the original"):
        table_of(make(PoolNet().eval()), layer)


class Checkpointed(PoolNet):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        tail = lambda features: self.head(features.mean((2, 3)))  # noqa: E731
        return checkpoint(tail, self.features(x), use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_reentrant_checkpoint_behind_the_layer():
    with pytest.raises(OutputError, match="use_reentrant=False"):
        table_of(Checkpointed(reentrant=True))
    assert np.isfinite(table_of(Checkpointed(reentrant=False)).cams).all()


def test_tail_that_cached_a_tensor_in_inference_mode():
    class Cached(PoolNet):
        mask = None

        def forward(self, x):
            features = self.features(x)
            if self.mask is None:
                self.mask = torch.ones(features.shape[1:]) * 2
            return self.head((features * self.mask).mean((2, 3)))

    model = Cached().eval()
    with torch.inference_mode():
        model(torch.randn(2, 1, 12, 12))
    with pytest.raises(OutputError, match="inference_mode=False"):
        table_of(model)


class Beside(PoolNet):
    def __init__(self):
        super().__init__()
        self.beside = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        self.beside(x)
        return super().forward(x)


def test_output_that_does_not_depend_on_the_layer():
    with pytest.raises(OutputError, match='does not depend on layer "beside"'):
        table_of(Beside(), "beside")


def test_output_that_is_detached_or_counted():
    class Detached(PoolNet):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(OutputError, match='does not depend on layer "features": its output is detached, or'):
        table_of(Detached())


def test_batch_norm_in_training_mode():
    model = PoolNet().train()
    with (
        pytest.raises(LayerError, match=r'batch norm "features.1" is in training mode.*model.eval\(\)'),
        ActivationCapture(model, model.features, "features"),
    ):
        pass
    assert not model.features._forward_hooks


def test_batch_norm_without_running_statistics():
    model = PoolNet()
    model.features[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(LayerError, match=r"keeps no running statistics.*track_running_stats=True"):
        table_of(model)


def test_model_that_calls_itself_runs_the_layer_twice():
    class Flipped(PoolNet):
        def forward(self, x, again=True):
            logits = super().forward(x)
            return logits + self(x.flip(-1), again=False) if again else logits

    with pytest.raises(LayerError, match=r'"features" runs more than once.*"features#0", "features#1"'):
        table_of(Flipped())
    assert table_of(Flipped(), "features#1").layer == "features#1"


def test_two_passes_without_a_gradient_between_them():
    model, x = PoolNet().eval(), torch.randn(2, 1, 12, 12)
    with ActivationCapture(model, model.features, "features") as tap:
        tap.forward(x)
        with pytest.raises(LayerError, match="more than once"):
            model(x)
        A, _ = tap.gradient(tap.forward(x)[:, 0])
    torch.testing.assert_close(A, model.features(x).detach())


def test_layer_of_whole_numbers():
    class Rounded(nn.Module):
        def forward(self, x):
            return x.long()

    model = PoolNet()
    model.rounded = Rounded()
    model.forward = lambda x: model.head(model.features(x).mean((2, 3)) + model.rounded(x).sum())
    with pytest.raises(LayerError, match=r'"rounded" returns a torch.int64 tensor'):
        table_of(model, "rounded")


@pytest.mark.filterwarnings("ignore")  # torch announces that these modules will move
def test_quantised_model():
    linear = torch.ao.nn.quantized.dynamic.Linear(16, 3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), linear)
    with pytest.raises(OutputError, match=r'quantised: module "3".*before the quantisation'):
        table_of(model, "0")


def test_exported_model():
    class Exported(PoolNet):
        """Refuses as the modules of ``torch.export`` do."""

        def eval(self):
            raise NotImplementedError("Calling eval() is not supported yet.")

    data = TensorDataset(torch.randn(6, 1, 12, 12), torch.arange(6) % 3)
    with pytest.raises(LayerError, match=r"exported program.*module that it was exported from"):
        FeatureExtractor(Exported(), "features")(DataLoader(data, 3), np.arange(6))
