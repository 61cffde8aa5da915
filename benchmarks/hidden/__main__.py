"""Command line: are planted confounders found without metadata, and are sound networks left alone?"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.hidden.kinds import KINDS, plant
from benchmarks.real.tasks import TASKS, Part
from benchmarks.real.train import BATCH, CHECKPOINTS, Training, build, load_net, load_training
from lightning_ifa import FeatureReport, analyze

STRENGTH = 0.9


class Found(NamedTuple):
    """What the search said of one network: alarm on a hidden variable, its name, reliance, and the column's AUC."""

    alarm: bool
    name: str
    share: float
    auc: float


def search(net: nn.Module, part: Part, truth: np.ndarray | None = None) -> Found:
    """Analyse a network without metadata, and compare the strongest hidden column with the truth within classes."""
    loader = DataLoader(TensorDataset(part.images, part.labels), batch_size=64)
    report = analyze(net, loader, probes=1)
    found = report.confounders[report.confounders["origin"] == "hidden"]
    if found.empty:
        return Found(False, "", 0.0, float("nan"))
    first = found.iloc[0]
    finding = report.findings["confounding"]
    auc = float("nan") if truth is None else _auc(report, str(first["source"]), part.labels.numpy(), truth)
    return Found(finding.alarm and finding.subject == first["source"], str(first["source"]), float(first["score"]), auc)


def _auc(report: FeatureReport, name: str, labels: np.ndarray, truth: np.ndarray) -> float:
    """AUC within classes, weighted by ``n1 n2 / n``; which side is which is not known."""
    column = report.hidden[report.hidden["variable"] == name].set_index("sample_id")["value"]
    values = column.reindex([str(row) for row in range(len(labels))]).to_numpy()
    known, areas, weights = np.isfinite(values), [], []
    for label in np.unique(labels):
        rows = known & (labels == label)
        count = int(truth[rows].sum())
        if 3 <= count <= rows.sum() - 3:
            areas.append(roc_auc_score(truth[rows], values[rows]))
            weights.append(count * (rows.sum() - count) / rows.sum())
    auc = float(np.average(areas, weights=weights)) if areas else float("nan")
    return max(auc, 1 - auc)


def train_planted(training: Training, kind: str, root: Path, folder: Path) -> tuple[nn.Module, Part, Tensor]:
    """Train a network on a task in which a kind is planted; give it, the validation split and who carries the kind."""
    parts, _ = load_training(training, root)
    classes = int(max(part.labels.max() for part in parts.values())) + 1
    carriers = {}
    for number, split in enumerate(("train", "validation")):
        parts[split], carriers[split] = plant(parts[split], kind, classes, STRENGTH, training.seed * 7 + number)
    net, path = build(training, parts), folder / f"{training.name}-{kind.replace(' ', '-')}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval(), parts["validation"], carriers["validation"]
    data, epochs = parts["train"], training.task.epochs
    steps = epochs * (len(data.labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=max(steps, 2))
    for _ in range(epochs):
        for rows in torch.randperm(len(data.labels)).split(BATCH):
            if len(rows) == BATCH:
                optimizer.zero_grad()
                cross_entropy(net(data.images[rows]), data.labels[rows]).backward()
                optimizer.step()
                schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net.eval(), parts["validation"], carriers["validation"]


def planted(names: list[str], seeds: int, root: Path, folder: Path) -> Iterator[str]:
    """Print one line a network: pool and MLP heads take turns."""
    for name in names:
        for seed in range(seeds):
            for number, kind in enumerate(KINDS):
                training = Training(TASKS[name], seed, ("pool", "mlp")[(seed + number) % 2])
                parts, _ = load_training(training, root)
                if kind == "tint" and parts["train"].images.shape[1] != 3:
                    continue
                net, part, carries = train_planted(training, kind, root, folder)
                yield _line(f"{training.name} {kind}", search(net, part, carries.numpy()))


def sound(names: list[str], seeds: int, root: Path, bank: Path) -> Iterator[str]:
    """Print one line a network of ``benchmarks.real`` and checkpoint; of the skin images, the camera is the truth."""
    for name in names:
        for seed in range(seeds):
            training = Training(TASKS[name], seed, ("pool", "mlp")[seed % 2])
            parts, _ = load_training(training, root)
            part = parts["validation"]
            truth = part.index["dx_type"].eq("follow_up").to_numpy() if "dx_type" in part.index else None
            truth = None if truth is None or not truth.any() else truth
            for checkpoint in range(CHECKPOINTS):
                net = load_net(training, parts, bank, checkpoint)
                yield _line(f"{training.name} checkpoint {checkpoint}", search(net, part, truth))


def _line(name: str, found: Found) -> str:
    said = f"{found.name}, share {found.share:.3f}, AUC {found.auc:.3f}" if found.name else "nothing"
    return f"{name}: {'ALARM' if found.alarm else 'quiet'}, {said}"


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["planted", "bank"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-hidden")
    parser.add_argument("--bank", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["digits", "letters"])
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = (
        planted(options.tasks, options.seeds, options.root, options.folder)
        if options.action == "planted"
        else sound(options.tasks, options.seeds, options.root, options.bank)
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
