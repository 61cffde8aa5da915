"""The analyses of one callback, from the first validation of a training to the last."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial, reduce
from itertools import takewhile
from typing import Any

import pandas as pd
import torch

from lightning_ifa.analysis import Source, examine, extractor_of, with_metadata
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.data.regions import Regions, find_regions
from lightning_ifa.errors import InterruptedAnalysisError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators import registry
from lightning_ifa.indicators.context import TrendPoint
from lightning_ifa.indicators.overfitting import AUGMENTED
from lightning_ifa.model.output_form import widen_task
from lightning_ifa.options import AnalysisOptions, TrainingOptions
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.report.markdown import headline
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.tracking.checkpoint import HOW_TO_ANALYZE, Moment, Record, belongs_to, put_record
from lightning_ifa.tracking.datasets import name_source
from lightning_ifa.tracking.names import slug
from lightning_ifa.tracking.run import baseline_scale
from lightning_ifa.training import trainer as access
from lightning_ifa.training.distributed import (
    gather_tables,
    gather_texts,
    own_share,
    run_on_all_ranks,
    run_on_rank_zero,
)
from lightning_ifa.training.kept_models import copy_to_cpu, example_of, kept_checkpoints
from lightning_ifa.training.loaders import ReferenceSamples, Streams, TrainerLoaders
from lightning_ifa.training.notices import Notices
from lightning_ifa.training.progress import show_progress
from lightning_ifa.training.run_logger import RunLogger
from lightning_ifa.training.schedule import Schedule
from lightning_ifa.training.validation_capture import ValidationCapture


class Session:
    """Analyses the network at validations, remembers what lasts from one to the next, and hands the reports on.

    Args:
        options: The options of each analysis.
        training: When to analyse, from which samples, and where the reports go.

    Attributes:
        report: The latest report, of the first validation loader; on rank 0 only.
        is_fallback: Whether to leave the work to the trainer's other sessions, if there are any.
        publishes: Whether reports are handed to the run.
        sources: Where nothing is published, split to how the report's features were taken, and from which loader.
        checkpoint: The moment at which the weights were trained that are validated on their own.
        trend: Family to epoch, score and z at each analysis of the training.
    """

    def __init__(self, options: AnalysisOptions, training: TrainingOptions) -> None:
        self.options, self.training = options, training
        self.notices = Notices(training.on_error == "raise")
        self.is_fallback, self.publishes = False, True
        self.checkpoint: Moment | None = None
        self.module: Any | None = None
        self._thread: int | None = None
        self.capture = ValidationCapture(None, None)
        self._forget()
        self.streams = Streams(options.max_samples)
        self._schedule = Schedule()
        self._clean: Any | None = None
        self._scale: IntensityScale | None = None
        self._task = ""  # as all targets seen so far tell it, where the user does not
        self._regions: dict[int, tuple[Any, Regions | None]] = {}  # by loader; they remember their data set's masks

    def _forget(self) -> None:
        """Begin anew: a fit that goes on with another's training is told so by its checkpoint."""
        options = self.training
        self.run_logger = RunLogger(options.run_id, options.tracking_uri, options.install_view, self.notices.warn)
        self.report: FeatureReport | None = None
        self.trend: dict[str, list[TrendPoint]] = {}
        self.logged: dict[str, float] = {}
        self._extra: dict[str, float] = {}
        self._known_keys: set[str] = set()
        self._samples: ReferenceSamples | None = None  # of the first validation loader
        self.sources: dict[str, Source] = {}
        self._began_at = self._validations = self._analyses = self._announced = 0
        self._others: dict[str, str] = {}  # what was found on further validation loaders, in words
        self.notices.forget()

    def take(self) -> bool:
        """Let this thread use the session, and say whether it may: not while another thread trains with it."""
        alive = {thread.ident for thread in threading.enumerate()}
        if self._thread in alive - {threading.get_ident()}:
            return False
        self._thread = threading.get_ident()
        return True

    def make_sibling(self) -> Session:
        """Make a session with the same options, for another thread."""
        other = Session(self.options, self.training)
        other.is_fallback, other.publishes, other.notices.raises = self.is_fallback, self.publishes, self.notices.raises
        other.take()
        return other

    def start_stage(self, trainer: Any, module: Any, stage: str) -> None:
        """Get to know the trainer and the module of a fit or a validation; forget those of an earlier fit."""
        goes_on = self.capture.knows(trainer, module) and trainer.current_epoch > 0
        if stage == "fit" and not goes_on:
            self._forget()
        self.checkpoint, self.module = None, module
        self._announced = self._analyses
        if not self.capture.knows(trainer, module):
            self._task = ""
            self.capture = ValidationCapture(trainer, module)

    def start_fit(self, trainer: Any) -> None:
        """Start the time budget, and look for training samples without augmentation."""
        self._schedule = Schedule(self.training.max_overhead)
        self._began_at = trainer.global_step
        self.find_clean_samples(trainer)

    def find_clean_samples(self, trainer: Any) -> None:
        """Ask data module and module for their training samples without augmentation."""
        self._clean = access.clean_training_loader(trainer)

    def start_epoch(self, split: str, trainer: Any, module: Any) -> None:
        """Get ready to keep samples of this split's streams, if it has any."""
        loaders = access.validation_loaders(trainer) if split == "validation" else access.training_loaders(trainer)
        self.streams.restart(split, loaders, self._extraction(trainer, module), trainer.world_size)

    def see_validation_batch(self, trainer: Any, module: Any, batch: Any, position: int, number: int) -> None:
        """Keep samples of a validation stream, or capture what the user's validation does with a batch.

        ``position`` is that of the batch in its loader, ``number`` that of the loader.
        """
        self.streams.add("validation", number, batch)
        if number > 0:
            self.capture.stop()
        elif position > 0:
            self.capture.next_batch()
        elif trainer.world_size == 1 and self.is_due(trainer):
            with suppress(Exception), access.without_log(module):  # the analysis will say why it has no samples
                self.capture.start(self._loaders(trainer, module).validation(0), batch)

    def is_due(self, trainer: Any) -> bool:
        """Whether to analyse: within a fit at every n-th epoch as Lightning counts them, else at each validation."""
        if trainer.sanity_checking or self not in sessions(trainer):
            return False
        is_nth = (trainer.current_epoch + 1) % self.training.every_n_epochs == 0
        return is_nth or not access.is_fitting(trainer) or bool(access.monitors(trainer, "ifa/"))

    def finish_validation(self, trainer: Any, module: Any) -> None:
        """Analyse, if it is time and the budget allows it, and log the metrics."""
        self.capture.stop()
        metrics: dict[str, float] = {}
        self.logged = metrics
        self._validations += not trainer.sanity_checking
        if not self.is_due(trainer):
            return
        if self._schedule.allows(trainer):
            self.notices.failure = ""
            with self._schedule.spending(), self.notices.guard(), access.without_log(module):
                self.analyze(trainer, module, metrics)
                self._analyses += 1
        else:
            self.notices.warn(
                f"analyses at every validation cost more than max_overhead={self.training.max_overhead} of the "
                "training time; some are skipped, ifa/budget/skipped counts them"
            )
        self._extra = self._schedule.metrics(trainer)
        metrics |= self._extra
        if metrics:
            self._log(trainer, module, metrics)
        if access.is_fitting(trainer) and self is sessions(trainer)[-1]:
            self._stand_in(trainer, module)

    def _log(self, trainer: Any, module: Any, metrics: dict[str, float]) -> None:
        """Log to the trainer's loggers, once a run; where none of them brings metrics to it, ``send`` does."""
        self._known_keys |= set(metrics)
        run = self.run_logger.run(trainer) if self.publishes and trainer.is_global_zero else None
        if run is not None:
            access.keep_from_autolog(trainer, run.run_id, metrics)
        itself = self.checkpoint is not None or access.repeats_a_run(trainer)
        module.log_dict(metrics, sync_dist=trainer.world_size > 1, logger=False if itself else None)
        if itself:
            sent = run.run_id if run is not None and self.checkpoint is not None else None
            access.log_at(trainer, metrics, (self.checkpoint or access.moment(trainer)).step, sent)

    def _stand_in(self, trainer: Any, module: Any) -> None:
        """Give those who decide on a metric a value where this validation has none: they would end the training.

        Not where nobody ever had such a metric; then Lightning says so best.
        """
        logged = {key for each in sessions(trainer) for key in each.logged}
        analyzed = {key.rpartition("/")[0] for key in logged}
        for key, watchers in access.monitors(trainer, "ifa/").items():
            if key in logged or (key.rpartition("/")[0] in analyzed and key not in self._known_keys):
                continue
            value = access.unknown_value(watchers)
            names = ", ".join(sorted({type(each).__name__ for each in watchers}))
            reason = self.notices.failure or "the analysis has no such number here"
            self.notices.warn(f"{names} gets {value:g} for {key}, since nothing is known of it: {reason}", key)
            trainer.callback_metrics[key] = torch.tensor(value, device=module.device)  # and so to no logger

    def finish_fit(self, trainer: Any) -> None:
        """Say so if nothing was analysed, and why."""
        is_idle = trainer.global_step == self._began_at  # there was nothing left to train
        if self._analyses or is_idle or self not in sessions(trainer) or not trainer.is_global_zero:
            return
        nothing = "nothing was analysed in this training: "
        if self.notices.failure:  # of which there was a warning
            self.notices.say(nothing + self.notices.failure)
        elif self._validations:
            every = f"every_n_epochs={self.training.every_n_epochs}"
            self.notices.warn(f"{nothing}{every} asks for none of its {self._validations} validations")
        else:
            why = "no validation ran; see the validation loader, limit_val_batches and check_val_every_n_epoch"
            self.notices.warn(nothing + why)

    def log_models(self, trainer: Any, module: Any) -> None:
        """Make the checkpoints that were kept models of the run, in the background, if that is wanted."""
        which, samples, self._samples = self.training.log_models, self._samples, None
        if which is None or samples is None or not trainer.is_global_zero or access.is_fast_dev_run(trainer):
            return
        paths = kept_checkpoints(trainer, which)
        if not paths:
            self.notices.warn(f"log_models={which!r}, but no checkpoint was kept; add a ModelCheckpoint")
            return
        network, example = copy_to_cpu(module), None
        try:
            example = example_of(samples, network, self.training.log_images)
        except Exception as error:  # the user's network called by somebody else: a model without a signature is one
            self.notices.warn(f"the models of this run have no signature: {type(error).__name__}: {error}")
        self.run_logger.send_models(trainer, network, paths, example)

    def analyze(self, trainer: Any, module: Any, metrics: dict[str, float]) -> None:
        """Analyse each validation loader, and add its metrics to ``metrics`` as soon as they are there.

        A loader that fails takes no other with it, unless it is the first.
        """
        access.require_whole_layers(trainer)
        loaders = self._loaders(trainer, module)
        train = run_on_all_ranks(trainer, loaders.train)
        tables = {"train": self._tables(trainer, train)}
        try:
            augmented = run_on_all_ranks(trainer, partial(loaders.augmented, train))
            tables["augmented"] = self._tables(trainer, augmented)
        except InterruptedAnalysisError:
            raise
        except Exception as error:  # the loss in augmented samples is one number beside the others
            self.notices.warn(f"how much augmentation hides is left out: {error}")
        metrics |= self._analyze_loader(trainer, loaders, train, tables, 0)
        for number in range(1, len(access.validation_loaders(trainer))):
            with self.notices.guard():
                metrics |= self._analyze_loader(trainer, loaders, train, tables, number)

    def send(self, trainer: Any, failed: bool = False) -> None:
        """Hand what was found to the run, in the background; ``failed`` if the loggers may have failed on it."""
        if access.is_fast_dev_run(trainer) or not self.publishes:
            self.run_logger.drop()
        doubtful = failed or self.checkpoint is not None
        self.run_logger.send(trainer, access.best_checkpoint(trainer), self._extra, doubtful)
        if self._announced == 0:  # the first of this training; the last is announced when it is over
            self._announce(trainer)

    def _announce(self, trainer: Any) -> None:
        """Say in three lines what the latest analysis found, unless that was said; on rank 0 only."""
        if self.report is None or self._announced == self._analyses or not self.publishes:
            return
        self._announced = self._analyses
        self.notices.inform(self.run_logger.announce_latest(trainer, self._others), access.has_bar(trainer))

    def close(self, trainer: Any, timeout: float) -> None:
        """Finish the uploads, as far as the time allows, in seconds, and leave the session to other threads."""
        self._thread = None
        for text in self.run_logger.close(timeout, access.best_checkpoint(trainer)):
            self.notices.inform(f"feature analysis: {text}")
        self._announce(trainer)

    def record(self, module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the analysis of the very weights that are saved into their checkpoint; none of others."""
        found = self.run_logger.record()
        if found is not None:
            access.after_saving(module, partial(self._put_record, checkpoint, found))

    def _put_record(self, checkpoint: dict[str, Any], found: Record) -> None:
        with self.notices.guard():
            if not put_record(checkpoint, found, self.run_logger.place):
                self.notices.warn(
                    "a checkpoint holds other weights than the latest analysis saw, and so no record of it; "
                    f"{HOW_TO_ANALYZE}"
                )

    def tags(self) -> dict[str, str]:
        """Tags that tie the module to the latest analysis; none if its weights are others by now."""
        found = self.run_logger.record()
        if found is None or self.module is None:
            return {}
        if not belongs_to(found, self.module.state_dict()):
            self.notices.warn(
                "the module has other weights than the latest analysis saw, and so no tags of it; save them, and "
                f"{HOW_TO_ANALYZE}"
            )
            return {}
        return found.tags

    def state(self) -> dict[str, Any]:
        """The run's id, so that a resumed training can say if it logs to another one, and the trend so far."""
        run = {"run_id": self.run_logger.logged_to} if self.run_logger.logged_to else {}
        return run | ({"trend": _trend_rows(self.trend)} if self.trend else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember which run the interrupted training logged to, and how far it had come."""
        self.run_logger.logged_to = state.get("run_id")
        self.trend = {}
        for epoch, found in state.get("trend", []):
            for family, (score, z) in found.items():
                self.trend.setdefault(family, []).append(TrendPoint(epoch, score, z))

    def _loaders(self, trainer: Any, module: Any) -> TrainerLoaders:
        own = self.training.train_dataloader
        clean = own if own is not None else self._clean
        return TrainerLoaders(
            trainer, self._extraction(trainer, module), self.streams, self.options.max_samples, clean, self.notices.warn
        )

    def _extraction(self, trainer: Any, module: Any) -> FeatureExtractor:
        return extractor_of(
            module,
            self.options,
            prepare=access.batch_preparation(trainer),
            forward_context=access.forward_context(trainer),
            ask=access.stop_at_signal(trainer),
        )

    def _analyze_loader(
        self,
        trainer: Any,
        loaders: TrainerLoaders,
        train: ReferenceSamples | None,
        tables: Mapping[str, list[FeatureTable]],
        number: int,
    ) -> dict[str, float]:
        """Analyse one validation loader, and give its metrics as they are logged."""
        validation = run_on_all_ranks(trainer, partial(loaders.validation, number))
        before, found = self._task, self._tables(trainer, validation)
        if self._task != before:  # what was taken of the training samples for one task are of another
            tables = {"train": self._tables(trainer, train)} if tables.get("train") or train is not None else {}
        parts = {**tables, "validation": found}
        self._samples = validation if number == 0 and self.training.log_models else self._samples
        if number == 0 and not self.publishes:  # a report alone is asked for, and what it was made from with it
            present = (each for each in (validation, train) if each is not None)
            self.sources = {each.split: (each.extraction, each.loader) for each in present}
        return run_on_rank_zero(
            trainer,
            lambda: self._keep(
                trainer, self._report(trainer, validation, train, parts), number, _name_sources(validation, train)
            ),
        )

    def _tables(self, trainer: Any, samples: ReferenceSamples | None) -> list[FeatureTable]:
        """Every rank's share of a table, on rank 0; nothing on the others, or without samples."""
        if samples is None:
            return []
        share = run_on_all_ranks(trainer, partial(self._share, trainer, samples))
        if self._widen_task(trainer, "" if share is None else share.task):
            share = run_on_all_ranks(trainer, partial(self._share, trainer, samples))
        return gather_tables(trainer, share)

    def _widen_task(self, trainer: Any, told: str) -> bool:
        """Remember the task that all samples seen so far may be of; whether any rank's share is not read as such."""
        if self.options.task != "auto":
            return False
        shares = [task for task in gather_texts(trainer, told) if task]
        self._task = reduce(widen_task, shares, self._task or shares[0]) if shares else self._task
        return any(task != self._task for task in shares)

    def _share(self, trainer: Any, samples: ReferenceSamples) -> FeatureTable | None:
        """This rank's share of a table; None where it has no sample."""
        indices = own_share(trainer, samples.indices)
        if not len(indices):
            return None
        if self._task and self.options.task == "auto":
            samples = replace(samples, extraction=replace(samples.extraction, task=self._task))
        with show_progress(trainer, samples, len(indices)) as shown:
            table = self.capture.table(shown, indices)
        return with_metadata(table, samples.loader, self._known_metadata.get(samples.split), samples.split)

    @cached_property
    def _known_metadata(self) -> dict[str, pd.DataFrame]:
        """The user's metadata by split; a file is read once, not for every table of every analysis."""
        return read_metadata(self.options.metadata)

    def _report(
        self,
        trainer: Any,
        validation: ReferenceSamples,
        train: ReferenceSamples | None,
        parts: Mapping[str, list[FeatureTable]],
    ) -> FeatureReport:
        tables = {split: FeatureTable.concatenate(found) for split, found in parts.items() if found}
        augmented_train = tables.pop("augmented", None)
        augmented = train is not None and train.extraction.is_augmented(train.loader, train.indices)
        if augmented:
            self.notices.say(AUGMENTED)
        return examine(
            tables,
            {each.split: (each.extraction, each.loader) for each in (validation, train) if each is not None},
            self.options,
            regions=self._known_regions(trainer, validation),
            pixels=self.training.log_images,
            scale=self._baseline_scale(trainer),
            augmented=augmented,
            augmented_train=augmented_train,
        )

    def _baseline_scale(self, trainer: Any) -> IntensityScale | None:
        """The intensity scale of the earlier run that the user named, if any."""
        baseline = self.training.baseline_run_id
        if baseline and self._scale is None:
            here = self.run_logger.run(trainer)
            self._scale = baseline_scale(baseline, here.tracking_uri if here else self.training.tracking_uri)
        return self._scale

    def _known_regions(self, trainer: Any, samples: ReferenceSamples) -> Regions | None:
        """Where the evidence should lie; the user's own regions are those of the first validation loader."""
        dataset, regions = self._regions.get(samples.number, (None, None))
        if dataset is not samples.loader.dataset:
            given = self.options.regions if samples.number == 0 else None
            regions = find_regions(given, "validation", samples.loader.dataset, access.stop_at_signal(trainer))
            self._regions[samples.number] = samples.loader.dataset, regions
        return regions

    def _keep(self, trainer: Any, report: FeatureReport, number: int, sources: Mapping[str, str]) -> dict[str, float]:
        """Keep a report until it is sent; give its metrics as they are logged."""
        if number == 0:
            report = self.report = self._with_trend(trainer, report)
            self.run_logger.place = self._own_place(trainer, report.tables["validation"].layer)
        else:
            self._others[f"dataloader_{number}"] = headline(report)
        for text in report.warnings:
            self.notices.warn(text)
        moment = self.checkpoint or access.moment(trainer)
        return self.run_logger.put(report, moment, number, sources)

    def _with_trend(self, trainer: Any, report: FeatureReport) -> FeatureReport:
        if access.is_fitting(trainer):
            self.trend = registry.extend_trend(self.trend, trainer.current_epoch, report.findings)
        return replace(report, trend=self.trend)

    def _own_place(self, trainer: Any, layer: str) -> str:
        """Nothing for the first session of a trainer; the layer's name for further ones."""
        before = list(takewhile(lambda other: other is not self, sessions(trainer)))
        taken = {other.run_logger.place for other in before}
        return "" if not before else slug(f"{layer}-{self.options.cam}") if slug(layer) in taken else slug(layer)


def _name_sources(*samples: ReferenceSamples | None) -> dict[str, str]:
    return {each.split: name_source(each.loader.dataset) for each in samples if each is not None}


def _trend_rows(trend: Mapping[str, Sequence[TrendPoint]]) -> list[list[Any]]:
    """Give the trend as plain values, one row an analysis: its epoch, and family to score and z."""
    rows: dict[tuple[int, int], dict[str, list[float]]] = {}
    for family, points in trend.items():
        for number, (epoch, score, z) in enumerate(points):
            earlier = sum(point.epoch == epoch for point in points[:number])
            rows.setdefault((epoch, earlier), {})[family] = [score, z]
    return [[epoch, found] for (epoch, _), found in sorted(rows.items())]


def sessions(trainer: Any) -> list[Session]:
    """The sessions of a trainer's callbacks, in the user's order, without those that leave the work to others."""
    ours = [each for each in trainer.callbacks if isinstance(getattr(each, "__dict__", {}).get("_session"), Session)]
    found: list[Session] = [each.session for each in ours]
    return [each for each in found if not each.is_fallback] or found
