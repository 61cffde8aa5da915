"""What the package asks of a Trainer, in one place: loaders, batches, ranks, steps.

Works on the trainers of both Lightning packages, which share these names but no class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from lightning_ifa.errors import InterruptedAnalysisError, StrategyError
from lightning_ifa.tracking.checkpoint import Moment

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


def has_bar(trainer: Any) -> bool:
    """Whether a progress bar may be on the screen."""
    return bool(getattr(getattr(trainer, "progress_bar_callback", None), "is_enabled", False))


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint until now; empty where there is none."""
    return str(getattr(trainer.checkpoint_callback, "best_model_path", ""))


def monitors(trainer: Any, prefix: str) -> dict[str, list[Any]]:
    """Each metric whose name starts like this, to the callbacks and learning-rate schedulers that decide on it."""
    schedulers = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    found: dict[str, list[Any]] = {}
    for each in (*trainer.callbacks, *schedulers):
        key = getattr(each, "monitor", None)
        if isinstance(key, str) and key.startswith(prefix):
            found.setdefault(key, []).append(each)
    return found


def unknown_value(watchers: Sequence[Any]) -> float:
    """The value that stands for a number nobody has, for those who decide on it: never the best, never an end.

    Not a number, which Lightning takes for the worst; but an ``EarlyStopping`` that checks for finite numbers would end
    the training, and gets the worst finite one.
    """
    finite = [each for each in watchers if getattr(each, "check_finite", False)]
    if not finite:
        return math.nan
    worst = torch.finfo(torch.float32).max
    return -worst if getattr(finite[0], "mode", "min") == "max" else worst


def moment(trainer: Any) -> Moment:
    """The epoch, and the step under which Lightning logs this validation's metrics."""
    return Moment(int(trainer.current_epoch), int(trainer.fit_loop.epoch_loop._batches_that_stepped))


@contextmanager
def without_log(module: Any) -> Iterator[None]:
    """Let ``self.log`` do nothing in a block: a forward pass of the analysis must not count among the user's own."""
    logging = [each for each in module.modules() if callable(getattr(each, "log_dict", None))]
    before = [{name: vars(each)[name] for name in ("log", "log_dict") if name in vars(each)} for each in logging]
    try:
        for each in logging:
            vars(each).update(log=_ignore, log_dict=_ignore)
        yield
    finally:
        for each, own in zip(logging, before, strict=True):
            for name in ("log", "log_dict"):
                vars(each).pop(name, None)
            vars(each).update(own)


def stop_at_signal(trainer: Any) -> Callable[[], None]:
    """Give a function that raises if the process was told to end, which a fit notices between its batches only."""

    def ask() -> None:
        if getattr(trainer, "received_sigterm", False):
            raise InterruptedAnalysisError("the process was told to end")

    return ask


def is_hurried(exception: BaseException) -> bool:
    """Whether somebody who waits for the end has caused an exception: Ctrl-C, or a scheduler's SIGTERM."""
    return isinstance(exception, (KeyboardInterrupt, SystemExit)) or type(exception).__name__ == "SIGTERMException"


def _ignore(*args: Any, **options: Any) -> None:
    pass


def log_at(trainer: Any, metrics: Mapping[str, float], step: int, done: str | None) -> None:
    """Log metrics at a step of our own choice, once a run; Lightning's ``log`` knows only the trainer's.

    Args:
        trainer: The trainer.
        metrics: Key to value.
        step: The step.
        done: Id of the run that gets them in another way, or None.
    """
    runs = {done} - {None}
    for logger in trainer.loggers:
        run = _plain_run(logger)
        if run is None or run not in runs:
            logger.log_metrics(dict(metrics), step=step)
            logger.save()
        runs.add(run)


def repeats_a_run(trainer: Any) -> bool:
    """Whether several loggers log to one run, which would get every metric from each."""
    runs = [run for run in map(_plain_run, trainer.loggers) if run is not None]
    return len(runs) > len(set(runs))


def loggers_of(trainer: Any, run_id: str) -> int:
    """How many loggers bring metrics to a run under the metrics' own names."""
    return sum(_plain_run(logger) == run_id for logger in trainer.loggers)


def keep_from_autolog(trainer: Any, run_id: str, keys: Iterable[str]) -> None:
    """Keep MLflow's autolog from logging metrics to this run, since it does so at an epoch's number, not at the step.

    It leaves out what it takes for logged already.
    """
    for callback in trainer.callbacks:
        if type(callback).__name__ == "__MlflowPLCallback" and getattr(callback, "run_id", None) == run_id:
            for name in ("_step_metrics", "_epoch_metrics"):  # what it logs by the step it does not by the epoch
                known = getattr(callback, name, None)
                if isinstance(known, set):
                    known.update(keys)


def after_saving(module: Any, act: Callable[[], None]) -> None:
    """Act once when the module's own ``on_save_checkpoint`` is over: nobody changes a checkpoint after that.

    Averaged weights and the like are put into a checkpoint by other callbacks, or by the module itself.
    """
    before = vars(module).get("on_save_checkpoint")

    def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
        vars(module).pop("on_save_checkpoint")
        if before is not None:
            vars(module)["on_save_checkpoint"] = before
        module.on_save_checkpoint(checkpoint)
        act()

    vars(module)["on_save_checkpoint"] = on_save_checkpoint


def _plain_run(logger: Any) -> str | None:
    """The MLflow run that a logger logs to under the metrics' own names, if it does."""
    run = getattr(logger, "run_id", None)
    return run if isinstance(run, str) and not getattr(logger, "_prefix", "") else None


def _validation_loop(trainer: Any) -> Any:
    return trainer.fit_loop.epoch_loop.val_loop if is_fitting(trainer) else trainer.validate_loop


def _limit(batches: float) -> int | None:
    return None if math.isinf(batches) else int(batches)


def _acts_at_validation_epoch_end(callback: Any, ours: type[Any]) -> bool:
    owners = [base for base in type(callback).__mro__ if "on_validation_epoch_end" in vars(base)]
    return "on_validation_epoch_end" in vars(callback) or not issubclass(ours, owners[0])
