"""Command line of the benchmark on real data."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.real.tasks import TASKS
from benchmarks.real.train import Training, train

NOISY = ("ultrasound", "nodules", "xray", "digits", "digits-few", "skin-histology", "letters", "melanoma")
"""Tasks on which wrong labels are planted as well."""


def trainings(seeds: int) -> Iterator[Training]:
    """List every training, seed by seed."""
    for seed in range(seeds):
        for task in TASKS.values():
            yield Training(task, seed, "pool" if seed % 2 == 0 else "mlp")
        for name in NOISY:
            for noise in (0.02, 0.2):
                yield Training(TASKS[name], seed, "pool" if seed % 2 == 0 else "mlp", noise)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["train"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for training in trainings(options.seeds):
        began = time.perf_counter()
        found = json.loads((train(training, options.root, options.folder) / "accuracy.json").read_text())[-1]
        shown = " ".join(f"{split} {value:.3f}" for split, value in found.items())
        print(f"{training.name}: {shown}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
