"""Compare MLflow runs: fetch the FeatureTables that they archived, and log the comparison."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lightning_ifa.comparison.compare import Comparison, compare_tables
from lightning_ifa.comparison.rendering import comparison_html, comparison_png
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError, FileError, TrackingError
from lightning_ifa.indicators import registry
from lightning_ifa.statistics.significance import UNDECIDED
from lightning_ifa.tracking.job import ARTIFACTS, Job, upload

EPOCH = re.compile(r"ifa/epoch_(\d+)")
CHANGES_FILE, PICTURE_FILE, PAGE_FILE = "ifa_compare.json", "ifa_compare.png", "ifa_compare.html"


def compare(
    *runs: str, tracking_uri: str | None = None, force: bool = False, log_to: str | None = None, seed: int = 0
) -> Comparison:
    """Compare the latest analyses of MLflow runs: each run with the first one.

    Everything is computed anew from the FeatureTables that the runs archived, on the same samples.

    Args:
        runs: Ids of two runs or more.
        tracking_uri: Address of the MLflow store; by default MLflow's own.
        force: Whether to compare runs on different validation data, features and maps by the samples that they share.
        log_to: Id of a run that receives table, figure and page.
        seed: Seed of the resampling.

    Returns:
        The comparison; ``.changes`` says per family whether a difference is more than noise.

    Raises:
        DataError: There are fewer than two different runs, or their validation data differ and ``force`` is not set.
        TrackingError: A run is unknown, holds no FeatureTables, or the server was not reached.
    """
    if len(runs) < 2:
        raise DataError(f"{len(runs)} run to compare; at least two different ones are needed")
    if len(set(runs)) < len(runs):
        raise DataError("a run is named twice; its comparison with itself says nothing")
    client = MlflowClient(tracking_uri)
    try:
        tables, undecided = {}, {}
        for run_id in runs:
            run = client.get_run(run_id)
            name = f"{run.info.run_name or 'run'} ({run_id[:8]})"  # runs of one name stay apart
            tables[name] = load_archived_tables(client, run_id)
            health = {family: run.data.metrics.get(f"ifa/health/{family}") for family in registry.families()}
            undecided[name] = [family for family, value in health.items() if value == UNDECIDED]
        found = compare_tables(tables, undecided, force=force, seed=seed)
        if log_to:
            log_comparison(found, client, log_to)
    except MlflowException as error:
        known = "; runs are named by their ids, and --tracking-uri (tracking_uri=) names another store"
        raise TrackingError(f"{error}{known if 'not found' in str(error) else ''}") from error
    return found


def load_archived_tables(client: MlflowClient, run_id: str) -> dict[str, FeatureTable]:
    """Load the FeatureTables of the latest epoch that a run archived.

    Raises:
        TrackingError: The run has none, or they cannot be read.
    """
    epochs = [file.path for file in client.list_artifacts(run_id, "ifa") if EPOCH.fullmatch(file.path)]
    if not epochs:
        raise TrackingError(f"run {run_id} archived no FeatureTables; was it analysed by lightning_ifa?")
    latest = max(epochs, key=lambda path: int(path.rpartition("_")[2]))
    archived = {file.path for file in client.list_artifacts(run_id, latest)}
    paths = {split: f"{latest}/{split}.npz" for split in ("train", "validation")}
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {
                split: FeatureTable.load(client.download_artifacts(run_id, path, folder))
                for split, path in paths.items()
                if path in archived
            }
        except (FileError, OSError) as error:
            raise TrackingError(f"run {run_id}: {error}") from error


def log_comparison(comparison: Comparison, client: MlflowClient, run_id: str) -> None:
    """Log a comparison as a table, a figure and a page at the root of a run, in place of an earlier one."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "job"
        files = folder / ARTIFACTS
        files.mkdir(parents=True)
        picture = comparison_png(comparison)
        comparison.changes.to_json(files / CHANGES_FILE, orient="split", index=False)
        (files / PICTURE_FILE).write_bytes(picture)
        (files / PAGE_FILE).write_text(comparison_html(comparison, picture), encoding="utf-8")
        Job(run_id, client.tracking_uri, tables=[CHANGES_FILE]).save(folder)
        upload(folder, client.tracking_uri)
