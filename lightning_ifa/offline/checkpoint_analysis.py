"""Analyse a checkpoint after the training: by its LightningCLI configuration, or by functions that make its parts."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.errors import ConfigError, DataError
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.tracking.checkpoint import load_weights, read_checkpoint

if TYPE_CHECKING:
    from lightning_ifa.analysis import Source

ALONE = [f"--trainer.{x}" for x in ("logger=false", "devices=1", "num_nodes=1", "strategy=auto")]
"""Overrides for an analysis of one process that logs nowhere."""

QUIET = [f"--trainer.{x}" for x in ("enable_progress_bar=false", "enable_model_summary=false")]


class Analysed(NamedTuple):
    """A checkpoint's report, and what it was made from.

    Attributes:
        report: The report.
        sources: Split to how its features were taken, and from which loader.
        metadata: Split to what the user knows of its samples, by data-set index.
    """

    report: FeatureReport
    sources: dict[str, Source]
    metadata: dict[str, pd.DataFrame]


def analyze_config(checkpoint: str | os.PathLike[str], arguments: Sequence[str]) -> Analysed:
    """Validate a checkpoint with the callback of its configuration, which takes the very way of the training.

    Args:
        checkpoint: A checkpoint of Lightning, or a state dict.
        arguments: The arguments of LightningCLI: ``--config=FILE`` and overrides.

    Returns:
        What the configuration's first ``IntegratedFeatureAnalysis``, or one with defaults, made.

    Raises:
        ConfigError: The configuration is wrong, or has no such callback and no validation.
        FileError: The checkpoint cannot be read, or does not fit the model.
        IFAError: The analysis is not possible.
    """
    from lightning_ifa.offline.offline_session import prepare_offline
    from lightning_ifa.training.lightning_cli import train
    from lightning_ifa.training.session import Session

    content = read_checkpoint(checkpoint)
    arguments = [*arguments, *ALONE, *QUIET]
    if "pytorch-lightning_version" in content:  # so that callbacks, as averaged weights, get their state as well
        arguments.append(f"--ckpt_path={os.fspath(checkpoint)}")
    found: list[Session] = []

    def prepare(cli: Any) -> None:
        load_weights(cli.model, content, checkpoint)
        found.append(prepare_offline(cli))

    train("validate", ["--verbose=false", *arguments], prepare)
    session = found[0]
    if session.report is None:
        raise ConfigError("the configuration's validation was not analysed; is limit_val_batches 0?")
    return Analysed(session.report, session.sources, read_metadata(session.options.metadata))


def analyze_factories(
    checkpoint: str | os.PathLike[str],
    model: str,
    data: str,
    forward_fn: str | None = None,
    batch_fn: str | None = None,
    nifti: bool = False,
) -> Analysed:
    """Analyse a checkpoint with a module and loaders from functions; Lightning is not needed.

    Args:
        checkpoint: A checkpoint of Lightning, or a state dict.
        model: ``MODULE:NAME`` of a torch module, or of a class or function that makes one without arguments.
        data: ``MODULE:NAME`` as for ``reanalysis.load_data``.
        forward_fn: ``MODULE:NAME`` of a function ``(model, batch) -> output``, as for ``analyze``.
        batch_fn: ``MODULE:NAME`` of a function ``batch -> (x, y)``, as for ``analyze``.
        nifti: Whether maps of volumes can be written over their images, as for ``analyze``.

    Raises:
        DataError: Model or loaders cannot be had.
        FileError: The checkpoint cannot be read, or does not fit the model.
        IFAError: The analysis is not possible.
    """
    from lightning_ifa.analysis import extractor_of
    from lightning_ifa.data.single_samples import split_batches
    from lightning_ifa.offline.reanalysis import analyze_loaded, load_data, preparation_of
    from lightning_ifa.options import AnalysisOptions

    content = read_checkpoint(checkpoint)
    module = load_module(model)
    load_weights(module, content, checkpoint)
    ways, loaders = load_ways(forward_fn, batch_fn), load_data(data)
    report = analyze_loaded(module.eval(), loaders, nifti=nifti, **ways)
    table = report.tables["validation"]
    options = AnalysisOptions(layer=table.layer, task=table.task, **ways)
    extraction = extractor_of(module, options, prepare=preparation_of(module, loaders.module))
    present = {"train": loaders.train, "validation": loaders.validation}
    sources = {
        split: (extraction, split_batches(loader, ways.get("batch_fn")))
        for split, loader in present.items()
        if loader is not None
    }
    return Analysed(report, sources, {})


def load_module(model: str) -> Any:
    """Import a torch module, or make it by the class or function that is imported.

    Args:
        model: ``MODULE:NAME``.

    Raises:
        DataError: There is no such name, or it gives no torch module.
    """
    from torch import nn

    from lightning_ifa.offline.reanalysis import load_object

    module = load_object(model, "--model")
    module = module if isinstance(module, nn.Module) or not callable(module) else module()
    if not isinstance(module, nn.Module):
        raise DataError(f"--model {model} gives {type(module).__name__}; expected a torch module")
    return module


def load_ways(forward_fn: str | None, batch_fn: str | None) -> dict[str, Any]:
    """Import the functions that call the network and read its batches, each given as ``MODULE:NAME`` or None.

    Raises:
        DataError: There is no such name.
    """
    from lightning_ifa.offline.reanalysis import load_object

    given = {"forward_fn": (forward_fn, "--forward-fn"), "batch_fn": (batch_fn, "--batch-fn")}
    return {name: load_object(spec, option) for name, (spec, option) in given.items() if spec}


def save(report: FeatureReport, folder: Path) -> None:
    """Write the report, as ``FeatureReport.load`` reads it, with page, summary and the samples to look at first."""
    from lightning_ifa.report.files import PAGE_FILE, REVIEW_FILE, SUMMARY_FILE
    from lightning_ifa.report.markdown import summary
    from lightning_ifa.report.nifti import NIFTI_FOLDER

    report.save(folder)
    report.to_html(folder / PAGE_FILE)
    report.samples_to_review().to_csv(folder / REVIEW_FILE, index=False)
    (folder / SUMMARY_FILE).write_text(summary(report), encoding="utf-8")
    if report.probes.grids is not None:
        report.to_nifti(folder / NIFTI_FOLDER)


def log(report: FeatureReport, checkpoint: str | os.PathLike[str], run_id: str, tracking_uri: str | None) -> None:
    """Log metrics, pictures and tables to an MLflow run, at the checkpoint's epoch and step.

    Raises:
        FileError: The checkpoint cannot be read.
        MlflowException: The run is unknown, or the server was not reached.
    """
    import mlflow
    from mlflow.entities import Metric

    from lightning_ifa.tracking.checkpoint import Moment, moment_of
    from lightning_ifa.tracking.job import upload
    from lightning_ifa.tracking.job_writer import write_job
    from lightning_ifa.tracking.run import Run

    moment = moment_of(read_checkpoint(checkpoint)) or Moment(0, 0)
    run = Run(run_id, tracking_uri or mlflow.get_tracking_uri())
    now = int(time.time() * 1000)
    run.client().log_batch(run_id, [Metric(key, value, now, moment.step) for key, value in report.metrics.items()])
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        job.mkdir()
        write_job(report, job, run, moment)
        upload(job, run.tracking_uri)
