"""Command line: are planted confounders found without metadata, and are sound networks left alone?"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.hidden.kinds import KINDS, plant, tag_area
from benchmarks.hidden.search import Found, search
from benchmarks.real.tasks import TASKS, Part
from benchmarks.real.train import BATCH, CHECKPOINTS, Training, build, load_net, load_training, train

STRENGTH = 0.9


def train_planted(training: Training, kind: str, root: Path, folder: Path) -> tuple[nn.Module, Part, Tensor]:
    """Train a network on a task in which a kind is planted; give it, the validation split and who carries the kind."""
    parts, _ = load_training(training, root)
    classes = int(max(part.labels.max() for part in parts.values())) + 1
    carriers = {}
    for number, split in enumerate(("validation", "test", "train")):
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


def planted(names: list[str], seeds: list[int], root: Path, folder: Path) -> Iterator[tuple[str, Found]]:
    """Go through networks in which a kind is planted: pool and MLP heads take turns."""
    for name in names:
        for seed in seeds:
            for number, kind in enumerate(KINDS):
                training = Training(TASKS[name], seed, ("pool", "mlp")[(seed + number) % 2])
                parts, _ = load_training(training, root)
                if kind == "tint" and parts["train"].images.shape[1] != 3:
                    continue
                net, part, carries = train_planted(training, kind, root, folder)
                area = tag_area(kind, part.images.shape[2:])
                yield f"{training.name} {kind}", search(net, part, carries.numpy(), area)


def sound(
    names: list[str], seeds: list[int], root: Path, bank: Path, checkpoints: list[int]
) -> Iterator[tuple[str, Found]]:
    """Go through networks of ``benchmarks.real``; of the skin images, the camera is the truth."""
    for name in names:
        for seed in seeds:
            training = Training(TASKS[name], seed, ("pool", "mlp")[seed % 2])
            train(training, root, bank)
            parts, _ = load_training(training, root)
            part = parts["validation"]
            truth = part.index["dx_type"].eq("follow_up").to_numpy() if "dx_type" in part.index else None
            truth = None if truth is None or not truth.any() else truth
            for checkpoint in checkpoints:
                net = load_net(training, parts, bank, checkpoint)
                yield f"{training.name} checkpoint {checkpoint}", search(net, part, truth)


def main() -> None:
    """Print one line a network, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["planted", "bank"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-hidden")
    parser.add_argument("--bank", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["digits", "letters"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--checkpoints", nargs="+", type=int, default=list(range(CHECKPOINTS)))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.action == "planted":
        networks = planted(options.tasks, options.seeds, options.root, options.folder)
    else:
        networks = sound(options.tasks, options.seeds, options.root, options.bank, options.checkpoints)
    every = []
    for name, found in networks:
        every.append(found)
        print(f"{name}: {found.sentence()}", flush=True)
    alarms = [found for found in every if found.alarm]
    recovered = sum(found.auc >= 0.95 for found in alarms)
    print(f"{len(every)} networks: {len(alarms)} alarms, {recovered} recovered at an AUC of .95 or more")


if __name__ == "__main__":
    main()
