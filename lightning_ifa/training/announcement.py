"""Three lines for whoever watches a training: what was analysed, what was found, where to look."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ifa.report.markdown import headline
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.text import join_words, keep_legal_xml, shorten
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.names import is_server, without_secret
from lightning_ifa.tracking.offline_store import id_in_store
from lightning_ifa.tracking.run import Run

LONGEST = 240
"""Characters of what is said about one alarm."""


def announce(report: AnalysisResult, moment: Moment, where: str, others: Mapping[str, str]) -> str:
    """Write the lines about one analysis, with one more for each alarm and each further validation loader.

    Args:
        report: The report.
        moment: When the weights were trained.
        where: Where to look, as ``tell_where`` says it.
        others: Name of a further validation loader to what was found there.
    """
    table = report.tables["validation"]
    samples = join_words([f"{len(rows):,} {split}" for split, rows in report.tables.items()])
    lines = [
        f"Feature analysis after epoch {moment.epoch} (step {moment.step}): {samples} samples at layer "
        f'"{shorten(table.layer, 60)}", {table.contributions.shape[1]} channels',
        f"  found:  {headline(report)}",
        *(f"          {family}: {shorten(report.explain(family).found, LONGEST)}" for family in report.alarms),
        *(f"          {name}: {found}" for name, found in others.items()),
        f"  see:    {where}",
    ]
    return "\n".join(map(keep_legal_xml, lines))


def tell_where(run: Run | None, folder: str) -> str:
    """Say where the report can be read: the run's page, how to open it, or a folder.

    Args:
        run: The MLflow run, or None.
        folder: Where the files lie without a run.

    >>> tell_where(Run("4ab1", "https://me:secret@mlflow.example.org/"), "ifa")
    'https://mlflow.example.org/#/runs/4ab1'
    >>> tell_where(Run("4ab1", "sqlite:///mlflow.db"), "ifa")
    'run 4ab1; `mlflow ui --backend-store-uri sqlite:///mlflow.db`, then http://127.0.0.1:5000/#/runs/4ab1'
    """
    if run is None:
        return f"the newest folder in {folder}"
    if run.is_offline:
        return f"run {run.run_id}, which waits for `lightning-ifa sync {run.spool or folder}`"
    uri, run_id = without_secret(run.tracking_uri), id_in_store(run.tracking_uri, run.run_id)
    if is_server(uri):
        return f"{uri.rstrip('/')}/#/runs/{run_id}"
    if uri.startswith("databricks"):
        return f"run {run_id} of {uri}"
    return f"run {run_id}; `mlflow ui --backend-store-uri {uri}`, then http://127.0.0.1:5000/#/runs/{run_id}"
