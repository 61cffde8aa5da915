"""The callback makes batches ready as the validation does: by the hooks of the module, with the loader's own number."""

from __future__ import annotations

import pytest
import torch
from lightning_modules import Net, fit
from models import loader
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import IntegratedFeatureAnalysis


class _Numbered(Net):
    """8-bit images, encoded differently in each validation loader."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.seen.add(dataloader_idx)
        return batch[0].float() / (100 + 100 * dataloader_idx), batch[1]

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass


def _bytes(n: int, seed: int, scale: int) -> DataLoader:
    x, y = next(iter(loader(n, seed=seed, batch_size=n)))
    return DataLoader(TensorDataset((x.clamp(0, 2) * scale).to(torch.uint8), y), 8)


@pytest.mark.filterwarnings("ignore:no MLflow run")
def test_raw_batches_of_several_loaders_are_made_ready():
    callback = IntegratedFeatureAnalysis(on_error="raise")
    net = _Numbered()
    data = _bytes(48, 1, 100), [_bytes(24, 2, 100), _bytes(24, 2, 200)]
    fit([callback], module=net, data=data, max_epochs=1)
    assert callback.report is not None
    assert net.seen == {0, 1}
