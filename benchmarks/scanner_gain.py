"""Segmentation of real MRI: does a scanner's gain that goes with the object's size raise the alarm, and only that?

python -m benchmarks.scanner_gain --root FOLDER --networks 20      # goes on where it was cut; --table: only print
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Dataset

from benchmarks.real.data import read_masks, read_set
from lightning_ifa import IntegratedFeatureAnalysis
from lightning_ifa.indicators.registry import families

SIZE, GAIN, EPOCHS, BATCH, VALIDATION = (24, 32, 24), 1.6, 10, 8, 0.4
SPREAD = 0.08
"""Standard deviation of each volume's own gain, planted or not."""


class Volumes(Dataset):
    """Volumes, masks of the whole hippocampus, and which of two scanners is said to have made each."""

    def __init__(self, x: Tensor, y: Tensor, scanner: np.ndarray) -> None:
        self.x, self.y, self.metadata = x, y, pd.DataFrame({"scanner": np.where(scanner, "B", "A")})

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


class Segmenter(pl.LightningModule):
    """A U-Net of two levels, or MONAI's; cross-entropy, and Dice at validation."""

    def __init__(self, monai: bool) -> None:
        super().__init__()
        self.net = monai_unet() if monai else UNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        found = self(batch[0]).argmax(1)
        both = (found * batch[1]).flatten(1).sum(1)
        dice = 2 * both / (found.flatten(1).sum(1) + batch[1].flatten(1).sum(1)).clamp(min=1)
        self.log("val_dice", dice.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def monai_unet() -> nn.Module:
    """MONAI's U-Net; with batch norm, since its default, instance norm, takes any gain away."""
    from monai.networks.nets import UNet as MonaiUNet

    return MonaiUNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), norm="BATCH", act="RELU")


class UNet(nn.Module):
    """Two levels, batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = _block(1, 8), _block(8, 16), _block(24, 8)
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.down(x)
        deep = interpolate(self.deep(nn.functional.max_pool3d(shallow, 2)), scale_factor=2)
        return self.head(self.up(torch.cat([shallow, deep], 1)))


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm3d(n_out), nn.ReLU())


def make_parts(root: Path, seed: int, planted: bool) -> tuple[Volumes, Volumes]:
    """Draw a split; planted: scanner B, whose gain is higher, made nine in ten of the larger objects."""
    images = torch.as_tensor(read_set(root, "hippocampus_mri_3d").images).float()[:, None] / 255
    masks = torch.as_tensor(read_masks(root, "hippocampus_mri_3d") > 0).float()[:, None]
    x = interpolate(images, size=SIZE, mode="trilinear")
    y = (interpolate(masks, size=SIZE, mode="trilinear")[:, 0] > 0.5).long()
    rng = np.random.default_rng(seed)
    size = y.flatten(1).sum(1).numpy()
    larger = size > np.median(size)
    scanner = np.where(rng.random(len(x)) < 0.9, larger, ~larger) if planted else rng.random(len(x)) < 0.5
    gain = np.exp(SPREAD * rng.standard_normal(len(x))) * np.where(scanner & planted, GAIN, 1)
    x = x * torch.as_tensor(gain, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    order = rng.permutation(len(x))
    cut = round(VALIDATION * len(x))
    return tuple(Volumes(x[rows], y[rows], scanner[rows]) for rows in (order[cut:], order[:cut]))  # type: ignore[return-value]


def judge(root: Path, seed: int, planted: bool, monai: bool = False) -> dict[str, object]:
    """Train a network and give what the callback says of it."""
    pl.seed_everything(seed, verbose=False)
    train, validation = make_parts(root, seed, planted)
    analysis = IntegratedFeatureAnalysis(task="segmentation", install_view=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=EPOCHS, check_val_every_n_epoch=EPOCHS, callbacks=[analysis], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        module = Segmenter(monai)
        trainer.fit(module, DataLoader(train, BATCH, shuffle=True), DataLoader(validation, BATCH))
    report = analysis.report
    assert report is not None
    scanner = report.confounders.set_index("source").loc["scanner"]
    return {
        "seed": seed, "planted": planted, "monai": monai, "dice": float(trainer.callback_metrics["val_dice"]),
        "alarms": report.alarms, "decided": [n for n, found in report.findings.items() if not found.undecided],
        "score": float(scanner["score"]), "z": float(scanner["z"]),
    }  # fmt: skip


def table(rows: list[dict[str, object]]) -> str:
    """Count alarms."""
    lines = ["| networks | count | Dice | confounding alarms | of the scanner: score, z | families decided |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for planted in (True, False):
        part = [row for row in rows if row["planted"] == planted]
        if not part:
            continue
        dice, score, z = (np.mean([row[name] for row in part]) for name in ("dice", "score", "z"))
        alarms = sum("confounding" in row["alarms"] for row in part)  # type: ignore[operator]
        least = min(len(row["decided"]) for row in part)  # type: ignore[arg-type]
        name = "gain goes with the size" if planted else "sound"
        shown = f"{alarms} of {len(part)} | {score:.3f}, {z:.1f} | {least} or more of {len(families())}"
        lines.append(f"| {name} | {len(part)} | {dice:.3f} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Judge what has not been judged, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--networks", type=int, default=20, help="of each kind")
    parser.add_argument("--file", type=Path, default=Path(tempfile.gettempdir()) / "ifa-scanner-gain.jsonl")
    parser.add_argument("--monai", action="store_true", help="MONAI's U-Net instead of a plain one")
    parser.add_argument("--table", action="store_true", help="only print what has been judged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rows = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    for seed in range(0 if not options.table else options.networks, options.networks):
        for planted in (True, False):
            if not any((r["seed"], r["planted"], r["monai"]) == (seed, planted, options.monai) for r in rows):
                rows.append(judge(options.root, seed, planted, options.monai))
                print(json.dumps(rows[-1]), flush=True)
                with options.file.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table([row for row in rows if row["monai"] == options.monai]))


if __name__ == "__main__":
    main()
