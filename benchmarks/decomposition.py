"""Feature decomposition on real digits: which maps follow the logit, how many features are enough, what is redundant.

PYTHONPATH=. python benchmarks/decomposition.py                      # everything, about ten minutes on one core
PYTHONPATH=. python benchmarks/decomposition.py redundancy cost      # some sections
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from digit_nets import TRAIN, VALIDATION, DigitNet, digits, duplicated, trained, with_dead, with_mixes
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.decomposition import decompose
from lightning_ifa.decomposition.curves import Trial, channel_masks, component_curve, start_trial
from lightning_ifa.decomposition.decompose import SHARES
from lightning_ifa.evaluation.cam_check import check_maps
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.reduction import keep_channels, store_activations
from lightning_ifa.model.head import Head
from lightning_ifa.report.feature_report import FeatureReport
from lightning_ifa.statistics.channel_selection import kept_counts
from lightning_ifa.statistics.completeness import TRANSFORMS
from lightning_ifa.statistics.importance import order, preference

WIDTHS = (8, 16, 32, 64, 128, 256, 512)
SHOWN_SHARES = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)
LAYERS = ("features.1", "features.3.0", "features")


def loaders(seed: int, classes: int = 10) -> tuple[DataLoader, DataLoader]:
    images, labels = digits(seed)
    labels = labels * classes // 10
    train, validation = (DataLoader(TensorDataset(images[s], labels[s]), 250) for s in (TRAIN, VALIDATION))
    return validation, train


def analysed(model: DigitNet, seed: int = 0, layer: str = "features") -> tuple[FeatureReport, DataLoader]:
    validation, train = loaders(seed, model.head[-1].out_features)
    return analyze(model, validation, train, layer=layer, gradient="plain"), validation


def correlation(folder: Path) -> None:
    print(
        "\n# Map sum against logit: Pearson, mean over ten fixed classes (predicted class in brackets), 256 samples\n"
    )
    for head in ("gap", "mlp", "layernorm"):
        model = trained(64, head, 0, folder)
        report, validation = analysed(model)
        check = check_maps(model, validation, report, layers=LAYERS)
        cells = check.agreement.set_index(["layer", "method", "transform", "reading"])["pearson"].unstack("reading")
        text = cells.apply(lambda row: f"{row['mean']:.2f} ({row['predicted']:.2f})", axis=1).unstack("transform")
        shown = text[list(TRANSFORMS)].reindex(check.trust.set_index(["layer", "method"]).index)
        print(f"## head: {head}\n\n{shown.to_string()}\n")
        both = check.trust.merge(check.randomised, on=["layer", "method"], suffixes=("", "_random"))
        print(both.round(3).to_string(index=False))


def curves(folder: Path) -> None:
    print("\n# Selection curves: accuracy | map similarity; random: mean of ten draws [5 %, 95 %]\n")
    nets = {
        "gap, 64 channels": trained(64, "gap", 0, folder),
        "gap, 512 channels": trained(512, "gap", 0, folder),
        "gap, 32 channels x 4": duplicated(trained(32, "gap", 0, folder), 4, 0.05),
        "mlp, 64 channels": trained(64, "mlp", 0, folder),
    }
    for name, model in nets.items():
        report, validation = analysed(model)
        began = time.perf_counter()
        found = decompose(model, validation, report)
        print(f"## {name}: accuracy {found.full:.3f}, scope {found.scope}, {time.perf_counter() - began:.0f} s\n")
        frame = found.curves[found.curves["share"].isin(SHOWN_SHARES)]
        text = frame.apply(cell, axis=1)
        table = frame.assign(text=text).pivot(index="curve", columns="share", values="text")
        print(table.reindex(found.enough.index).to_string(), "\n")
        print(found.enough.to_string(), "\n")


def cell(row: pd.Series) -> str:
    band = f" [{row['performance_low']:.2f}, {row['performance_high']:.2f}]" if ", random" in row["curve"] else ""
    return f"{row['performance']:.2f}{band} | {row['similarity']:.2f}"


def planted(folder: Path) -> dict[str, tuple[DigitNet, int, float]]:
    """Name to network, seed, and the share of channels that are redundant by construction."""
    found = {f"{w} channels, seed {s}": (trained(w, "gap", s, folder), s, 0.0) for w in WIDTHS for s in (0, 1)}
    for width in (16, 64, 256):
        found[f"{width} channels, two classes, seed 0"] = (trained(width, "gap", 0, folder, classes=2), 0, 0.0)
    for seed in (0, 1):
        base = trained(32, "gap", seed, folder)
        for noise in (0.0, 0.05, 0.1, 0.2):
            found[f"32 x 4, weight noise {noise}, seed {seed}"] = (duplicated(base, 4, noise), seed, 0.75)
        found[f"32 x 2, weight noise 0.05, seed {seed}"] = (duplicated(base, 2, 0.05), seed, 0.5)
        found[f"32 + 32 dead, seed {seed}"] = (with_dead(base, 32), seed, 0.5)
        found[f"32 + 16 mixes, seed {seed}"] = (with_mixes(base, 16), seed, 1 / 3)
        wide = duplicated(trained(256, "gap", seed, folder), 2, 0.05)
        found[f"256 x 2, weight noise 0.05, seed {seed}"] = (wide, seed, 0.5)
    return found


def redundancy(folder: Path) -> None:
    print("\n# Redundancy against planted truth\n")
    rows = []
    for name, (model, seed, truth) in planted(folder).items():
        report, _ = analysed(model, seed)
        finding = report.findings["redundancy"]
        accuracy = report.tables["validation"].correct.mean()
        numbers = ("duplicate_share", "dependent_share", "dead_fraction", "mergeable_share", "components_95")
        rows.append(
            {"network": name, "accuracy": accuracy, "planted": truth, "score": finding.score, "health": finding.health}
            | {number: finding.details[number] for number in numbers}
            | {"participation": finding.details["participation_ratio"], "rank": finding.details["effective_rank"]}
        )
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def pruning(folder: Path) -> None:
    print("\n# Pruning by our advice, tried (random: as many channels at random, with refill, mean of ten)\n")
    nets = {name: entry for name, entry in planted(folder).items() if name.endswith("seed 0")}
    frames = []
    for name, (model, seed, _) in nets.items():
        report, validation = analysed(model, seed)
        found = decompose(model, validation, report, shares=(1.0,), modes=(), draws=1, components=1)
        frames.append(found.pruning.assign(network=name, full=found.full))
    table = pd.concat(frames)
    print(table[["network", "full", *table.columns[:-2]]].round(3).to_string(index=False))


def cost(folder: Path) -> None:
    print("\n# Cost: 1,000 samples x 512 channels x 10 classes, 20 shares, per value; one thread, best of three\n")
    rows = []
    for head in ("gap", "mlp"):
        torch.manual_seed(0)
        model = trained(512, "gap", 0, folder) if head == "gap" else DigitNet(512, "mlp").eval()
        report, validation = analysed(model)
        table = report.tables["validation"]
        extraction = FeatureExtractor(model, "features")
        with extraction.session():
            held = store_activations(extraction, validation, table)
            whole = best(lambda m=model, h=held: m(h.x))
            tail_alone = best(lambda m=model, h=held: m.head(h.A))
            with Head(model, held.layer, held.x[:8]) as network_head:
                trial = start_trial(network_head, held, table, report.tables["train"])
                scale = len(held.A) / len(trial.stored.A)
                for kind, run in kinds(trial, table).items():
                    value = best(run) * scale / len(SHARES)
                    rows.append(
                        {"head": head, "scope": network_head.scope, "curve": kind, "ms a value": 1e3 * value,
                         "tail alone, ms": 1e3 * tail_alone, "ratio": value / tail_alone,
                         "whole network, ms": 1e3 * whole}
                    )  # fmt: skip
    print(pd.DataFrame(rows).round(2).to_string(index=False))


def kinds(trial: Trial, table: FeatureTable) -> dict[str, Callable[[], object]]:
    counts = kept_counts(np.array(SHARES), 512)
    masks = channel_masks(order(preference("difference", table.contributions, table.explained, table.correct)), counts)
    return {
        "channels, zero": lambda: trial.mask(masks, "zero"),
        "channels, mean": lambda: trial.mask(masks, "mean"),
        "components": lambda: component_curve(trial, counts),
        "channels, zero, accuracy alone": lambda: trial.performance(keep_channels(masks, np.zeros(512))),
    }


def best(run: Callable[[], object]) -> float:
    """Process CPU time of the fastest of three, in seconds: other processes do not count."""
    times = []
    for _ in range(3):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


SECTIONS = {section.__name__: section for section in (correlation, curves, redundancy, pruning, cost)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=list(SECTIONS))
    parser.add_argument("--folder", type=Path, default=Path("runs/digit_nets"), help="keeps trained networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pd.set_option("display.width", 250)
    for section in options.sections:
        SECTIONS[section](options.folder)


if __name__ == "__main__":
    main()
