"""The rows of the table, trained by their configurations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa import FeatureReport, IntegratedFeatureAnalysis
from lightning_ifa.training.lightning_cli import train

CONFIGS = Path(__file__).parents[3] / "configs" / "paper"
FOLDERS = {"esmira_score": "esmira"}
ROWS = ("mnist", "ilsvrc", "cats_dogs", "rsna", "melanoma", "ultrasound", "luna", "esmira", "esmira_score")
TITLES = {
    "mnist": "MNIST", "ilsvrc": "ILSVRC2012", "cats_dogs": "Cats & Dogs", "rsna": "RSNA pneumonia",
    "melanoma": "SIIM-ISIC melanoma", "ultrasound": "Breast ultrasound", "luna": "LUNA16",
    "esmira": "ESMIRA, class", "esmira_score": "ESMIRA, score", "lite0": "ImageNet weights",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """A row after its training.

    Attributes:
        model: The network.
        loader: Validation loader.
        report: Of the last weights.
        run_id: MLflow run of the training.
        accuracy: On the whole validation split, where it is known.
    """

    model: nn.Module
    loader: DataLoader[Any]
    report: FeatureReport
    run_id: str
    accuracy: float = float("nan")


def train_row(row: str, root: Path, store: str, name: str, *options: str) -> Trained:
    """Run ``lightning-ifa fit`` on a row's configuration.

    Args:
        row: One of ``ROWS``.
        root: Its data.
        store: MLflow tracking URI.
        name: Of the run.
        options: Further command-line options.
    """
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    logger = (f"--trainer.logger.tracking_uri={store}", f"--trainer.logger.run_name={name}")
    cli = train("fit", ["--config", str(CONFIGS / f"{row}.yaml"), f"--data.root={root}", *logger, *quiet, *options])
    analysis = next(c for c in cli.trainer.callbacks if isinstance(c, IntegratedFeatureAnalysis))
    return Trained(cli.model.eval(), cli.datamodule.val_dataloader(), analysis.report, cli.trainer.logger.run_id)
