"""Train what is missing, keep weights, FeatureTables and what is known of the truth."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.planted.conditions import Condition
from benchmarks.planted.data import SOURCES, Split, draw
from benchmarks.planted.faults import assign, move, paint, plant_duplicates, plant_outliers
from benchmarks.planted.nets import NETS
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.extractor import FeatureExtractor

TABLE_ROWS = 1000
BATCH = 50


def place(folder: Path, condition: Condition, seed: int) -> Path:
    return folder / condition.name.replace("/", "-") / str(seed)


def splits(condition: Condition, seed: int) -> dict[str, Split]:
    """The data of one run, the same at every call."""
    source = SOURCES[condition.source]
    rng = torch.Generator().manual_seed(1000 + seed)
    found = {}
    for name, (images, labels) in draw(source, condition.n_train or source.n_train, seed).items():
        kinds = np.full(len(labels), "", dtype="U12")
        on = torch.zeros(len(labels), dtype=torch.bool)
        if condition.painter:
            on = assign(labels, condition.rule, condition.strength, source.classes, rng)
            images = paint(images, on, condition.painter, rng)
        if condition.label_noise and name != "test":
            wrong = torch.rand(len(labels), generator=rng) < condition.label_noise
            offset = torch.randint(1, source.classes, labels.shape, generator=rng)
            labels = torch.where(wrong, (labels + offset) % source.classes, labels)
            kinds[wrong.numpy()] = "mislabelled"
        if condition.outliers and name != "test":
            images, labels, kinds = plant_outliers(images, labels, source.classes, condition.outliers, seed)
        found[name] = Split(images, labels, on, kinds)
    if condition.outliers:
        train, val = found["train"], found["validation"]
        sides = (train.images, train.labels), (val.images, val.labels)
        images, labels, kinds = plant_duplicates(*sides, val.kinds, 20, seed)
        found["validation"] = Split(images, labels, val.tagged, kinds)
    return found


def build(condition: Condition) -> nn.Module:
    source = SOURCES[condition.source]
    images = source.load()[0]
    return NETS[condition.net](images.shape[-1], images.shape[1], condition.width, source.classes)


def fit(condition: Condition, seed: int, parts: dict[str, Split]) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Train; also give the logits of both splits after every epoch, (epochs, n, k) for 500 samples each."""
    torch.manual_seed(seed)
    net, source = build(condition), SOURCES[condition.source]
    train, clean = parts["train"], draw(source, condition.n_train or source.n_train, seed)["train"][0]
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01 if condition.net in ("pool", "flat") else 0.003,
                                  weight_decay=condition.weight_decay)  # fmt: skip
    steps = condition.epochs * -(-len(train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=steps)
    rng = torch.Generator().manual_seed(seed)
    traces: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    for _ in range(condition.epochs):
        net.train()
        for rows in torch.randperm(len(train.labels), generator=rng).split(BATCH):
            if len(rows) < 2:
                continue
            x = train.images[rows]
            if condition.unused:
                x = paint(clean[rows], torch.rand(len(rows), generator=rng) < 0.5, condition.painter, rng)
            x = move(x, source.shift, rng) if condition.augment else x
            loss = loss_of(net(x), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        for name, trace in traces.items():
            trace.append(predict(net, parts[name].images[:500]).numpy())
    return net.eval(), np.stack(traces["train"]), np.stack(traces["validation"])


def loss_of(output: Tensor, labels: Tensor) -> Tensor:
    if output.shape[1] == 1:
        return binary_cross_entropy_with_logits(output[:, 0], labels.float())
    return cross_entropy(output, labels)


@torch.no_grad()
def predict(net: nn.Module, images: Tensor) -> Tensor:
    """Logits in two or more columns."""
    net.eval()
    output = torch.cat([net(part) for part in images.split(250)])
    return torch.cat([-output / 2, output / 2], dim=1) if output.shape[1] == 1 else output


def extract(net: nn.Module, images: Tensor, labels: Tensor, tagged: Tensor | None = None) -> FeatureTable:
    """The FeatureTable of the first rows."""
    images, labels = images[:TABLE_ROWS], labels[:TABLE_ROWS]
    table = FeatureExtractor(net)(DataLoader(TensorDataset(images, labels), batch_size=250), np.arange(len(labels)))
    if tagged is None:
        return table
    return replace(table, metadata=pd.DataFrame({"tag": tagged[:TABLE_ROWS].numpy()}))


def truth(net: nn.Module, condition: Condition, seed: int, parts: dict[str, Split]) -> dict[str, float]:
    """What the fault costs on data nobody trained on."""
    test = parts["test"]
    found = {}
    for name in ("train", "validation", "test"):
        right = predict(net, parts[name].images).argmax(1) == parts[name].labels
        found[f"accuracy_{name}"] = float(right.float().mean())
    if condition.painter:
        source = SOURCES[condition.source]
        images = draw(source, condition.n_train or source.n_train, seed)["test"][0]
        rng = torch.Generator().manual_seed(5)
        for name, strength in (("aligned", 1.0), ("conflict", -1.0)):
            on = assign(test.labels, condition.rule, strength, source.classes, rng)
            if condition.rule == "one" and name == "conflict":
                on = test.labels != 3 % source.classes
            shown = paint(images, on, condition.painter, rng)
            found[f"accuracy_{name}"] = float((predict(net, shown).argmax(1) == test.labels).float().mean())
    return found


def run(condition: Condition, seed: int, folder: Path) -> Path:
    """Train one network unless it is there."""
    target = place(folder, condition, seed)
    if (target / "truth.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    parts = splits(condition, seed)
    net, train, validation = fit(condition, seed, parts)
    torch.save(net.state_dict(), target / "weights.pt")
    for name in ("train", "validation"):
        part = parts[name]
        extract(net, part.images, part.labels, part.tagged).save(target / f"{name}.npz")
    np.savez_compressed(
        target / "extra.npz",
        train_trace=train.astype(np.float16),
        validation_trace=validation.astype(np.float16),
        train_kinds=parts["train"].kinds[:TABLE_ROWS],
        validation_kinds=parts["validation"].kinds[:TABLE_ROWS],
    )
    content = asdict(condition) | {"seed": seed} | truth(net, condition, seed, parts)
    (target / "truth.json").write_text(json.dumps(content, indent=1))  # last: complete
    return target


def load_net(condition: Condition, seed: int, folder: Path) -> nn.Module:
    net = build(condition)
    net.load_state_dict(torch.load(place(folder, condition, seed) / "weights.pt", weights_only=True))
    return net.eval()
