"""Are confounded networks repaired? Planted confounders on real digits, and the camera of the skin images.

``python -m benchmarks.repair planted --root DATA`` trains a network with the confounder, one without, and one on images
whose confounder is balanced over the classes, for each kind and seed; ``skin`` takes networks of ``benchmarks.real``.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.hidden.__main__ import STRENGTH, train_planted
from benchmarks.hidden.kinds import KINDS, plant
from benchmarks.real.tasks import TASKS, Part
from benchmarks.real.train import BATCH, CHECKPOINTS, Training, build, load_net, load_training, train
from lightning_ifa import analyze, repair
from lightning_ifa.errors import IFAError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.repairs.head_features import head_features, read_head, write_head
from lightning_ifa.repairs.repair import Repair
from lightning_ifa.statistics.head_repair import group_weights
from lightning_ifa.statistics.linear_head import LinearHead, fit_head
from lightning_ifa.statistics.reliance import reliance

GOAL, COST, RELIANCE = 0.7, 0.01, 0.02
LEAST_LOST = 0.03
"""Accuracy on conflicting samples that a confounder must cost for there to be something to repair."""

SIZE = 20


class Figures(NamedTuple):
    """Of one network on the test split: accuracy where the confounder points away, as drawn, and reliance."""

    conflicting: float
    accuracy: float
    reliance: float


def loader_of(part: Part) -> DataLoader:
    return DataLoader(TensorDataset(part.images, part.labels), batch_size=250)


@torch.no_grad()
def scores(net: nn.Module, images: Tensor) -> np.ndarray:
    net.eval()
    return torch.cat([net(x) for x in images.split(250)]).numpy()


def measure(net: nn.Module, drawn: tuple[Part, Tensor], against: Part) -> Figures:
    part, carries = drawn
    found = scores(net, part.images)
    return Figures(
        float((scores(net, against.images).argmax(1) == against.labels.numpy()).mean()),
        float((found.argmax(1) == part.labels.numpy()).mean()),
        reliance(found, part.labels.numpy(), carries.numpy()[:, None].astype(float)).share,
    )


def train_balanced(training: Training, kind: str, root: Path, folder: Path) -> nn.Module:
    """Train on the same images with the confounder on a random half of them: a goal for any repair."""
    parts, _ = load_training(training, root)
    data = plant(parts["train"], kind, int(parts["train"].labels.max()) + 1, 0.0, training.seed * 7 + 2)[0]
    net, path = build(training, parts), folder / f"{training.name}-{kind.replace(' ', '-')}-balanced.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    steps = training.task.epochs * (len(data.labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=max(steps, 2))
    for _ in range(training.task.epochs):
        for rows in torch.randperm(len(data.labels)).split(BATCH):
            if len(rows) == BATCH:
                optimizer.zero_grad()
                cross_entropy(net(data.images[rows]), data.labels[rows]).backward()
                optimizer.step()
                schedule.step()
    torch.save(net.state_dict(), path)
    return net.eval()


def retrain_as_published(net: nn.Module, layer: str, held_out: Part, carries: Tensor) -> nn.Module:
    """Retrain the last layer from 0 on equal groups of held-out samples (Kirichenko et al. 2023), in place of ours."""
    extraction = FeatureExtractor(net)
    found = head_features(extraction, loader_of(held_out), np.arange(len(held_out.labels)), layer)
    head = read_head(net, layer)
    nothing = LinearHead(0 * head.weight, 0 * head.bias)
    weights = group_weights(found.labels * 2 + carries.numpy().astype(int))
    new = copy.deepcopy(net)
    write_head(new, layer, fit_head(found.features, found.labels, weights, nothing, 0.03))
    return new


def planted(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Figures], Figures, float, Repair]]:
    for name in options.tasks:
        for seed in options.seeds:
            for kind in options.kinds:
                training = Training(TASKS[name], seed, ("pool", "mlp")[seed % 2])
                net, validation, carries = train_planted(training, kind, options.root, options.folder)
                train(training, options.root, options.bank)
                parts, _ = load_training(training, options.root)
                classes = int(max(part.labels.max() for part in parts.values())) + 1
                drawn = plant(parts["test"], kind, classes, STRENGTH, training.seed * 7 + 1)
                against = plant(parts["test"], kind, classes, -1.0, 99)[0]
                fitted, on = plant(parts["train"], kind, classes, STRENGTH, training.seed * 7 + 2)
                known = {
                    "train": pd.DataFrame({"tag": on.numpy()}),
                    "validation": pd.DataFrame({"tag": carries.numpy()}),
                }
                known = None if options.hidden else known
                report = analyze(net, loader_of(validation), loader_of(fitted), metadata=known, probes=1)
                start = time.process_time()
                hidden = report.confounders[report.confounders["origin"] == "hidden"]
                suspect = str(hidden.iloc[0]["source"]) if options.hidden and len(hidden) else "tag"
                try:
                    found = repair(
                        net, loader_of(fitted), report, loader_of(validation), suspect=suspect, metadata=known
                    )
                except IFAError as error:
                    print(f"{training.name} {kind}: refused: {error}", flush=True)
                    continue
                seconds = time.process_time() - start
                half = np.random.default_rng(0).permutation(len(carries))[: len(carries) // 2]
                part = Part(validation.images[half], validation.labels[half], validation.index)
                nets = {
                    "as trained": net,
                    "repaired": found.model,
                    "as published": retrain_as_published(net, found.layer, part, carries[half]),
                    "trained on balanced": train_balanced(training, kind, options.root, options.folder),
                }
                clean = load_net(training, parts, options.bank, CHECKPOINTS - 1)
                without = measure(clean, (parts["test"], drawn[1]), parts["test"])
                yield (f"{training.name} {kind}", {way: measure(one, drawn, against) for way, one in nets.items()},
                       without, seconds, found)  # fmt: skip


def show_planted(options: argparse.Namespace) -> None:
    met: dict[str, list[list[bool]]] = {}
    shares: dict[str, list[float]] = {}
    for name, ways, without, seconds, found in planted(options):
        before = ways["as trained"]
        lost = without.conflicting - before.conflicting
        print(
            f"{name}: without the confounder {without.conflicting:.3f} of the same samples; "
            f"{found.method}, {seconds:.1f} s"
        )
        for way, figures in ways.items():
            share = (figures.conflicting - before.conflicting) / lost if lost > 0 else float("nan")
            print(f"  {way:<20} conflicting {figures.conflicting:.3f} ({share:.0%} of the way), overall "
                  f"{figures.accuracy:.3f}, reliance {figures.reliance:.3f}", flush=True)  # fmt: skip
            if lost >= LEAST_LOST and way != "as trained":
                shares.setdefault(way, []).append(share)
                goals = [share >= GOAL, figures.accuracy >= before.accuracy - COST, figures.reliance <= RELIANCE]
                met.setdefault(way, []).append(goals)
    for way, goals in met.items():
        way_share, cheap, free = np.array(goals).sum(0)
        print(
            f"{way}: of {len(goals)} networks {way_share} recover 70 % of the way "
            f"(median {np.median(shares[way]):.0%}), {cheap} lose at most a point, "
            f"{free} rely by .02 or less; all three: {np.array(goals).all(1).sum()}"
        )


def show_skin(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        training = Training(TASKS["skin-3"], seed, ("pool", "mlp")[seed % 2])
        train(training, options.root, options.bank)
        parts, _ = load_training(training, options.root)
        net = load_net(training, parts, options.bank, CHECKPOINTS - 1)
        loaders = {split: loader_of(part) for split, part in parts.items()}
        known = {split: parts[split].index[["dx_type", "group"]] for split in ("train", "validation")}
        report = analyze(net, loaders["validation"], loaders["train"], metadata=known, probes=1)
        hidden = report.confounders[report.confounders["origin"] == "hidden"]["source"].tolist()
        for suspect in ["dx_type", *hidden[:1]]:
            try:
                found = repair(net, loaders["train"], report, loaders["validation"], suspect=suspect, metadata=known,
                               cost=options.cost)  # fmt: skip
            except IFAError as error:
                print(f"{training.name} by {suspect}: {error}", flush=True)
                continue
            print(f"{training.name} by {suspect}: {found.outlook}; {found.method or 'nothing helps'}")
            cells = parts["test"].index["dx_type"].to_numpy(), parts["test"].labels.numpy()
            right = [scores(one, parts["test"].images).argmax(1) == cells[1] for one in (net, found.model)]
            for label, diagnosis in enumerate(("nevi", "melanoma", "keratoses")):
                for way in np.unique(cells[0]):
                    inside = (cells[0] == way) & (cells[1] == label)
                    if inside.sum() >= SIZE:
                        a, b = (float(one[inside].mean()) for one in right)
                        print(f"  {diagnosis}, {way}: {a:.2f} -> {b:.2f} ({inside.sum()})", flush=True)


def main() -> None:
    """Print one paragraph a network, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["planted", "skin"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-hidden")
    parser.add_argument("--bank", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["digits"])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["place", "ruler", "contrast"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2])
    parser.add_argument("--hidden", action="store_true", help="by the column recovered without metadata")
    parser.add_argument("--cost", type=float, default=COST, help="overall accuracy that a repair of skin may cost")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options.folder.mkdir(parents=True, exist_ok=True)
    (show_planted if options.action == "planted" else show_skin)(options)


if __name__ == "__main__":
    main()
