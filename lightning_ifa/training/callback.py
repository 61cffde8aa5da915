"""The Lightning callback: a thin shell around the analysis and the sink."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from torch.utils.data import DataLoader

from lightning_ifa.analysis import examine, with_metadata
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.data.regions import Regions, find_regions
from lightning_ifa.errors import IFAError, IFAWarning
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators import registry
from lightning_ifa.indicators.context import TrendPoint
from lightning_ifa.indicators.overfitting import AUGMENTED
from lightning_ifa.model.target_layer import Reshape
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.tracking.checkpoint import KEY, Moment
from lightning_ifa.tracking.names import slug
from lightning_ifa.tracking.run import baseline_scale
from lightning_ifa.training import trainer as access
from lightning_ifa.training.distributed import gather_tables, own_share, run_on_all_ranks, run_on_rank_zero
from lightning_ifa.training.lightning_packages import callback_bases
from lightning_ifa.training.loaders import Source, Sources, Streams
from lightning_ifa.training.progress import show_progress
from lightning_ifa.training.run_logger import RunLogger
from lightning_ifa.training.schedule import Schedule
from lightning_ifa.training.validation_capture import ValidationCapture

if TYPE_CHECKING:
    import pytorch_lightning as pl


log = logging.getLogger(__name__)


class IntegratedFeatureAnalysis(*callback_bases()):  # type: ignore[misc]  # pl.Callback, whichever package asks
    """Analyses the network's features at every validation end and logs the result to the run you already have.

    Metrics go through ``pl_module.log_dict`` to every logger, so ``ModelCheckpoint`` and ``EarlyStopping`` may
    monitor them; figures, probe images and FeatureTables go to the MLflow run in the background. Training is not
    disturbed: weights are bit-identical with and without the callback.

    Args:
        layer: Target layer as in ``model.named_modules()``; by default the last one with spatial output.
        task: ``"multiclass"``, ``"binary"``, ``"multilabel"``, ``"regression"``, ``"segmentation"`` or ``"auto"``.
        explain: ``"target"`` (the label where there is one), ``"prediction"``, or a class index.
        cam: Name of a CAM method, as in ``analyze``.
        max_samples: At most that many samples a split, a fixed random subset.
        probes: How many validation samples are pictured, the same ones in every run and epoch.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i, or a
            CSV or Parquet file with the columns ``split`` and ``index``. A split left out takes it from its data set's
            attribute ``metadata``, if that is such a DataFrame. A column ``group`` is not tested: it says which samples
            belong together, as of one patient.
        regions: ``"validation"`` to a sequence of boolean masks, or to a function from the data-set index to one, True
            where the evidence should lie; by default the data set's method ``region(index)``, if it has one.
        class_names: One a class.
        batch_fn: Takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual names.
        reshape: Takes maps ``(n, c, *space)`` from the output of the layer named by ``layer``, by picking and moving
            entries, where its form is not recognised: neither maps, nor tokens of a transformer, nor channels last.
        swaps: Also look for confounders by exchanging borders, corners, level, contrast and fine detail between
            images: twelve more forward passes of 256 samples. Only for images that have a background; see
            docs/indicators.md.
        seed: Of every random draw of the analysis.
        every_n_epochs: Analyse at every n-th epoch.
        max_overhead: Share of the other training time that all analyses together may take, as 0.05; epochs are left
            out to keep it, but neither the first nor the last, nor one whose weights a ModelCheckpoint is about to
            keep as its best. By default every epoch is analysed, however short.
        train_dataloader: Training samples without augmentation; by default what ``train_dataloader_clean`` of the
            data module or module gives, else the trainer's own loader.
        log_images: False: no input pixel leaves the process, only maps and numbers.
        baseline_run_id: Draw the maps on the intensity scale of this earlier run.
        on_error: ``"warn"`` once and train on, or ``"raise"``.
        run_id: MLflow run to log to; by default the logger's, the active one, or that of ``MLFLOW_RUN_ID``.
        tracking_uri: MLflow store; by default the logger's or MLflow's own.
        install_view: Save a view in the MLflow experiment, once, that opens on health, maps and scores of its runs.

    Raises:
        ValueError: An argument is out of range.

    Example::

        Trainer(
            logger=MLFlowLogger(tracking_uri="sqlite:///mlflow.db"),
            callbacks=[IntegratedFeatureAnalysis()],
        )
    """

    def __init__(
        self,
        layer: str | None = None,
        task: str = "auto",
        explain: str | int = "target",
        cam: str = "hirescam",
        max_samples: int = 1024,
        probes: int = 8,
        metadata: Mapping[str, pd.DataFrame] | str | None = None,
        regions: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        batch_fn: BatchFunction | None = None,
        reshape: Reshape | None = None,
        swaps: bool = False,
        seed: int = 0,
        every_n_epochs: int = 1,
        max_overhead: float | None = None,
        train_dataloader: DataLoader[Any] | None = None,
        log_images: bool = True,
        baseline_run_id: str | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        run_id: str | None = None,
        tracking_uri: str | None = None,
        install_view: bool = True,
    ) -> None:
        for name, value, least in (("max_samples", max_samples, 4), ("probes", probes, 1)):
            if value < least:
                raise ValueError(f"{name}={value}; expected at least {least}")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs}; expected at least 1")
        if max_overhead is not None and max_overhead <= 0:
            raise ValueError(f"max_overhead={max_overhead}; expected a share of the training time, as 0.05")
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error={on_error!r}; choose 'warn' or 'raise'")
        self.layer, self.task, self.explain, self.cam = layer, task, explain, cam
        self.max_samples, self.probes, self.seed = max_samples, probes, seed
        self.class_names, self.swaps = class_names, swaps
        self.batch_fn, self.reshape = batch_fn, reshape
        self.every_n_epochs, self.max_overhead = every_n_epochs, max_overhead
        self.train_dataloader = train_dataloader
        self.log_images, self.baseline_run_id, self.on_error = log_images, baseline_run_id, on_error
        self.run_id, self.tracking_uri, self.install_view = run_id, tracking_uri, install_view
        self.metadata, self.regions = metadata, regions
        self.report: FeatureReport | None = None
        """The latest report, of the first validation loader; on rank 0 only."""
        self.stands_back = False
        """Whether to leave the work to another instance in the same trainer, if there is one."""
        self._regions: dict[int, Regions | None] = {}  # by validation loader; they remember masks between epochs
        self._trend: dict[str, list[TrendPoint]] = {}
        self._checkpoint: Moment | None = None
        self._clock = time.monotonic
        self._schedule = Schedule()
        self._streams = Streams(max_samples)
        self._capture = ValidationCapture(None, None)
        self._clean: Any | None = None
        self._scale: IntensityScale | None = None
        self._run_logger = RunLogger(run_id, tracking_uri, install_view, self._warn)
        self._warned: set[str] = set()

    @property
    def state_key(self) -> str:
        """Tells two instances in one trainer apart."""
        return str(self._generate_state_key(layer=self.layer, cam=self.cam))

    @property
    def model_tags(self) -> dict[str, str]:
        """Tags that tie a model to the latest analysis: ``mlflow.pytorch.log_model(..., tags=analysis.model_tags)``."""
        found = self._run_logger.record()
        return found.tags if found else {}

    def state_dict(self) -> dict[str, Any]:
        """The run's id, so that a resumed training can say if it logs elsewhere, and the trend so far."""
        run = {"run_id": self._run_logger.logged_to} if self._run_logger.logged_to else {}
        trend = {family: [list(point) for point in points] for family, points in self._trend.items()}
        return run | ({"trend": trend} if trend else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which run the interrupted training logged to, and how far it had come."""
        self._run_logger.logged_to = state_dict.get("run_id")
        trend = state_dict.get("trend", {})
        self._trend = {family: [TrendPoint(*point) for point in points] for family, points in trend.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember when these weights were trained, for a validation of their own."""
        if not access.is_fitting(trainer):
            self._checkpoint = access.moment_of(checkpoint)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Go before callbacks that change weights back when a validation ends."""
        self._checkpoint = None
        if not self._capture.knows(trainer, pl_module):
            self._capture = ValidationCapture(trainer, pl_module)
        access.move_forward(trainer, self)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and look for training samples without augmentation."""
        self._schedule = Schedule(self.max_overhead, self._clock)
        try:
            self._clean = access.clean_training_loader(trainer)
        except Exception as error:
            self._failed(error)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Get ready to hold samples of a training stream."""
        self._hold("train", trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold some samples of a training stream."""
        self._streams.add("train", 0, batch)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Get ready to hold samples of validation streams."""
        self._hold("validation", trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hold some samples of a validation stream, or ride on the validation."""
        self._streams.add("validation", dataloader_idx, batch)
        if dataloader_idx > 0:
            self._capture.stop()
        elif batch_idx > 0:
            self._capture.next_batch()
        elif trainer.world_size == 1 and not trainer.sanity_checking and self._is_due(trainer):
            with suppress(Exception):  # the analysis will say why it has no samples
                self._capture.start(self._sources(trainer, pl_module).validation(0), batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Analyse and log the metrics."""
        self._capture.stop()
        if trainer.sanity_checking or not self._is_due(trainer):
            return
        metrics: dict[str, float] = {}
        if self._schedule.allows(trainer):
            with self._schedule.spending():
                metrics = self._analyse(trainer, pl_module)
        else:
            self._warn(
                f"analyses at every validation cost more than max_overhead={self.max_overhead} of the training time; "
                "some are skipped, ifa/budget/skipped counts them"
            )
        metrics |= self._schedule.metrics(trainer)
        if metrics:
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1, logger=False if self._checkpoint else None)
            if self._checkpoint is not None:
                access.log_at(trainer, metrics, self._checkpoint.step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the pictures and tables to the background sink."""
        self._send(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record the analysis of the very weights that are saved; those of other steps get no record."""
        found = self._run_logger.record(trainer.global_step)
        if found:
            checkpoint["/".join(filter(None, (KEY, self._run_logger.place)))] = found.to_dict()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep what was found until now; who interrupts a training does not want to wait."""
        self._capture.stop()
        self._send(trainer, unlogged=True)  # the logger itself may have failed on these metrics
        self._run_logger.close(10.0, access.best_checkpoint(trainer))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finish the uploads while the run is still open."""
        self._run_logger.close(60.0, access.best_checkpoint(trainer))

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Within fit at every n-th epoch, counted as Lightning counts; a validation on its own always."""
        if self not in _instances(trainer):
            return False
        return not access.is_fitting(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _hold(self, split: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold samples of this split's streams, if it has any."""
        try:
            loaders = access.validation_loaders(trainer) if split == "validation" else access.training_loaders(trainer)
            self._streams.restart(split, loaders, self._extraction(trainer, pl_module), trainer.world_size)
        except Exception as error:
            self._failed(error)

    def _analyse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Analyse each validation loader; one that fails takes no other with it, unless it is the first."""
        metrics: dict[str, float] = {}
        try:
            access.require_whole_layers(trainer)
            sources = self._sources(trainer, pl_module)
            train = run_on_all_ranks(trainer, sources.train)
            tables = {"train": self._tables(trainer, train)}
            tables["augmented"] = self._tables(trainer, run_on_all_ranks(trainer, partial(sources.augmented, train)))
            for number in range(len(access.validation_loaders(trainer))):
                with self._optional(number > 0):
                    source = run_on_all_ranks(trainer, partial(sources.validation, number))
                    tables["validation"] = self._tables(trainer, source)
                    report = partial(self._report, trainer, source, train, tables)
                    metrics |= run_on_rank_zero(trainer, partial(self._keep, trainer, report, number))
        except Exception as error:
            self._failed(error)
        return metrics

    @contextmanager
    def _optional(self, is_optional: bool) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_optional:
                raise
            self._failed(error)

    def _tables(self, trainer: pl.Trainer, source: Source | None) -> list[FeatureTable]:
        """Every rank's share of a source's table, on rank 0; nothing on the others, or without a source."""
        if source is None:
            return []
        return gather_tables(trainer, run_on_all_ranks(trainer, partial(self._share, trainer, source)))

    def _share(self, trainer: pl.Trainer, source: Source) -> FeatureTable | None:
        """This rank's share of a source's table; None where it has no sample."""
        indices = own_share(trainer, source.indices)
        if not len(indices):
            return None
        with show_progress(trainer, source, len(indices)) as seen:
            table = self._capture.table(seen, indices)
        return with_metadata(table, source.loader, self._known_metadata.get(source.split), source.split)

    @cached_property
    def _known_metadata(self) -> dict[str, pd.DataFrame]:
        """The user's metadata by split; a file is read once, not for every table of every analysis."""
        return read_metadata(self.metadata)

    def _sources(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Sources:
        clean = self.train_dataloader if self.train_dataloader is not None else self._clean
        return Sources(trainer, self._extraction(trainer, pl_module), self._streams, self.max_samples, clean)

    def _extraction(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> FeatureExtractor:
        return FeatureExtractor(
            pl_module,
            self.layer,
            self.task,
            self.explain,
            self.cam,
            self.batch_fn,
            self.seed,
            access.batch_preparation(trainer),
            access.forward_context(trainer),
            self.reshape,
        )

    def _report(
        self, trainer: pl.Trainer, source: Source, train: Source | None, parts: Mapping[str, list[FeatureTable]]
    ) -> FeatureReport:
        if self.baseline_run_id and self._scale is None:
            here = self._run_logger.run(trainer)
            self._scale = baseline_scale(self.baseline_run_id, here.tracking_uri if here else self.tracking_uri)
        tables = {split: FeatureTable.concatenate(found) for split, found in parts.items() if found}
        augmented_train = tables.pop("augmented", None)
        augmented = train is not None and train.extraction.is_augmented(train.loader, train.indices)
        if augmented:
            self._say(AUGMENTED)
        return examine(
            tables,
            {taken.split: (taken.extraction, taken.loader) for taken in (source, train) if taken is not None},
            probes=self.probes,
            pixels=self.log_images,
            regions=self._located(source),
            swaps=self.swaps,
            class_names=self.class_names,
            scale=self._scale,
            augmented=augmented,
            augmented_train=augmented_train,
            seed=self.seed,
        )

    def _located(self, source: Source) -> Regions | None:
        """Where the evidence should lie; the user's own regions are those of the first validation loader."""
        if source.number not in self._regions:
            given = self.regions if source.number == 0 else None
            self._regions[source.number] = find_regions(given, "validation", source.loader.dataset)
        return self._regions[source.number]

    def _keep(self, trainer: pl.Trainer, analysis: Callable[[], FeatureReport], number: int) -> dict[str, float]:
        """Make a report and keep it until it is sent; give its metrics as they are logged."""
        report = analysis()
        if number == 0:
            report = self.report = self._with_trend(trainer, report)
            self._run_logger.place = self._own_place(trainer, report.tables["validation"].layer)
        for text in report.warnings:
            self._warn(text)
        return self._run_logger.put(report, self._moment(trainer), trainer.global_step, number)

    def _with_trend(self, trainer: pl.Trainer, report: FeatureReport) -> FeatureReport:
        if access.is_fitting(trainer):
            self._trend = registry.extend_trend(self._trend, trainer.current_epoch, report.findings)
        return replace(report, trend=self._trend)

    def _own_place(self, trainer: pl.Trainer, layer: str) -> str:
        """Nothing for the first instance in a trainer; the layer's name for further ones."""
        before = list(takewhile(lambda other: other is not self, _instances(trainer)))
        taken = {other._run_logger.place for other in before}
        return "" if not before else slug(f"{layer}-{self.cam}") if slug(layer) in taken else slug(layer)

    def _moment(self, trainer: pl.Trainer) -> Moment:
        """The trainer's, or that of the checkpoint which is validated."""
        return self._checkpoint or access.moment(trainer)

    def _send(self, trainer: pl.Trainer, unlogged: bool = False) -> None:
        """Hand over what was found; nothing of a test drive."""
        if access.is_fast_dev_run(trainer):
            self._run_logger.drop()
        try:
            self._run_logger.send(trainer, access.best_checkpoint(trainer), unlogged)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.on_error == "raise":
            raise error
        reason = str(error) if isinstance(error, IFAError) else f"{type(error).__name__}: {error}"
        self._warn(f"feature analysis left out, training goes on: {reason}", once_for=type(error).__name__)
        log.debug("feature analysis failed", exc_info=error)

    def _warn(self, text: str, once_for: str | None = None) -> None:
        key = once_for or text
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(text, IFAWarning, stacklevel=3)

    def _say(self, text: str) -> None:
        """Say something once that calls for no action in a script that treats warnings as errors."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning(text)


def _instances(trainer: pl.Trainer) -> list[IntegratedFeatureAnalysis]:
    """The analyses in a trainer, in the user's order, without any that stands back for another."""
    found = [c for c in access.callbacks(trainer) if isinstance(c, IntegratedFeatureAnalysis)]
    return [c for c in found if not c.stands_back] or found
