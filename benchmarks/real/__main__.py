"""Command line of the benchmark on real data."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.real.copies import copies
from benchmarks.real.faults import FAULTS
from benchmarks.real.judge import judge, read_judged
from benchmarks.real.show import PURPOSES, tables
from benchmarks.real.tasks import TASKS
from benchmarks.real.train import Training, train

NOISY = ("ultrasound", "nodules", "xray", "digits", "digits-few", "skin-histology", "letters", "melanoma")
"""Tasks on which wrong labels are planted as well."""

NOISY_SEEDS, FAULTY_SEEDS = 4, 1
"""Seeds with which wrong labels, and with which the other faults are planted; sound networks have all seeds."""


def trainings(seeds: int, purposes: list[str]) -> Iterator[Training]:
    """List every training, seed by seed."""
    for seed in range(seeds):
        head = "pool" if seed % 2 == 0 else "mlp"
        for task in TASKS.values():
            if task.purpose not in purposes:
                continue
            yield Training(task, seed, head)
            if seed < NOISY_SEEDS and task.name in NOISY:
                yield from (Training(task, seed, head, noise) for noise in (0.02, 0.2))
            if seed < FAULTY_SEEDS and task.source:
                yield from (Training(task, seed, head, fault=fault) for fault in FAULTS)


def main() -> None:
    """Train what is missing, judge what has not been judged, show what was found, or plant copies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["train", "judge", "show", "copies"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ifa-real")
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--purpose", choices=PURPOSES, nargs="+", default=PURPOSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = trainings(options.seeds, options.purpose)
    if options.action == "judge":
        judge(wanted, options.root, options.folder)
    elif options.action == "copies":
        print(copies(options.root, options.folder))
    elif options.action == "show":
        print(tables(read_judged(wanted, options.folder)))
    else:
        for training in wanted:
            began = time.perf_counter()
            found = json.loads((train(training, options.root, options.folder) / "accuracy.json").read_text())[-1]
            shown = " ".join(f"{split} {value:.3f}" for split, value in found.items())
            print(f"{training.name}: {shown}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
