"""Command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.planted.conditions import SETS
from benchmarks.planted.score import score
from benchmarks.planted.tables import tables
from benchmarks.planted.train import place, run


def train(folder: Path, which: str, seeds: int) -> None:
    """Seed by seed, so that a part of the work already covers every condition."""
    torch.set_num_threads(1)
    todo = [(seed, c) for seed in range(seeds) for c in SETS[which]() if seed < c.seeds]
    for number, (seed, condition) in enumerate(todo, start=1):
        if (place(folder, condition, seed) / "truth.json").exists():
            continue
        began = time.perf_counter()
        found = json.loads((run(condition, seed, folder) / "truth.json").read_text())
        accuracies = " ".join(f"{k[9:]} {v:.3f}" for k, v in found.items() if k.startswith("accuracy"))
        print(f"[{number}/{len(todo)}] {condition.name} {seed}: {accuracies}, {time.perf_counter() - began:.1f} s",
              flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted-truth benchmark of the indicators")
    parser.add_argument("action", choices=["train", "score"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-planted")
    parser.add_argument("--set", choices=list(SETS), default="tuning")
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    if options.action == "train":
        train(options.folder, options.set, options.seeds)
        return
    names = {c.name for c in SETS[options.set]()}
    rows = score(options.folder, names, options.seeds)
    rows.to_parquet(options.folder / f"scores-{options.set}.parquet")
    print(tables(rows))


if __name__ == "__main__":
    main()
