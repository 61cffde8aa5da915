"""Nothing of a pass outlives it, and a thousand batches hold no more than one."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from models import PoolNet, ResidualNet, loader
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import ActivationCapture, gradients, run_captured


@pytest.fixture(autouse=True)
def _only_what_is_new():
    """What was there before is not searched: among everything that a session has loaded, a search takes a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def tensors():
    gc.collect()
    return [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]


def batches():
    """Living inputs, activations and gradients; what is 4-D besides are kernels, whose number stays."""
    return sum(item.dim() == 4 for item in tensors())


SEEN: list[weakref.ref] = []
ALIVE: list[int] = []
"""Outside of the module, whose attributes an analysis puts back."""


class Spied(ResidualNet):
    """Keeps weak references to its inputs and activations, and the count of living ones at each pass."""

    def forward(self, x):
        ALIVE.append(batches())
        SEEN.append(weakref.ref(x))
        self.stem.register_forward_hook(lambda module, args, output: SEEN.append(weakref.ref(output)))
        return super().forward(x)


@pytest.mark.parametrize("method", ["hirescam", "scorecam", "ablationcam"])
def test_no_tensor_is_left_after_the_pass(method):
    model = ResidualNet().eval()
    source = loader(12, batch_size=4)
    FeatureExtractor(model, "stem", cam=method, search=True)(source, np.arange(12))
    before = len(tensors())
    table = FeatureExtractor(model, "stem", cam=method, search=True)(source, np.arange(12))
    assert len(tensors()) == before
    assert len(table) == 12


def test_no_batch_is_held_while_later_ones_run():
    model = Spied().eval()
    SEEN.clear()
    ALIVE.clear()
    FeatureExtractor(model, "stem", search=True)(loader(40, batch_size=4), np.arange(40))
    later = ALIVE[-8:]  # behind the survey and the self-check of the first batch
    assert max(later) == min(later) <= ALIVE[0] + 1
    gc.collect()
    assert not any(reference() is not None for reference in SEEN)


def test_a_tap_holds_neither_graph_nor_activation_after_the_gradient():
    model, x = PoolNet().eval(), torch.randn(4, 1, 12, 12)
    with ActivationCapture(model, model.features[0]) as first, ActivationCapture(model, model.features[3]) as second:
        score = run_captured([first, second], x)[:, 0]
        held = [weakref.ref(tap._leaf) for tap in (first, second)]  # the graph ends in one and depends on the other
        held += [weakref.ref(tensor) for pair in gradients([first, second], score) for tensor in pair]
        del score
        gc.collect()
        assert not any(reference() is not None for reference in held)


def test_batches_let_go_of_each_other():
    model, held = PoolNet().eval(), []
    extraction = FeatureExtractor(model)
    with extraction.session():
        for batch in extraction.batches(loader(12, batch_size=4), np.arange(12)):
            gc.collect()
            assert sum(reference() is not None for reference in held) <= 1
            A, _ = batch.gradient(0)
            held.append(weakref.ref(A))
            del A
    del batch
    gc.collect()
    assert not any(reference() is not None for reference in held)


@pytest.mark.slow
def test_a_thousand_batches_hold_no_more_than_a_hundred():
    model, alive = PoolNet().eval(), []

    def count(module, args):
        alive.append(batches() if len(alive) % 50 == 0 else alive[-1])

    model.register_forward_pre_hook(count)
    data = TensorDataset(torch.randn(2000, 1, 12, 12), torch.arange(2000) % 3)
    FeatureExtractor(model, search=True)(DataLoader(data, 2), np.arange(2000))
    assert max(alive[100:]) <= max(alive[:100])
