"""The Lightning callback: a thin shell around the analysis and the sink."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from lightning_ifa import trainer_access as access
from lightning_ifa.analysis import analyze_tables, look_outside, probe_rows, transplant, with_metadata
from lightning_ifa.checkpoint import KEY, Record, record
from lightning_ifa.errors import IFAError, IFAWarning
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.metadata import read_metadata
from lightning_ifa.features.probes import take_probes
from lightning_ifa.features.regions import Regions, find_regions
from lightning_ifa.features.sampling import BATCH_SIZE, reference_indices
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.indicators.scale import IntensityScale
from lightning_ifa.lightning_packages import callback_bases
from lightning_ifa.tracking.publish import Moment
from lightning_ifa.tracking.publisher import Publisher
from lightning_ifa.tracking.run import Run, baseline_scale, find_run, other_active_run

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
        cam: ``"hirescam"``, ``"gradcam"``, ``"gradcam++"``, ``"xgradcam"`` or ``"layercam"``.
        max_samples: At most that many samples a split, a fixed random subset.
        probes: How many validation samples are pictured, the same ones in every run and epoch.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i, or a
            CSV or Parquet file with the columns ``split`` and ``index``. A split left out takes it from its data set's
            attribute ``metadata``, if that is such a DataFrame.
        regions: ``"validation"`` to a sequence of boolean masks, or to a function from the data-set index to one, True
            where the evidence should lie; by default the data set's method ``region(index)``, if it has one.
        class_names: One a class.
        batch_fn: Takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual names.
        transplants: Also look for confounders by exchanging borders, corners and background level between images:
            ten more forward passes of 256 samples. Only for images that have a background; see docs/indicators.md.
        seed: Of every random draw of the analysis.
        every_n_epochs: Analyse at every n-th epoch.
        train_dataloader: Training samples without augmentation; by default the trainer's own loader.
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
        transplants: bool = False,
        seed: int = 0,
        every_n_epochs: int = 1,
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
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error={on_error!r}; choose 'warn' or 'raise'")
        self.layer, self.task, self.explain, self.cam = layer, task, explain, cam
        self.max_samples, self.probes, self.seed = max_samples, probes, seed
        self.class_names, self.batch_fn, self.transplants = class_names, batch_fn, transplants
        self.every_n_epochs, self.train_dataloader = every_n_epochs, train_dataloader
        self.log_images, self.baseline_run_id, self.on_error = log_images, baseline_run_id, on_error
        self.run_id, self.tracking_uri, self.install_view = run_id, tracking_uri, install_view
        self.metadata, self.regions = metadata, regions
        self.report: FeatureReport | None = None
        """The latest report; on rank 0 only."""
        self.stands_back = False
        """Whether to leave the work to another instance in the same trainer, if there is one."""
        self._fresh = False
        self._analysed: tuple[int, int] | None = None  # global_step of the analysed weights, and the step logged
        self._logged_to: str | None = None
        self._regions: Regions | None = None  # remembers masks between epochs
        self._scale: IntensityScale | None = None
        self._publisher: Publisher | None = None
        self._warned: set[str] = set()

    @property
    def state_key(self) -> str:
        """Tells two instances in one trainer apart."""
        return str(self._generate_state_key(layer=self.layer, cam=self.cam))

    @property
    def model_tags(self) -> dict[str, str]:
        """Tags that tie a model to the latest analysis: ``mlflow.pytorch.log_model(..., tags=analysis.model_tags)``."""
        found = self._record()
        return found.tags if found else {}

    def state_dict(self) -> dict[str, Any]:
        """The run's id, so that a resumed training can say if it logs elsewhere."""
        return {"run_id": self._logged_to} if self._logged_to else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which run the interrupted training logged to."""
        self._logged_to = state_dict.get("run_id")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Analyse and log the metrics."""
        if trainer.sanity_checking or not self._is_due(trainer):
            return
        metrics = self._analyse(trainer, pl_module)
        if metrics:
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the pictures and tables to the background sink."""
        self._publish_fresh(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record the analysis of the very weights that are saved; those of other steps get no record."""
        found = self._record()
        if found and self._analysed and self._analysed[0] == trainer.global_step:
            checkpoint[KEY] = found.to_dict()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep what was found until now; who interrupts a training does not want to wait."""
        self._publish_fresh(trainer, unlogged=True)  # the logger itself may have failed on these metrics
        self._close_publisher(trainer, timeout=10.0)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finish the uploads while the run is still open."""
        self._close_publisher(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Within fit at every n-th epoch, counted as Lightning counts; a validation on its own always."""
        others = [c for c in access.callbacks(trainer) if isinstance(c, IntegratedFeatureAnalysis) and c is not self]
        if self.stands_back and others:
            return False
        return not access.is_fitting(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _analyse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Analyse on every rank or on none: a rank that failed alone would leave the others waiting."""
        error: Exception | None = None
        shares: dict[str, FeatureTable | None] = {}
        extraction = self._extraction(trainer, pl_module)
        try:
            shares = self._extract(trainer, extraction)
        except Exception as failure:
            error = failure
        if not access.all_succeeded(trainer, error is None):
            self._failed(error or IFAError("the analysis failed on another rank"))
            return {}
        metrics: dict[str, float] = {}
        parts = {split: access.gathered(trainer, share) for split, share in shares.items()}
        if trainer.is_global_zero:
            try:
                tables = {split: FeatureTable.concatenate(found) for split, found in parts.items() if found}
                metrics = self._report(trainer, extraction, tables)
            except Exception as failure:
                error = failure
        if not access.all_succeeded(trainer, error is None):
            self._failed(error or IFAError("the analysis failed on rank 0"))
            return {}
        return trainer.strategy.broadcast(metrics)

    def _extraction(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Extraction:
        return Extraction(
            pl_module,
            self.layer,
            self.task,
            self.explain,
            self.cam,
            self.batch_fn,
            self.seed,
            access.batch_preparation(trainer),
            access.forward_context(trainer),
        )

    def _extract(self, trainer: pl.Trainer, extraction: Extraction) -> dict[str, FeatureTable | None]:
        """This rank's share of both splits' tables."""
        known = read_metadata(self.metadata)
        loaders = {
            "train": access.training_loader(trainer, self.train_dataloader),
            "validation": access.validation_loader(trainer),
        }
        shares: dict[str, FeatureTable | None] = {}
        for split, loader in loaders.items():
            if loader is None:
                continue
            most = (loader.batch_size or BATCH_SIZE) if access.is_fast_dev_run(trainer) else self.max_samples
            indices = access.own_share(trainer, reference_indices(loader, most, self.seed, split))
            shares[split] = None
            if len(indices):
                shares[split] = with_metadata(extraction(loader, indices), loader, known.get(split), split)
        return shares

    def _report(
        self, trainer: pl.Trainer, extraction: Extraction, tables: Mapping[str, FeatureTable]
    ) -> dict[str, float]:
        if self.baseline_run_id and self._scale is None:
            here = self._run(trainer)
            self._scale = baseline_scale(self.baseline_run_id, here.tracking_uri if here else self.tracking_uri)
        validation, loader = tables["validation"], access.validation_loader(trainer)
        rows = probe_rows(validation, self.probes)
        pictured = take_probes(extraction, loader, validation, rows, self.log_images)
        moved = transplant(extraction, loader, validation) if self.transplants else None
        self._regions = self._regions or find_regions(self.regions, "validation", loader.dataset)
        elsewhere = look_outside(extraction, loader, validation, self._regions)
        train = access.training_loader(trainer, self.train_dataloader)
        augmented = train is not None and "train" in tables and extraction.is_augmented(train, tables["train"].indices)
        self.report = analyze_tables(
            tables,
            pictured,
            class_names=self.class_names,
            scale=self._scale,
            transplants=moved,
            elsewhere=elsewhere,
            augmented=augmented,
            seed=self.seed,
        )
        self._fresh = True
        self._analysed = (trainer.global_step, access.logged_step(trainer))
        for text in self.report.warnings:
            self._warn(text)
        return self.report.metrics

    def _publish_fresh(self, trainer: pl.Trainer, unlogged: bool = False) -> None:
        if self._fresh and self.report is not None and not access.is_fast_dev_run(trainer):
            self._fresh = False
            try:
                self._publish(trainer, self.report, unlogged)
            except Exception as error:
                self._failed(error)

    def _publish(self, trainer: pl.Trainer, report: FeatureReport, unlogged: bool = False) -> None:
        moment = Moment(trainer.current_epoch, access.logged_step(trainer))
        if self._publisher is None:
            run, folder = self._run(trainer), Path(trainer.default_root_dir) / "ifa"
            if run is None:
                self._warn(
                    f"no MLflow run was found, so pictures and tables go to {folder}; pass "
                    "logger=MLFlowLogger(tracking_uri=...) to the Trainer, or run_id= to the callback"
                )
            self._publisher = Publisher(run, folder, trainer.loggers, self.install_view)
        self._publisher.put(report, moment, access.best_checkpoint(trainer), unlogged)

    def _record(self) -> Record | None:
        return record(self.report, self._analysed[1], self._logged_to) if self.report and self._analysed else None

    def _run(self, trainer: pl.Trainer) -> Run | None:
        run = find_run(trainer.loggers, self.run_id, self.tracking_uri)
        if run is None:
            return None
        if self._logged_to not in (None, run.run_id):
            self._warn(
                f"this training was resumed, but logs to run {run.run_id} instead of {self._logged_to}; "
                "MLFlowLogger(run_id=...) continues a run"
            )
        other = other_active_run(run)
        if other is not None:
            self._warn(f"the logger writes to run {run.run_id}, but run {other} is active: one training, two runs")
        self._logged_to = run.run_id
        return run

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

    def _close_publisher(self, trainer: pl.Trainer, timeout: float = 60.0) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close(timeout, access.best_checkpoint(trainer))
