"""The Lightning callback: its options, and Lightning's hooks, each of which hands over to the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from torch.utils.data import DataLoader

from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.target_layer import Reshape
from lightning_ifa.options import AnalysisOptions, TrainingOptions
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.tracking.checkpoint import moment_of
from lightning_ifa.training import trainer as access
from lightning_ifa.training.lightning_packages import callback_bases
from lightning_ifa.training.session import Session

if TYPE_CHECKING:
    import pytorch_lightning as pl


_TAKING = Lock()
"""Held while a thread takes a session; of the module, since a callback with a lock could not be sent to processes."""


class IntegratedFeatureAnalysis(*callback_bases()):  # type: ignore[misc]  # pl.Callback, whichever package asks
    """Analyses the network's features at every validation end and logs the result to the run you already have.

    Metrics go through ``pl_module.log_dict`` to every logger, so ``ModelCheckpoint`` and ``EarlyStopping`` may
    monitor them; figures, probe images and FeatureTables go to the MLflow run in the background. Training is not
    disturbed: weights are bit-identical with and without the callback.

    Args:
        layer: Target layer as in ``model.named_modules()``; by default the last activation the score depends on.
        task: ``"multiclass"``, ``"binary"``, ``"multilabel"``, ``"regression"``, ``"segmentation"`` or ``"auto"``.
        explain: ``"target"`` (the label where there is one), ``"prediction"``, or a class index.
        cam: Name of a CAM method, as in ``analyze``.
        gradient: ``"conservative"`` (norms and attention weights behind the layer are held fixed) or ``"plain"``, as in
            ``analyze``.
        max_samples: The largest number of samples analysed of a split, at least 4; a fixed random subset.
        probes: The number of validation samples that are pictured, the same ones in every run and epoch.
        metadata: ``"train"`` and / or ``"validation"`` to a DataFrame whose row i describes data-set index i, or a
            CSV or Parquet file with the columns ``split`` and ``index``. A split left out takes it from its data set's
            attribute ``metadata``, if that is such a DataFrame. A column ``group`` is not tested: it says which samples
            belong together, as of one patient.
        regions: ``"validation"`` to a sequence of boolean masks, or to a function from the data-set index to one, True
            where the evidence should lie; by default the data set's method ``region(index)``, if it has one.
        class_names: The name of each class.
        batch_fn: A function that takes ``(x, y)`` from a batch that is neither ``(x, y, ...)`` nor a mapping with usual
            names.
        forward_fn: A function ``(model, batch) -> output`` that calls a network which is not called as ``model(x)``, or
            names one of its outputs, as in ``analyze``.
        reshape: A function that takes maps ``(n, c, *space)`` from the output of the layer named by ``layer``, by
            picking and moving entries, where its form is not recognised: neither maps, nor tokens of a transformer,
            nor channels last.
        swaps: Also look for confounders by exchanging borders, corners, level, contrast and fine detail between
            images: twelve more forward passes of 256 samples. Only for images that have a background; see
            docs/indicators.md.
        nifti: Also write the maps of pictured volumes as NIfTI files over their images; see docs/medical_imaging.md.
        seed: Seed of every random draw of the analysis.
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
        log_models: ``"best"``: when the training ends, its best checkpoint becomes an MLflow model of its run, with the
            metrics of these very weights, ready to be registered and to pass the gate; ``"all"``: so does every
            checkpoint that was kept. By default none does.

    Raises:
        ValueError: An option has an unknown name, a value out of range, or a value of a wrong type.

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
        explain: int | str = "target",
        cam: str = "hirescam",
        gradient: Literal["conservative", "plain"] = "conservative",
        max_samples: int = 1024,
        probes: int = 8,
        metadata: Mapping[str, pd.DataFrame] | str | None = None,
        regions: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        batch_fn: BatchFunction | None = None,
        forward_fn: ForwardFunction | None = None,
        reshape: Reshape | None = None,
        swaps: bool = False,
        nifti: bool = False,
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
        log_models: Literal["best", "all"] | None = None,
    ) -> None:
        given = locals()
        self._session = Session(AnalysisOptions.of(given), TrainingOptions.of(given))
        self._sessions: dict[int, Session] = {}  # of threads that train while another one does

    @property
    def session(self) -> Session:
        """What does the work: one session, or one for each thread that trains at the same time."""
        return self._sessions.get(get_ident(), self._session)

    @session.setter
    def session(self, session: Session) -> None:
        self._session = session

    @property
    def report(self) -> FeatureReport | None:
        """The latest report, of the first validation loader; on rank 0 only."""
        return self.session.report

    @property
    def model_tags(self) -> dict[str, str]:
        """Tags that tie a model to the latest analysis: ``mlflow.pytorch.log_model(..., tags=analysis.model_tags)``.

        None if the module has other weights by now than were analysed.
        """
        return self.session.tags()

    @property
    def state_key(self) -> str:
        """A key that differs between two instances in one trainer."""
        options = self.session.options
        return str(self._generate_state_key(layer=options.layer, cam=options.cam))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know: the run, and the trend so far."""
        state: dict[str, Any] = {}
        with self.session.notices.guard():
            state |= self.session.state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the interrupted training was."""
        with self.session.notices.guard():
            self.session.restore(state_dict)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember when these weights were trained, for a validation of their own."""
        with self.session.notices.guard():
            if not access.is_fitting(trainer):
                self.session.checkpoint = moment_of(checkpoint)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Go before callbacks that change weights back when a validation ends."""
        with self.session.notices.guard():
            with _TAKING:
                if not self.session.take():
                    self._sessions[get_ident()] = self._session.make_sibling()
            self.session.start_stage(trainer, pl_module, stage)
            access.move_forward(trainer, self)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the time budget, and look for training samples without augmentation."""
        with self.session.notices.guard():
            self.session.start_fit(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Get ready to keep samples of a training stream."""
        with self.session.notices.guard():
            self.session.start_epoch("train", trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep some samples of a training stream."""
        with self.session.notices.guard():
            self.session.streams.add("train", 0, batch)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Get ready to keep samples of validation streams."""
        with self.session.notices.guard():
            self.session.start_epoch("validation", trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep some samples of a validation stream, or capture what the validation computes."""
        with self.session.notices.guard():
            self.session.see_validation_batch(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Analyse and log the metrics."""
        with self.session.notices.guard():
            self.session.finish_validation(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the pictures and tables to the run, in the background."""
        with self.session.notices.guard():
            self.session.send(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so if nothing was analysed."""
        with self.session.notices.guard():
            self.session.finish_fit(trainer)
        with self.session.notices.guard():
            self.session.log_models(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record the analysis of the very weights that are saved."""
        with self.session.notices.guard():
            self.session.record(pl_module, checkpoint)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep what was found until now; who interrupts a training does not want to wait."""
        hurried = access.is_hurried(exception)
        with self.session.notices.guard_end():
            self.session.capture.stop()
        with self.session.notices.guard_end():
            self.session.send(trainer, failed=True)  # the logger itself may have failed on these metrics
        with self.session.notices.guard_end():
            self.session.close(trainer, 0.3 if hurried else 10.0)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finish the uploads while the run is still open."""
        with self.session.notices.guard_end():
            self.session.close(trainer, 60.0)
