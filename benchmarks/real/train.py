"""Train small networks on the tasks and keep their weights at six moments of each training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.real.faults import plant_fault, plant_noise
from benchmarks.real.tasks import Part, Task, load_task

BATCH = 50
CHECKPOINTS = 6
"""Moments of a training at which its weights are kept; of the usual length, every epoch."""


@dataclass(frozen=True)
class Training:
    """One network to be trained.

    Attributes:
        task: On what.
        seed: Of the split, of the weights and of the order.
        head: ``"pool"``, or ``"mlp"`` on flattened maps.
        noise: Share of wrong labels planted in both splits.
        fault: One of ``FAULTS``, or empty.
    """

    task: Task
    seed: int
    head: str = "pool"
    noise: float = 0.0
    fault: str = ""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task.name}-{self.head}-{self.fault or format(self.noise, 'g')}-{self.seed}"

    @property
    def epochs(self) -> int:
        """Over its training set; an overfitted network sees its few samples often."""
        return self.task.epochs * 10 if self.fault == "overfitted" else self.task.epochs


class Net(nn.Module):
    """Three or four convolutional blocks with batch norm in two or three dimensions, and a head."""

    def __init__(self, channels: int, size: tuple[int, ...], classes: int, head: str) -> None:
        super().__init__()
        deep = min(size) > 32
        widths = (channels, 16, 32, 64, 64) if deep else (channels, 16, 32, 64)
        turns = enumerate(pairwise(widths))
        self.features = nn.Sequential(*(self._block(a, b, len(size), min(size), turn) for turn, (a, b) in turns))
        self.pool = head == "pool"
        with torch.no_grad():
            flat = self.features(torch.zeros(2, channels, *size)).flatten(1).shape[1]
        self.head = nn.Linear(64, classes) if self.pool else nn.Sequential(
            nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, classes))  # fmt: skip

    @staticmethod
    def _block(n_in: int, n_out: int, space: int, size: int, number: int) -> nn.Sequential:
        conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[space - 2]
        stride = 2 if number in (0, 1) or (number == 2 and size > 32) else 1
        return nn.Sequential(conv(n_in, n_out, 3, stride, 1, bias=False), norm(n_out), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        return self.head(maps.flatten(2).mean(2) if self.pool else maps)


def load_training(training: Training, root: Path) -> tuple[dict[str, Part], dict[str, Tensor]]:
    """Give both splits and the test split as trained on, and which of their labels are wrong."""
    parts = load_task(training.task, root, training.seed)
    classes = int(max(part.labels.max() for part in parts.values())) + 1
    wrong = {split: torch.zeros(len(part.labels), dtype=torch.bool) for split, part in parts.items()}
    if training.noise:
        for number, split in enumerate(("train", "validation")):
            parts[split], wrong[split] = plant_noise(parts[split], training.noise, training.seed * 2 + number, classes)
    if training.fault:
        parts = plant_fault(parts, training.fault, training.seed, classes)
    return parts, wrong


def build(training: Training, parts: dict[str, Part]) -> Net:
    """Make the network, untrained."""
    classes = int(max(part.labels.max() for part in parts.values())) + 1
    torch.manual_seed(training.seed)
    return Net(parts["train"].images.shape[1], training.task.size, classes, training.head)


def train(training: Training, root: Path, folder: Path) -> Path:
    """Train one network unless it is there; ``checkpoint-<n>.pt`` holds the weights as they were."""
    target = folder / training.name
    if (target / "accuracy.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    parts, _ = load_training(training, root)
    net, data = build(training, parts), parts["train"]
    steps = training.epochs * (len(data.labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=max(steps, 2))
    accuracy = []
    for epoch in range(training.epochs):
        net.train()
        for rows in torch.randperm(len(data.labels)).split(BATCH):
            if len(rows) < BATCH:
                continue
            x = data.images[rows]
            plain = "digits" in training.task.name or training.fault
            flipped = torch.zeros(len(rows)) > 0 if plain else torch.rand(len(rows)) < 0.5
            x = torch.where(flipped.reshape(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
            loss = cross_entropy(net(x), data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % (training.epochs // CHECKPOINTS) == 0:
            torch.save(net.state_dict(), target / f"checkpoint-{len(accuracy)}.pt")
            accuracy.append({split: score(net, part) for split, part in parts.items()})
    (target / "accuracy.json").write_text(json.dumps(accuracy))  # last: complete
    return target


def load_net(training: Training, parts: dict[str, Part], folder: Path, checkpoint: int) -> Net:
    """Give the network as it was at a checkpoint, counted from 0, in evaluation mode."""
    net = build(training, parts)
    net.load_state_dict(torch.load(folder / training.name / f"checkpoint-{checkpoint}.pt", weights_only=True))
    return net.eval()


@torch.no_grad()
def score(net: nn.Module, part: Part) -> float:
    """Give the accuracy."""
    net.eval()
    found = [net(x).argmax(1) for x in part.images.split(250)]
    return float(np.mean((torch.cat(found) == part.labels).numpy()))
