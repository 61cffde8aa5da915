"""The one loop over the network: nothing runs before it is asked for, and pictured samples cost one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import PoolNet, loader, trained
from torch import nn

from lightning_ifa.analysis import analyze
from lightning_ifa.features import extractor
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.probes import take_probes


def passes_of(model):
    sizes = []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    return sizes


def test_inputs_alone_run_nothing_and_a_changed_input_costs_one_pass():
    model, source = trained(PoolNet()), loader(10, batch_size=4)
    sizes, extraction = passes_of(model), FeatureExtractor(model, task="multiclass")
    with extraction.session():
        batches = list(extraction.batches(source, np.arange(10)))
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sizes == []
        _ = batches[0].pictures  # asks the network, once, which axes are space
        sizes.clear()
        flipped = batches[0].rerun(batches[0].x.flip(-1))
        assert sizes == [4]
        torch.testing.assert_close(flipped.logits, model(source.dataset.images[:4].flip(-1)))
        assert not flipped.logits.requires_grad


def test_changed_activations_reach_the_output():
    model, source = trained(PoolNet()), loader(6)
    extraction = FeatureExtractor(model)
    with extraction.session():
        for batch in extraction.batches(source, np.arange(6)):
            found = batch.rerun(activations=torch.zeros_like)
            A, _ = batch.gradient(0)
    torch.testing.assert_close(found.logits, model.head.bias.detach().expand(6, -1))
    assert A.abs().max() > 0


def test_size_and_apart_decide_the_batches():
    extraction = FeatureExtractor(PoolNet())
    with extraction.session():
        groups = list(extraction.batches(loader(11, batch_size=3), np.arange(11), size=4))
        parts = list(extraction.batches(loader(11, batch_size=4), np.arange(11), apart=5))
    assert [group.samples.positions.tolist() for group in groups] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [len(part) for part in parts] == [4, 1, 4, 2]


def test_a_kept_exception_keeps_no_hook():
    model = PoolNet().eval()
    extraction = FeatureExtractor(model)

    def run():
        with extraction.session():
            for batch in extraction.batches(loader(8), np.arange(8)):
                batch.gradient(0)
                raise KeyError

    with pytest.raises(KeyError) as kept:
        run()
    assert kept.value is not None
    assert not any(module._forward_hooks for module in model.modules())


def test_pictured_samples_are_read_once_a_split(monkeypatch):
    model, validation, train = trained(PoolNet(), 20), loader(40, seed=5), loader(40, seed=1)
    read = []
    own = extractor.reference_loader
    monkeypatch.setattr(
        extractor, "reference_loader", lambda source, indices, *a: (read.append(indices), own(source, indices, *a))[1]
    )
    report = analyze(model, validation, train, probes=3)
    assert len(read) == 2 + len({split for split, _ in report.gallery} | {"validation"})
    assert all(len(set(indices.tolist())) == len(indices) for indices in read)
    for (split, row), image in report.gallery.items():
        source = validation if split == "validation" else train
        np.testing.assert_array_equal(image, source.dataset.images[report.tables[split].indices[row]])


def test_probes_are_explained_for_the_prediction_and_pictured_before_the_network_changes_them():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = PoolNet()

        def forward(self, x):
            return self.net(x.mul_(2))

    torch.manual_seed(0)
    model, source = Overwrites().eval(), loader(12)
    extraction = FeatureExtractor(model)
    table = extraction(source, np.arange(12))
    wrong = np.flatnonzero(table.predictions != table.targets)[:4]
    probes, images = take_probes(extraction, source, table, wrong, np.array([0, 11]))
    np.testing.assert_array_equal(probes.images, source.dataset.images[wrong])
    np.testing.assert_array_equal(probes.predicted.explained, table.predictions[wrong])
    assert list(images) == [0, 11]
