"""What leaves the process: reports to the run in the background, their record into checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.tracking.checkpoint import Moment, Record, record
from lightning_ifa.tracking.logged_models import Example
from lightning_ifa.tracking.names import metrics_at
from lightning_ifa.tracking.publisher import Publisher
from lightning_ifa.tracking.run import Run, find_run, other_active_run
from lightning_ifa.training import trainer as access
from lightning_ifa.training.announcement import announce, tell_where


class RunLogger:
    """Finds the run, hands reports to the publisher of their place in it, and remembers both.

    Args:
        run_id: The run that the user names, or None.
        tracking_uri: The store that the user names, or None.
        view: Whether to save a view in the run's experiment, once.
        warn: A function that warns the user once of a text.

    Attributes:
        logged_to: The run that was last logged to, also by the training that this one resumes.
        place: Where in the run: nothing, or the layer's name for a further instance in one trainer.
    """

    def __init__(self, run_id: str | None, tracking_uri: str | None, view: bool, warn: Callable[[str], None]) -> None:
        self._run_id, self._tracking_uri, self._view, self._warn = run_id, tracking_uri, view, warn
        self.logged_to: str | None = None
        self.place = ""
        self._waiting: dict[str, tuple[FeatureReport, Moment]] = {}
        self._latest: tuple[FeatureReport, Moment] | None = None
        self._publishers: dict[str, Publisher] = {}
        self._began = time.monotonic()
        self._sources: dict[str, str] = {}
        self._found: Run | None = None

    def put(
        self, report: FeatureReport, moment: Moment, number: int, sources: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Keep the report of a validation loader until ``send``; give its metrics as they are logged.

        ``sources`` names what the samples of each split come from.
        """
        self._sources |= sources or {}
        if number == 0:
            self._latest = (report, moment)
        place = "/".join(filter(None, (self.place, f"dataloader_{number}" if number else "")))
        self._waiting[place] = (report, moment)
        return metrics_at(place, report.metrics)

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def send(self, trainer: Any, best: str, extra: Mapping[str, float], doubtful: bool = False) -> None:
        """Hand what waits to the background; the metrics too, where no logger brings them to the run.

        Args:
            trainer: The trainer, of either Lightning package.
            best: The path of the best checkpoint until now; empty where there is none.
            extra: Further metrics of this validation.
            doubtful: Whether it is not known if a logger brought the metrics to the run.
        """
        waiting, self._waiting = self._waiting, {}
        for place, (report, moment) in waiting.items():
            publisher = self._publisher(trainer, place)
            metrics = metrics_at(place, report.metrics) | (dict(extra) if place == self.place else {})
            known = not doubtful and self._is_logged(trainer)
            publisher.put(report, moment, best, {} if known else metrics, doubtful, self._sources)

    def send_models(self, trainer: Any, network: Any, checkpoints: Sequence[Path], example: Example | None) -> None:
        """Hand checkpoints to the background, each to become a model of the run.

        Args:
            trainer: The trainer.
            network: A module of the checkpoints' architecture, on the CPU, which nobody else uses.
            checkpoints: Paths of the checkpoints, the best one first.
            example: An input and its output, for the signature.
        """
        if self.run(trainer) is None:
            self._warn("log_models asks for models of an MLflow run, but there is none")
        elif self.place in self._publishers:
            self._publishers[self.place].put_models(network, checkpoints, example)

    def record(self) -> Record | None:
        """The record of the latest analysis, or None."""
        if self._latest is None:
            return None
        found = record(self._latest[0], self._latest[1].step, self.logged_to)
        return replace(found, metrics=metrics_at(self.place, found.metrics))

    def run(self, trainer: Any) -> Run | None:
        """The run to log to, if there is one."""
        run = find_run(trainer.loggers, self._run_id, self._tracking_uri)
        if run is None:
            return None
        if self.logged_to not in (None, run.run_id):
            self._warn(
                f"these weights were trained in run {self.logged_to}, but run {run.run_id} is logged to; "
                "MLFlowLogger(run_id=...) continues a run"
            )
        other = other_active_run(run)
        if other is not None:
            self._warn(f"the logger writes to run {run.run_id}, but run {other} is active: one training, two runs")
        self.logged_to, self._found = run.run_id, run
        return run

    def announce_latest(self, trainer: Any, others: Mapping[str, str]) -> str:
        """Write for whoever watches the training what the latest analysis found, and where that can be read.

        ``others`` says what was found on further validation loaders.
        """
        if self._latest is None:
            return ""
        is_drive = access.is_fast_dev_run(trainer)
        folder = str(_local_folder(trainer) / self.place)
        where = "nothing is kept of a fast_dev_run" if is_drive else tell_where(self._found, folder)
        return announce(*self._latest, where, others)

    def close(self, timeout: float, best: str) -> list[str]:
        """Finish the uploads, as far as the time allows, in seconds; ``best`` as for ``send``.

        Gives for each place what arrived and what waits where.
        """
        publishers, self._publishers = self._publishers, {}
        deadline = time.monotonic() + timeout  # they work side by side
        told = [publisher.close(max(0.0, deadline - time.monotonic()), best) for publisher in publishers.values()]
        return list(filter(None, told))

    def _is_logged(self, trainer: Any) -> bool:
        return self.logged_to is not None and access.loggers_of(trainer, self.logged_to) > 0

    def _publisher(self, trainer: Any, place: str) -> Publisher:
        if place not in self._publishers:
            run, folder = self.run(trainer), _local_folder(trainer)
            if run is None:
                self._warn(
                    f"no MLflow run was found, so pictures and tables go to {folder}; pass "
                    "logger=MLFlowLogger(tracking_uri=...) to the Trainer, or run_id= to the callback"
                )
            self._publishers[place] = Publisher(run, folder, trainer.loggers, self._view, place, self._began)
        return self._publishers[place]


def _local_folder(trainer: Any) -> Path:
    return Path(trainer.default_root_dir) / "ifa"
