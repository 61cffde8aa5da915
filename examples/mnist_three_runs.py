"""Three trainings on real digits, told apart at a glance: a sound one, an overfitted one, a confounded one.

scripts/demo                    # one seed
scripts/demo --seeds 0 1 2      # the same with three seeds, and how far apart the scores lie
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import pandas as pd
import pytorch_lightning as pl
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mnist import Condition, Digits, SmallCNN
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger

from lightning_ifa import FeatureReport, IntegratedFeatureAnalysis, gate
from lightning_ifa.report.figures.cam_overlay import overlay
from lightning_ifa.tracking.saved_view import install_view

EPOCHS: dict[Condition, int] = {"sound": 12, "overfitted": 40, "confounded": 12}
EXPERIMENT = "ifa-mnist"
MODEL = "ifa-mnist"
POLICY = Path(__file__).resolve().parents[1] / "configs" / "gate.yaml"
FAMILIES = ("overfitting", "confounding", "outliers", "redundancy", "consistency")


def train(
    condition: Condition, seed: int, folder: Path, baseline: str | None = None
) -> tuple[FeatureReport, float, str]:
    """Train one network with the callback; give its last report, validation accuracy and run id.

    Args:
        condition: What is wrong with it.
        seed: Of the data split and the weights.
        folder: Holds the MLflow store.
        baseline: The run whose intensity scale the maps are drawn on.
    """
    pl.seed_everything(seed, verbose=False)
    logger = MLFlowLogger(EXPERIMENT, run_name=f"{condition}-{seed}", tracking_uri=tracking_uri(folder))
    analysis = IntegratedFeatureAnalysis(on_error="raise", baseline_run_id=baseline, log_models="best")
    trainer = pl.Trainer(
        max_epochs=EPOCHS[condition],
        check_val_every_n_epoch=4,
        logger=logger,
        callbacks=[analysis, ModelCheckpoint(folder / "checkpoints" / f"{condition}-{seed}")],  # keeps the latest
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SmallCNN(), Digits(condition, seed))
    assert analysis.report is not None
    return analysis.report, float(trainer.callback_metrics["val_accuracy"]), str(logger.run_id)


def tracking_uri(folder: Path) -> str:
    """The embedded MLflow store of the demo."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def judge(name: str, run_id: str, folder: Path) -> str:
    """Register a run's model as the next version of one model, and let the gate decide; what it said, as text."""
    store = tracking_uri(folder)
    mlflow.set_tracking_uri(store)
    experiment = experiment_id(folder)
    (model,) = mlflow.search_logged_models([experiment], f"source_run_id = '{run_id}'", output_format="list")
    version = mlflow.register_model(model.model_uri, MODEL)
    uri = f"models:/{MODEL}/{version.version}"
    verdict = gate.gate(uri, POLICY, promote="champion", tracking_uri=store)
    decision = "promoted to champion" if verdict.passed else "refused"
    return "\n".join([f"{uri}, {name}: {decision}", *(f"    {c.name}: {c.reason}" for c in verdict.failures)])


def row(report: FeatureReport, accuracy: float) -> dict[str, str]:
    """One run's column of the table: each family's score, alarms marked."""
    cells = {"validation accuracy": f"{accuracy:.3f}"}
    for family in FAMILIES:
        finding = report.findings[family]
        mark = "  ALARM" if finding.alarm else "  cannot be told" if finding.undecided else ""
        cells[f"ifa/{family}/score"] = f"{finding.score:.3f}{mark}"
    return cells


def spread(reports: dict[str, FeatureReport]) -> list[str]:
    """Say how far the faulty runs' scores stand above the sound runs' over the seeds."""
    lines = []
    for condition, family in (("overfitted", "overfitting"), ("confounded", "confounding")):
        key = f"ifa/{family}/score"
        faulty = [r.metrics[key] for name, r in reports.items() if name.startswith(condition)]
        sound = [r.metrics[key] for name, r in reports.items() if name.startswith("sound")]
        lines.append(
            f"{key}: {condition} {min(faulty):.3f} to {max(faulty):.3f}, sound {min(sound):.3f} to {max(sound):.3f}"
        )
    alarms = sum(len(r.alarms) for name, r in reports.items() if name.startswith("sound"))
    return [*lines, f"alarms in sound runs: {alarms}"]


def picture(reports: dict[str, FeatureReport], path: Path) -> None:
    """Draw the same digits in every run, all maps on the scale of the sound run."""
    count = len(next(iter(reports.values())).probes.table)
    figure = Figure(figsize=(1.35 * count + 1.9, 1.5 * len(reports) + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    grid = figure.subplots(len(reports), count, squeeze=False)
    for axes_row, (name, report) in zip(grid, reports.items(), strict=True):
        found = ", ".join(report.alarms) or "no alarm"
        axes_row[0].set_ylabel(f"{name}\n{found}", fontsize=10, rotation=0, ha="right", va="center")
        for column, axes in enumerate(axes_row):
            table = report.probes.table
            axes.imshow(overlay(report, column, table.cams[column]))
            axes.set_title(f"{table.targets[column]}: {table.intensity[column]:.1f}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    scale = next(iter(reports.values())).scale
    bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), "inferno"), ax=grid, fraction=0.02)
    bar.set_label("evidence a position, in logits", fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Train, compare, and say where to look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pytorch_lightning", "lightning.pytorch", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    torch.set_num_threads(max(1, (os.cpu_count() or 2)))
    experiment = experiment_id(folder)
    columns: dict[str, dict[str, str]] = {}
    reports: dict[str, FeatureReport] = {}
    run_ids: dict[str, str] = {}
    baseline: str | None = None
    runs = [(condition, seed) for seed in options.seeds for condition in EPOCHS]
    for number, (condition, seed) in enumerate(runs, start=1):
        name, began = f"{condition}-{seed}", time.perf_counter()
        print(f"[{number}/{len(runs)}] training {name}: {EPOCHS[condition]} epochs ...", end=" ", flush=True)
        reports[name], accuracy, run_id = train(condition, seed, folder, baseline)
        baseline, run_ids[name] = baseline or run_id, run_id
        columns[name] = row(reports[name], accuracy)
        print(f"{time.perf_counter() - began:.0f} s")
    print("\n" + pd.DataFrame(columns).to_string() + "\n")
    print("\n".join(spread(reports)) + "\n")
    first = {name: report for name, report in reports.items() if name.endswith(f"-{options.seeds[0]}")}
    picture(first, folder / "three_runs.png")
    print(f"The same digits in {', '.join(first)}: {folder / 'three_runs.png'}\n")
    print("The gate, by configs/gate.yaml:\n")
    for name in reports:
        print(judge(name, run_ids[name], folder))
    print()
    print("Compare the runs, here or in MLflow:\n")
    print(f"    .venv/bin/lightning-ifa compare {' '.join(run_ids.values())} --tracking-uri {tracking_uri(folder)}\n")
    print(f"    .venv/bin/mlflow server --backend-store-uri {tracking_uri(folder)} --port 5000\n")
    print(f"    http://127.0.0.1:5000/{install_view(mlflow.MlflowClient(tracking_uri(folder)), experiment)}")


def experiment_id(folder: Path) -> str:
    """The demo's experiment; its artifacts lie beside the data base, wherever the demo is started from."""
    client = mlflow.MlflowClient(tracking_uri(folder))
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri()))


if __name__ == "__main__":
    main()
