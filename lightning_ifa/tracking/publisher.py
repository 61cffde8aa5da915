"""Publish a training's reports: in its MLflow run, else as another logger's images and in a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lightning_ifa.report.files import OVERVIEW_FILE, SHEET_FILE, write_data, write_pictures, write_sheet
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.image_loggers import Show, image_methods
from lightning_ifa.tracking.job import ARTIFACTS, HELD_FILE
from lightning_ifa.tracking.job_writer import probe_keys, write_job, write_picture_job, write_single_images
from lightning_ifa.tracking.logged_models import Example
from lightning_ifa.tracking.model_writer import AboutWeights, ModelWriter, describe_weights
from lightning_ifa.tracking.names import slug
from lightning_ifa.tracking.run import Run
from lightning_ifa.tracking.saved_view import ViewWish, show_latest
from lightning_ifa.tracking.spool import Spool, release
from lightning_ifa.tracking.time_budget import TimeBudget

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SINGLE_IMAGES_EVERY = 10
"""The first analysis in so many epochs has its probes logged one by one: 16 requests more than a contact sheet.

Counted from epoch 0, not from a run's first analysis, so that runs of different length have such epochs in common.
"""

DRAWING_SHARE = 0.02
"""Share of the other time that drawing the pictures at a run's root may take: they compete with the training."""

DRAWING_SECONDS = 2.0
"""Seconds that drawing them is expected to take, until it has been done once."""


class Publisher:
    """Hands the reports of one training, layer and validation loader to the background threads.

    Each analysis brings its tables and a contact sheet of the probes. The pictures at the run's root, which the next
    analysis replaces, are drawn for the last one, and before it while drawing takes at most 2 % of the time: for the
    first time some two minutes after the start. Without a run they lie in the folder of their analysis. The probes
    one by one, as the saved view shows them, come with the first analysis of every ten epochs; those of the best and
    of the last analysis wait in the spool until the training ends and it is known which these are.

    Args:
        run: The MLflow run, or None.
        folder: Folder for the spool; without a run, for the results.
        loggers: The trainer's loggers; where there is no run, those that take images get the figures.
        view: Whether to save a view in the run's experiment, once, and let it open on pictures that all runs have.
        prefix: Prefix of keys and paths in the run: empty for its main analysis, else the name of a further layer or
            validation loader.
        began: Start of the time that drawing is compared with, by ``time.monotonic``; by default now.
    """

    def __init__(
        self,
        run: Run | None,
        folder: Path,
        loggers: Iterable[Any] = (),
        view: bool = True,
        prefix: str = "",
        began: float | None = None,
    ) -> None:
        self._run, self._prefix = run, prefix
        self._view = view and not prefix
        self._keys: list[str] = []
        self._shown: set[str] = set()  # keys of images that the run has of an earlier analysis
        self._latest_ten = -1
        self._about: dict[str, AboutWeights] = {}
        self._inputs: set[str] = set()  # digests of the data sets that are inputs of the run
        if run is None:
            self._spool = Spool(folder / prefix)
        else:
            spool = f"{run.run_id}-{slug(prefix)}" if prefix else run.run_id
            place, is_absent = (run.spool or folder) / spool, run.start is not None
            self._spool = Spool(place, run.tracking_uri, self._refresh_view, run.is_offline, is_absent)
        self._shows: list[Show] = [] if run is not None else image_methods(loggers)
        self._drawn: list[tuple[Path, int]] = []  # figures on their way to the loggers, and their steps
        self._best, self._best_name, self._last_name = "", "", ""
        self._drawing = TimeBudget(DRAWING_SHARE, time.monotonic, DRAWING_SECONDS, began)
        self._undrawn: tuple[AnalysisResult, Moment] | None = None

    def put(
        self,
        report: AnalysisResult,
        moment: Moment,
        best: str = "",
        metrics: Mapping[str, float] | None = None,
        doubtful: bool = False,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Hand over a report; returns at once.

        Args:
            report: The report.
            moment: Epoch and step of the analysis.
            best: Path of the best checkpoint before this analysis; empty where there is none.
            metrics: The metrics that no logger brings to the run, by their keys there.
            doubtful: Whether it is not known if the run has them already.
            sources: Split to what its samples come from.
        """
        name = f"{slug(report.tables['validation'].layer)}-{moment.step:08d}"
        if self._run is None:
            self._show_drawn()
            self._last_name = name
            self._spool.put(name, partial(self._write_locally, report, moment))
            return
        self._note_best(best)
        is_first = not self._keys
        self._keys = self._keys or probe_keys(report, self._prefix)
        ten = moment.epoch // SINGLE_IMAGES_EVERY
        single_images, self._latest_ten = ten > self._latest_ten, max(ten, self._latest_ten)
        what: dict[str, Any] = {"single_images": single_images, "metrics": dict(metrics or {}), "doubtful": doubtful}
        if is_first and self._view:
            what["view"] = ViewWish(self._keys, moment.epoch)
        if digests := {table.digest for table in report.tables.values()} - self._inputs:
            self._inputs |= digests
            what["sources"] = dict(sources or {})
        self._spool.put(name, partial(self._write, report, moment, what))
        self._last_name = "" if single_images else f"{name}-probes"
        if not single_images:
            keep = {self._best_name, self._last_name}
            self._spool.put(self._last_name, partial(self._hold_back, report, moment, keep=keep))

    def put_models(self, network: nn.Module, checkpoints: Sequence[Path], example: Example | None) -> None:
        """Hand over checkpoints that are to become models of the run, the best one first; returns at once.

        Args:
            network: A module of the checkpoints' architecture, on the CPU, which nobody else uses.
            checkpoints: Paths of the checkpoints.
            example: An input and its output, for the signature.
        """
        if self._run is not None:
            writer = ModelWriter(self._run, network, example, self._about)
            for number, path in enumerate(checkpoints):
                self._spool.put(f"model-{time.time_ns()}-{number}", partial(writer.write, path, is_best=number == 0))

    def close(self, timeout: float, best: str = "") -> str:
        """Finish what waits, as far as the time allows, and say what arrived and what waits where.

        Args:
            timeout: Seconds to wait at most.
            best: Path of the best checkpoint.
        """
        self._note_best(best)
        name = self._last_name if self._run is None else "pictures"
        if name:
            self._spool.put(name, self._draw_last)
        told = self._spool.close(timeout, {self._best_name, self._last_name} - {""})
        self._show_drawn()
        return told

    def _note_best(self, best: str) -> None:
        """A best checkpoint that was not there at the latest analysis holds that analysis' weights."""
        if best != self._best:
            self._best, self._best_name = best, self._last_name

    def _write(self, report: AnalysisResult, moment: Moment, what: dict[str, Any], folder: Path) -> None:
        """Write an analysis, with pictures if there is time for them; runs in the rendering thread."""
        assert self._run is not None
        draws = self._allow_drawing(report, moment)
        with self._drawing.spending() if draws else nullcontext():
            self._shown |= write_job(
                report, folder, self._run, moment, prefix=self._prefix, pictures=draws, shown=self._shown, **what
            )
        self._about[report.weights] = describe_weights(report, folder / ARTIFACTS)

    def _allow_drawing(self, report: AnalysisResult, moment: Moment) -> bool:
        """Whether there is time for a report's pictures; if not, it alone is kept, to be drawn at the end."""
        draws = self._drawing.allows()
        self._undrawn = None if draws else (report, moment)
        return draws

    def _draw_last(self, folder: Path) -> None:
        """Draw the last analysis, if it was not; runs in the rendering thread, after all else."""
        if self._undrawn is None:
            if self._run is not None:
                folder.rmdir()
        elif self._run is None:
            self._draw_locally(*self._undrawn, folder)
        else:
            report, moment = self._undrawn
            write_picture_job(report, folder, self._run, moment, prefix=self._prefix)

    def _hold_back(self, report: AnalysisResult, moment: Moment, folder: Path, keep: set[str]) -> None:
        assert self._run is not None
        write_single_images(report, folder, self._run, moment, prefix=self._prefix, name=HELD_FILE)
        for other in folder.parent.glob(f"*/{HELD_FILE}"):
            if other.parent.name not in keep:
                release(other.parent, ())

    def _write_locally(self, report: AnalysisResult, moment: Moment, folder: Path) -> None:
        """Write an analysis where there is no run; runs in the rendering thread."""
        draws = self._allow_drawing(report, moment)
        write_data(report, folder, moment.epoch)
        write_sheet(report, folder)
        self._drawn.append((folder / SHEET_FILE, moment.step))
        if draws:
            with self._drawing.spending():
                self._draw_locally(report, moment, folder)

    def _draw_locally(self, report: AnalysisResult, moment: Moment, folder: Path) -> None:
        write_pictures(report, folder, moment.epoch)
        self._drawn.append((folder / OVERVIEW_FILE, moment.step))

    def _show_drawn(self) -> None:
        """Hand what is drawn to the loggers, from the thread that they are used to."""
        while self._drawn:
            file, step = self._drawn.pop(0)
            if not self._shows or not file.exists():
                continue
            try:
                with Image.open(file) as image:
                    for show in self._shows:
                        show(f"ifa/{file.stem.removeprefix('ifa_')}", image.convert("RGB"), step)
            except Exception:  # whatever a logger throws: the picture lies in the folder
                log.warning("a logger did not take %s", file, exc_info=True)

    def _refresh_view(self, run_id: str) -> None:
        if self._view and self._run is not None and self._keys:
            show_latest(self._run.tracking_uri, run_id)
