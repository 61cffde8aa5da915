"""What the callback asks of a Trainer, in one place: loaders, batches, ranks, steps.

Works on the trainers of both Lightning packages, which share these names but no class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_ifa.errors import DataError
from lightning_ifa.features.sampling import Indices
from lightning_ifa.features.table import FeatureTable


def validation_loader(trainer: Any) -> DataLoader[Any]:
    """The first validation loader.

    Raises:
        DataError: There is no DataLoader among them.
    """
    for loader in _loaders(trainer.val_dataloaders):
        return loader
    raise DataError(f"the validation data is a {type(trainer.val_dataloaders).__name__}; a DataLoader is needed")


def training_loader(trainer: Any, given: DataLoader[Any] | None) -> DataLoader[Any] | None:
    """The user's own loader for the analysis, else the first training loader; None where there is none."""
    if given is not None:
        return given
    return next(_loaders(trainer.train_dataloader), None)


def batch_preparation(trainer: Any) -> Callable[[Any], Any]:
    """Give the way of a batch through the validation loop: precision, the module's hooks, the device."""

    def prepare(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    return prepare


def forward_context(trainer: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Give the precision plugin's context for a forward pass."""
    return lambda: trainer.precision_plugin.forward_context()


def callbacks(trainer: Any) -> list[Any]:
    """All callbacks of the trainer."""
    return list(trainer.callbacks)


def is_fitting(trainer: Any) -> bool:
    """Whether this validation belongs to a training."""
    return str(trainer.state.fn.value) == "fit"


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether this is a test drive, for which Lightning replaces the loggers by dummies."""
    return bool(trainer.fast_dev_run)


def logged_step(trainer: Any) -> int:
    """The step under which Lightning logs this validation's metrics; one less than ``global_step`` within fit."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint until now; empty where there is none."""
    return str(getattr(trainer.checkpoint_callback, "best_model_path", ""))


def own_share(trainer: Any, indices: Indices) -> Indices:
    """This rank's part of the samples; no sample is padded or seen twice."""
    return indices[trainer.global_rank :: trainer.world_size]


def all_succeeded(trainer: Any, succeeded: bool) -> bool:
    """Whether every rank succeeded; every rank must ask."""
    return bool(trainer.strategy.reduce_boolean_decision(succeeded, all=True))


def gathered(trainer: Any, table: FeatureTable | None) -> list[FeatureTable]:
    """Bring the ranks' tables to rank 0; nothing on the others. Every rank must ask."""
    tables: list[FeatureTable | None] | None = [table]
    if trainer.world_size > 1:
        tables = [None] * trainer.world_size if trainer.is_global_zero else None
        torch.distributed.gather_object(table, tables)
    return [part for part in tables or [] if part is not None]


def _loaders(found: Any) -> Iterator[DataLoader[Any]]:
    """The DataLoaders in a loader, list, dict or CombinedLoader, in order."""
    if isinstance(found, DataLoader):
        yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from _loaders(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from _loaders(value)
    elif hasattr(found, "iterables"):  # CombinedLoader, of either package
        yield from _loaders(found.iterables)
