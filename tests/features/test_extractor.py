"""The table: filled right, the same however it is batched, and nothing disturbed on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from models import CLASSES, MlpNet, PoolNet, Squares, VolumeNet, loader, trained
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import reference_indices
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor


def table_of(model, source, n=1024, **options):
    return FeatureExtractor(model, **options)(source, reference_indices(source, n, 0, "validation"))


def test_values_by_hand():
    model, source = trained(PoolNet()), loader(20, batch_size=6)
    table = table_of(model, source)
    x, y = source.dataset.images, source.dataset.labels
    A = model.features(x).detach()
    weight = model.head.weight.detach()[y]
    np.testing.assert_allclose(table.contributions, A.mean((2, 3)) * weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table.activations, A.mean((2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table.cams, (A * weight[..., None, None]).sum(1) / 144, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table.logits, model(x).detach(), rtol=1e-4, atol=1e-6)
    explained = table.logits[np.arange(20), y] - model.head.bias.detach().numpy()[y]
    np.testing.assert_allclose(table.contributions.sum(1), explained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table.intensity, explained, rtol=1e-4, atol=1e-5)
    assert table.targets.tolist() == table.explained.tolist() == y.tolist()
    assert table.sample_ids.tolist() == [str(i) for i in range(20)]
    assert (table.layer, table.task, table.cam) == ("features", "multiclass", "hirescam")


@pytest.mark.parametrize("options", [{"batch_size": 7}, {"batch_size": 30, "num_workers": 2}, {"shuffle": True}])
def test_same_table_however_it_is_batched(options):
    model = trained(PoolNet())
    expected = table_of(model, loader(30, augmented=True))
    found = table_of(model, loader(30, augmented=True, **options))
    for name in ("contributions", "activations", "cams", "logits"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert found.digest == expected.digest
    assert found.fingerprints.tolist() == expected.fingerprints.tolist()


def test_subset_is_fixed_and_within_reach_of_the_sampler():
    source = loader(50)
    first = reference_indices(source, 10, 0, "train")
    assert first.tolist() == reference_indices(source, 10, 0, "train").tolist()
    assert len(set(first.tolist())) == 10
    half = DataLoader(Squares(50), 8, sampler=SubsetRandomSampler(range(25, 50)))
    assert reference_indices(half, 1024, 0, "train").tolist() == list(range(25, 50))


def test_data_set_may_name_its_samples():
    source = loader(6)
    source.dataset.sample_ids = [f"case-{i}" for i in range(6)]
    assert table_of(trained(PoolNet()), source).sample_ids.tolist() == [f"case-{i}" for i in range(6)]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_disturbed(fails):
    model = trained(MlpNet()).train()
    model.head[2].eval()  # a module that the user keeps in evaluation mode
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    task = (lambda output, target: 1 / 0) if fails else "auto"
    try:
        table_of(model, loader(20, augmented=True), task=task)
    except ZeroDivisionError:
        assert fails
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_tables_of_two_ranks_join_in_data_set_order():
    model, source = trained(PoolNet()), loader(13)
    whole = table_of(model, source)
    indices = reference_indices(source, 1024, 0, "validation")
    halves = [FeatureExtractor(model)(source, indices[rank::2]) for rank in (1, 0)]
    joined = FeatureTable.concatenate(halves)
    assert joined.sample_ids.tolist() == whole.sample_ids.tolist()
    np.testing.assert_allclose(joined.contributions, whole.contributions, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(joined.properties, whole.properties, rtol=1e-5)


def test_callable_task_explains_any_score():
    model, source = trained(PoolNet()), loader(8)
    table = table_of(model, source, task=lambda output, target: output[:, 1] - output[:, 0])
    x = source.dataset.images
    expected = (model(x)[:, 1] - model(x)[:, 0]).detach() - (model.head.bias[1] - model.head.bias[0]).item()
    np.testing.assert_allclose(table.contributions.sum(1), expected, rtol=1e-4, atol=1e-5)
    assert table.task == "custom"


def test_volume_with_one_logit():
    data = TensorDataset(torch.randn(10, 1, 5, 6, 7), torch.arange(10) % 2)
    table = table_of(VolumeNet(), DataLoader(data, 4))
    assert table.cams.shape == (10, 5, 6, 7)
    assert table.logits.shape == (10, 2)
    assert {"background", "corner_top_left", "sharpness"} <= set(table.properties)


@pytest.mark.parametrize("values", [(torch.nan, 0), (torch.inf, 0), (torch.inf, -torch.inf)])
def test_what_is_not_finite_names_the_sample(values):
    source = loader(20)
    source.dataset.images[17, 0, 0, :2] = torch.tensor(values)
    with pytest.raises(DataError, match="first at data-set index 17"):
        table_of(trained(PoolNet()), source, task=lambda output, target: output[:, 0].nan_to_num())


def test_stream_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(Squares(4))

    with pytest.raises(DataError, match="Stream, which cannot be indexed"):
        reference_indices(DataLoader(Stream()), 8, 0, "validation")


def test_empty_set_is_refused():
    empty = DataLoader(TensorDataset(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(DataError, match="the validation loader has no samples"):
        reference_indices(empty, 8, 0, "validation")


def test_channels_last_and_frozen_backbone_change_nothing():
    model, source = trained(PoolNet()), loader(12)
    expected = table_of(model, source)
    model.requires_grad_(False)
    found = table_of(model.to(memory_format=torch.channels_last), source)
    np.testing.assert_allclose(found.contributions, expected.contributions, rtol=1e-4, atol=1e-6)


def test_classes_and_output_agree():
    model = nn.Sequential(PoolNet(), nn.Linear(CLASSES, 2))
    with pytest.raises(Exception, match="label 2 found, but the model tells 2 classes apart"):
        table_of(model, loader(9))
