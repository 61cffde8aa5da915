"""What the package asks of a Trainer, in one place: loaders, batches, ranks, steps.

Works on the trainers of both Lightning packages, which share these names but no class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from lightning_ifa.errors import StrategyError
from lightning_ifa.tracking.checkpoint import KEY, Moment

CLEAN = "train_dataloader_clean"

SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
"""Strategies of either Lightning package."""


def validation_loaders(trainer: Any) -> list[Any]:
    """The loaders that the running validation goes through, in the order of their ``dataloader_idx``.

    ``trainer.val_dataloaders`` would still be those of an earlier ``fit`` in a later ``validate``.
    """
    return list(_validation_loop(trainer)._combined_loader.flattened)


def validation_batches(trainer: Any, number: int) -> int | None:
    """How many batches of a loader the validation takes; None if all, or if nobody knows."""
    return _limit(_validation_loop(trainer)._max_batches[number])


def training_loaders(trainer: Any) -> list[Any]:
    """The loaders that a training draws its batches from; none where nothing is trained."""
    combined = trainer.fit_loop._combined_loader
    return list(combined.flattened) if combined is not None else []


def training_batches(trainer: Any) -> int | None:
    """How many batches of the training loader an epoch takes; None if nobody knows."""
    return _limit(trainer.num_training_batches)


def clean_training_loader(trainer: Any) -> Any | None:
    """The training samples without augmentation, where data module or module offer ``train_dataloader_clean``."""
    for owner in (trainer.datamodule, trainer.lightning_module):
        found = getattr(owner, CLEAN, None)
        if found is not None:
            return found() if callable(found) else found
    return None


def load_training_samples(trainer: Any) -> None:
    """Make the training loaders as a fit would, where only a validation runs."""
    trainer.fit_loop.setup_data()


def batch_preparation(trainer: Any, number: int = 0) -> Callable[[Any], Any]:
    """Give the way of a batch of loader ``number`` through the validation loop: precision, the hooks, the device."""

    def prepare(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=number)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=number)

    return prepare


def forward_context(trainer: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Give the precision plugin's context for a forward pass."""
    return lambda: trainer.precision_plugin.forward_context()


def move_forward(trainer: Any, callback: Any) -> None:
    """Put a callback before the first one that does something when a validation epoch ends.

    Averaged weights are put back by then, and the analysis must see the ones that were validated. The list is
    replaced, not changed: Lightning may be walking through it.
    """
    others = [other for other in trainer.callbacks if other is not callback]
    acting = (i for i, other in enumerate(others) if _acts_at_validation_epoch_end(other, type(callback)))
    place = min(next(acting, len(others)), trainer.callbacks.index(callback))
    trainer.callbacks = [*others[:place], callback, *others[place:]]


def require_whole_layers(trainer: Any) -> None:
    """See that every rank holds whole parameters; every rank comes to the same answer.

    Raises:
        StrategyError: The strategy spreads them over the ranks, so that no layer can be run on its own.
    """
    for base in type(trainer.strategy).__mro__:
        if base.__name__ in SHARDING:
            raise StrategyError(
                f"{base.__name__} spreads the parameters over the ranks, and the analysis needs whole layers; save a "
                "full checkpoint and analyse it afterwards: lightning-ifa analyze --checkpoint FILE --config FILE"
            )


def is_fitting(trainer: Any) -> bool:
    """Whether this validation belongs to a training."""
    return str(trainer.state.fn.value) == "fit"


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether this is a test drive, for which Lightning replaces the loggers by dummies."""
    return bool(trainer.fast_dev_run)


def is_last_epoch(trainer: Any) -> bool:
    """Whether no epoch will follow, as far as can be told."""
    last = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return bool(last or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step)


def will_be_kept(trainer: Any) -> bool:
    """Whether a ModelCheckpoint is about to keep these weights as one of the best; every rank must ask."""
    metrics = trainer.callback_metrics
    asked = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None) in metrics and c.save_top_k > 0]
    kept = [c.check_monitor_top_k(trainer, metrics[c.monitor]) for c in asked]
    return any(kept)


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint until now; empty where there is none."""
    return str(getattr(trainer.checkpoint_callback, "best_model_path", ""))


def is_monitored(trainer: Any, prefix: str) -> bool:
    """Whether any callback decides on a metric whose name starts like this."""
    return any(str(getattr(c, "monitor", None)).startswith(prefix) for c in trainer.callbacks)


def moment(trainer: Any) -> Moment:
    """The epoch, and the step under which Lightning logs this validation's metrics."""
    return Moment(int(trainer.current_epoch), int(trainer.fit_loop.epoch_loop._batches_that_stepped))


def moment_of(checkpoint: Mapping[str, Any]) -> Moment | None:
    """The epoch that a checkpoint's weights come from, and the step under which their metrics were logged.

    The step of the recorded analysis if there is one. Else Lightning's own counter, which is one ahead in checkpoints
    saved after the epoch's end.
    """
    if not {"epoch", "global_step"} <= set(checkpoint):
        return None
    before = max(int(checkpoint["global_step"]) - 1, 0)
    loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.state_dict", {})
    step = min(int(loop.get("_batches_that_stepped", before)), before)
    return Moment(int(checkpoint["epoch"]), int(checkpoint.get(KEY, {}).get("step", step)))


def log_at(trainer: Any, metrics: Mapping[str, float], step: int) -> None:
    """Log metrics at a step of our own choice; Lightning's ``log`` knows only the trainer's."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=step)
        logger.save()


def _validation_loop(trainer: Any) -> Any:
    return trainer.fit_loop.epoch_loop.val_loop if is_fitting(trainer) else trainer.validate_loop


def _limit(batches: float) -> int | None:
    return None if math.isinf(batches) else int(batches)


def _acts_at_validation_epoch_end(callback: Any, ours: type[Any]) -> bool:
    owners = [base for base in type(callback).__mro__ if "on_validation_epoch_end" in vars(base)]
    return "on_validation_epoch_end" in vars(callback) or not issubclass(ours, owners[0])
