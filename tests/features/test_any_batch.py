"""Whatever a loader yields and however the network is called, the numbers are those of the plain twin."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from lightning_ifa import analyze, check_maps, decompose
from lightning_ifa.errors import IFAError, OutputError
from lightning_ifa.features.transfer_hooks import own_preparation

N = 24


def _network(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
    ).eval()


def _data(n: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(n) % 2
    noise = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return 0.3 * noise + y.view(-1, 1, 1, 1), y


class _Then(nn.Module):
    """A network and what is done to its output, or to its input before."""

    def __init__(self, change, outputs: int = 2) -> None:
        super().__init__()
        self.net, self.change = _network(outputs), change

    def forward(self, x):
        return self.change(self.net, x)


def _table(model, loader, **options):
    return analyze(model, loader, probes=2, **options).tables["validation"]


def _loader(*columns):
    return DataLoader(TensorDataset(*columns), 8)


@pytest.mark.parametrize(
    "squash",
    [
        torch.sigmoid,
        lambda z: z.sigmoid().squeeze(1),
        lambda z: z.sigmoid_(),
        lambda z: 1 / (1 + torch.exp(-z)),
        lambda z: torch.stack([torch.sigmoid(z), torch.sigmoid(z)]).mean(0),
        lambda z: {"features": None, "probability": torch.sigmoid(z)},
    ],
)
def test_probabilities_give_the_numbers_of_their_logits(squash):
    x, y = _data()
    plain = _table(_Then(lambda net, x: net(x), 1), _loader(x, y))
    found = _table(_Then(lambda net, x: squash(net(x)), 1), _loader(x, y))
    np.testing.assert_allclose(found.logits, plain.logits, atol=1e-5)
    np.testing.assert_allclose(found.contributions, plain.contributions, atol=1e-5)
    assert "probabilities" in found.notes[0]
    assert not plain.notes


@pytest.mark.parametrize("squash", [lambda z: z.softmax(1), lambda z: z.log_softmax(1).exp()])
def test_a_softmax_and_saturated_values_keep_their_evidence(squash):
    x, y = _data()
    plain = _table(_Then(lambda net, x: 400 * net(x)), _loader(x, y))
    found = _table(_Then(lambda net, x: squash(400 * net(x))), _loader(x, y))
    margins = [np.diff(table.logits, axis=1) for table in (plain, found)]
    np.testing.assert_allclose(*margins, rtol=1e-4, atol=1e-4)
    assert np.abs(found.contributions).sum(1).min() > 0


def test_logits_that_lie_between_0_and_1_stay_logits():
    x, y = _data()
    model = _Then(lambda net, x: 0.01 * net(x) + 0.5, 1)
    found = _table(model, _loader(x, y))
    assert not found.notes
    np.testing.assert_allclose(2 * found.logits[:, 1], model(x).detach()[:, 0], atol=1e-6)


@pytest.mark.parametrize("order", [lambda f, z: (f, z), lambda f, z: {"z": z, "f": f}])
def test_features_beside_logits_are_refused_unless_one_is_named(order):
    x, y = _data()

    def both(net, x):
        features = net[:4](x)
        return order(features, net[4](features))

    model = _Then(both)
    with pytest.raises(OutputError, match=r"\(2, 8\).*forward_fn"):
        _table(model, _loader(x, y))
    key = "z" if isinstance(order(0, 0), dict) else 1
    named = _table(model, _loader(x, y), forward_fn=lambda model, batch: model(batch[0])[key])
    np.testing.assert_allclose(named.logits, _network()(x).detach(), atol=1e-6)
    scored = _table(model, _loader(x, y), task=lambda out, y: out[key].gather(1, y[:, None])[:, 0])
    assert scored.task == "custom"


@pytest.mark.parametrize("swaps", [False, True])
def test_a_network_that_changes_its_input_gives_the_numbers_of_its_twin(swaps):
    def in_place(net, x):
        x -= 0.3
        x /= 0.5
        return net(x)

    def hidden(net, x):
        x.data.sub_(0.3).div_(0.5)
        return net(x)

    x, y = _data()
    kept = x.clone()
    ways = (lambda net, x: net((x - 0.3) / 0.5), in_place, hidden)
    plain, *others = (
        analyze(_Then(way), _loader(x, y), probes=2, swaps=swaps, cam="scorecam" if swaps else "hirescam")
        for way in ways
    )
    for other in others:
        assert other.metrics == pytest.approx(plain.metrics, nan_ok=True, rel=1e-4, abs=1e-5)
    assert torch.equal(x, kept)


def test_a_network_of_several_inputs_is_called_by_forward_fn():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.meta = _network(), nn.Linear(3, 2)

        def forward(self, image, meta):
            return self.net(image) + self.meta(meta)

    x, y = _data()
    meta, model = torch.randn(N, 3), Two().eval()
    loader = _loader(x, meta, y)
    with pytest.raises(IFAError, match="forward_fn"):
        _table(model, loader, batch_fn=lambda batch: (batch[0], batch[2]))
    found = _table(
        model,
        loader,
        batch_fn=lambda batch: (batch[0], batch[2]),
        forward_fn=lambda model, batch: model(batch[0], meta=batch[1]),
        cam="scorecam",
        swaps=True,
    )
    np.testing.assert_allclose(found.logits, model(x, meta).detach(), atol=1e-5)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("behind", [False, True])
def test_further_analyses_call_it_so_too(behind):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.meta = _network(), nn.Linear(3, 2)

        def forward(self, image, meta):
            return self.net(image) + self.meta(meta) if behind else self.net(image + meta.mean(1)[:, None, None, None])

    x, y = _data()
    torch.manual_seed(0)
    meta, model = 0.1 * torch.randn(N, 3), Two().eval()
    with torch.no_grad():
        model.net[-1].weight[:] = torch.stack([-torch.ones(8), torch.ones(8)])
        model.net[-1].bias[:] = torch.tensor([3.0, -3.0])
    ways = {
        "batch_fn": lambda batch: (batch[0], batch[2]),
        "forward_fn": lambda model, batch: model(batch[0], batch[1]),
    }
    report = analyze(model, _loader(x, meta, y), layer="net.1", probes=1, **ways)
    assert (
        0
        < check_maps(model, _loader(x, meta, y), report, methods=("hirescam",), samples=8, **ways)
        .trust["completeness"]
        .iloc[0]
        < 1 + 1e-6
    )
    if behind:
        with pytest.raises(OutputError, match=r'other inputs beside layer "net.1"'):
            decompose(model, _loader(x, meta, y), report, shares=[0.5, 1.0], draws=1, components=2, **ways)
    else:
        found = decompose(model, _loader(x, meta, y), report, shares=[0.5, 1.0], draws=1, components=2, **ways)
        assert (found.scope, found.full) == ("pooled", report.tables["validation"].correct[1::2].mean())


@pytest.mark.parametrize("call", [lambda model, batch: model(**batch), lambda model, batch: model.score(batch)])
def test_networks_that_take_the_batch_and_those_without_forward(call):
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _network()

        def score(self, batch):
            return self.net(batch["input_values"])

    class Named(Takes):
        def forward(self, input_values, labels):
            return self.net(input_values)

    class Rows(Dataset):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i):
            return {"input_values": x[i], "labels": y[i]}

    x, y = _data()
    model = Named().eval()
    found = _table(model, DataLoader(Rows(), 8), forward_fn=call)
    np.testing.assert_allclose(found.logits, _network()(x).detach(), atol=1e-6)
    with pytest.raises(IFAError, match="forward_fn"):
        _table(Takes().eval(), DataLoader(Rows(), 8))


def test_dropped_samples_cost_themselves_only():
    x, y = _data()
    x[5] = torch.nan

    def drop_broken(samples):
        return default_collate([sample for sample in samples if not sample[0].isnan().any()])

    report = analyze(_network(), DataLoader(TensorDataset(x, y), 8, collate_fn=drop_broken), probes=2)
    table = report.tables["validation"]
    assert table.indices.tolist() == [i for i in range(N) if i != 5]
    np.testing.assert_allclose(table.logits, _network()(x[table.indices]).detach(), atol=1e-6)
    assert any("dropped 1 of 24 samples" in text for text in report.warnings)


def test_samples_dropped_by_their_place_in_the_batch():
    x, y = _data()
    loader = DataLoader(TensorDataset(x, y), 8, collate_fn=lambda s: default_collate(s[1:] if len(s) == 8 else s))
    table = _table(_network(), loader)
    assert table.indices.tolist() == [i for i in range(N) if i % 8]
    np.testing.assert_allclose(table.logits, _network()(x[table.indices]).detach(), atol=1e-6)


class _Sizes(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i):
        return torch.randn(1, 8 + 2 * (i % 3), 8) + i % 2, i % 2


def test_images_of_several_sizes_get_maps_of_the_median_size():
    report = analyze(_network(), DataLoader(_Sizes(), 1), DataLoader(_Sizes(), 1), probes=3, swaps=True)
    table = report.tables["validation"]
    assert table.cams.shape[1:] == (8, 6)
    np.testing.assert_allclose(table.intensity, table.contributions.sum(1), atol=1e-4)
    assert any("8 x 6" in text for text in report.warnings)
    for loaders in ((DataLoader(_Sizes(), 4),), (DataLoader(_Sizes(), 1), DataLoader(_Sizes(), 4))):
        with pytest.raises(IFAError, match="several sizes"):
            analyze(_network(), *loaders)


def test_a_data_set_of_ready_batches():
    x, y = _data()
    batches = list(zip(x.split(5), y.split(5), strict=True))
    found, plain = _table(_network(), DataLoader(batches, batch_size=None)), _table(_network(), _loader(x, y))
    np.testing.assert_allclose(found.logits, plain.logits, atol=1e-6)
    single = _table(_network(), DataLoader(TensorDataset(x, y), batch_size=None))
    np.testing.assert_allclose(single.logits, plain.logits, atol=1e-6)


def test_the_task_is_told_from_the_targets_of_both_splits():
    x, y = _data()
    report = analyze(_network(1), _loader(x, y.float()), _loader(x, (torch.arange(N) // 8).float()), probes=2)
    assert {table.task for table in report.tables.values()} == {"regression"}
    later = _table(_network(1), _loader(x, (torch.arange(N) // 8).float()))
    assert later.task == "regression"


@pytest.mark.parametrize("constant", [True, False])
def test_one_class_segmentation_is_stratified_by_object_size(constant):
    x, _ = _data()
    mask = torch.zeros(N, 1, 8, 8)
    for i in range(N):
        mask[i, :, 1 : 4 if constant else 2 + i % 4] = 1
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)).eval()
    report = analyze(model, _loader(x, mask), _loader(x, mask), probes=2)
    assert report.tables["validation"].targets.tolist() == [1] * N
    assert not any("computation failed" in text for text in report.warnings)
    assert np.isfinite(report.metrics["ifa/overfitting/score"]) or constant


class _Hooked(nn.Module):
    """Has Lightning's transfer hooks, of which one makes 8-bit images ready."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _network()

    def forward(self, x):
        return self.net(x)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return [part.to(device) for part in batch]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0].float() / 100, batch[1]


def test_a_modules_own_transfer_hooks_make_batches_ready():
    x, y = _data()
    raw = (x.clamp(0, 2) * 100).to(torch.uint8)
    found = _table(_Hooked().eval(), _loader(raw, y))
    np.testing.assert_allclose(found.logits, _network()(raw.float() / 100).detach(), atol=1e-5)


def test_a_data_modules_hooks_come_before_the_modules():
    data = pl.LightningDataModule()
    data.on_after_batch_transfer = lambda batch, dataloader_idx: (batch[0] + 1, batch[1])
    x, y = _data(2)
    prepare = own_preparation(_Hooked(), torch.device("cpu"), data)
    assert torch.equal(prepare((x, y))[0], x + 1)
    assert own_preparation(pl.LightningModule(), torch.device("cpu"), pl.LightningDataModule()) is None


def test_a_video_is_analysed_as_a_volume_of_frames():
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv3d(1, 4, 1), nn.Linear(8, 2)
            self.body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU())

        def forward(self, video):
            frames = self.stem(video.transpose(1, 2)).transpose(1, 2)
            return self.head(self.body(frames.flatten(0, 1)).mean((2, 3)).unflatten(0, (len(video), -1)).mean(1))

    torch.manual_seed(0)
    x, y = torch.randn(N, 4, 1, 16, 16), torch.arange(N) % 2
    x[:, :, :, 4:8, 4:8] += 2 * y.view(-1, 1, 1, 1, 1)
    region = np.zeros((4, 16, 16), dtype=bool)
    region[:, 4:8, 4:8] = True
    report = analyze(Frames().eval(), _loader(x, y), probes=2, regions={"validation": [region] * N}, cam="scorecam")
    assert report.tables["validation"].cams.shape == (N, 4, 14, 14)
    assert report.probes.images.shape == (2, 1, 4, 16, 16)
    assert report.tables["validation"].blocks == (("stem", 8),)  # the frames of the others are no samples


@pytest.mark.parametrize("squeeze", [lambda net, tokens: net.norm(tokens), lambda net, tokens: torch.relu(tokens)])
def test_a_layer_is_found_by_changing_one_input_while_the_others_stay(squeeze):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm, self.head = nn.Conv2d(1, 8, 2, 2), nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, image, age):
            tokens = self.patch(image).flatten(2).transpose(1, 2) + age[:, None, None]
            return self.head(squeeze(self, tokens).mean(1))

    torch.manual_seed(0)
    x, y = _data()
    model, age = Tokens().eval(), 5 * torch.rand(N)
    found = _table(
        model,
        DataLoader(TensorDataset(x, age, y), 24),
        batch_fn=lambda batch: (batch[0], batch[2]),
        forward_fn=lambda model, batch: model(batch[0], batch[1]),
    )
    assert found.layer in ("norm", "relu()")
    assert found.cams.shape == (N, 4, 4)
    np.testing.assert_allclose(found.logits, model(x, age).detach(), atol=1e-5)


def test_batches_of_a_custom_sampler_keep_their_choice():
    x, y = _data()
    batches = TensorDataset(x.view(6, 4, 1, 8, 8), y.view(6, 4))
    loader = DataLoader(batches, batch_size=None, sampler=[4, 1])
    assert _table(_network(), loader).indices.tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
